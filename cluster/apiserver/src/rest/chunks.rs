//! The body of a list, made while the client reads it: a list of ten thousand objects never stands in memory as a whole.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::http::{Body, full};
use crate::store::Object;

/// Items are joined to pieces of about this size.
const CHUNK: usize = 64 << 10;

/// A list in pieces: a head, the items with commas between them, and `]}`.
struct Chunks<W> {
    head: String,
    items: std::vec::IntoIter<Arc<Object>>,
    write: W,
    began: bool,
    ended: bool,
}

impl<W: FnMut(&mut Vec<u8>, &Object)> Iterator for Chunks<W> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut chunk = std::mem::take(&mut self.head).into_bytes();
        for item in self.items.by_ref() {
            if std::mem::replace(&mut self.began, true) {
                chunk.push(b',');
            }
            (self.write)(&mut chunk, &item);
            if chunk.len() >= CHUNK {
                return Some(chunk.into());
            }
        }
        self.ended = true;
        chunk.extend_from_slice(b"]}");
        Some(chunk.into())
    }
}

/// The body of a list. `head` is JSON up to the first item; `write` appends one item. What fits into one piece has a length.
pub(super) fn list_body<W>(head: String, objects: Vec<Arc<Object>>, write: W) -> Body
where
    W: FnMut(&mut Vec<u8>, &Object) + Send + 'static,
{
    let mut chunks = Chunks { head, items: objects.into_iter(), write, began: false, ended: false };
    let first = chunks.next().unwrap_or_default();
    if chunks.ended {
        return full(first);
    }
    let frames = std::iter::once(first).chain(chunks).map(|chunk| Ok(Frame::data(chunk)));
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Key;

    fn body(count: usize) -> Body {
        let object = |number| Arc::new(Object::unsaved(Key::new("a", "b"), None, json!({"n": number, "pad": "x".repeat(100)})));
        list_body("{\"items\":[".into(), (0..count).map(object).collect(), |chunk, object| {
            chunk.extend_from_slice(&object.json());
        })
    }

    #[tokio::test]
    async fn a_long_list_comes_in_pieces_and_is_whole() {
        for count in [0, 1, 3000] {
            let (mut body, mut text, mut pieces) = (body(count), Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.len() < CHUNK + 1024);
                text.extend_from_slice(&piece);
                pieces += 1;
            }
            let list: Value = serde_json::from_slice(&text).unwrap();
            let numbers = list["items"].as_array().unwrap().iter().map(|item| item["n"].as_u64().unwrap());
            assert!(numbers.eq(0..count as u64));
            assert_eq!(pieces > 1, count == 3000);
        }
    }
}

//! What an authorizer answers. A request says itself what becomes of it: `x-authz: 403` is denied with that status, anything else is let
//! through with `x-authz-checked: yes`.

use std::collections::BTreeMap;

use crate::case::{Lines, Reply};
use crate::upstream::CASE_HEADER;

const VERDICT: &str = "x-authz";
const CHECKED: &str = "x-authz-checked";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const DENIED: &str = "denied by the authorizer";

/// The answer over HTTP.
pub(crate) fn reply(headers: &[(String, String)]) -> Reply {
    let verdict = headers.iter().find(|(name, _)| name == VERDICT).and_then(|(_, value)| value.parse().ok());
    let status = verdict.unwrap_or(200);
    let headers = BTreeMap::from([
        (CHECKED.to_owned(), Lines::One("yes".into())),
        ("x-authz-other".to_owned(), Lines::One("other".into())),
    ]);
    Reply { status, headers, body: Some(if status == 200 { String::new() } else { DENIED.into() }), ..Reply::default() }
}

/// A question over gRPC.
pub(crate) struct Question {
    /// Of the request that it is about.
    pub(crate) id: String,
    verdict: Option<u32>,
}

/// The question that a request is, if it is one. Of the message (`CheckRequest`) only two headers are looked for.
pub(crate) fn question(path: &str, body: &[u8]) -> Option<Question> {
    let verdict = header(body, VERDICT).and_then(|value| value.parse().ok());
    (path == CHECK).then(|| Question { id: header(body, CASE_HEADER).unwrap_or_default(), verdict })
}

/// The value of an entry of a map from text to text: field 1 is the key, field 2 the value.
fn header(message: &[u8], name: &str) -> Option<String> {
    let key = [&[0x0a, u8::try_from(name.len()).ok()?], name.as_bytes(), &[0x12]].concat();
    let at = message.windows(key.len()).position(|window| window == key)? + key.len();
    let length = usize::from(*message.get(at)?);
    let value = message.get(at + 1..at + 1 + length)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A field that holds bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap_or(0)], value].concat()
}

/// A field that holds a number below 2¹⁴.
fn number(field: u8, value: u32) -> Vec<u8> {
    let [low, high] = [value & 0x7f, value >> 7].map(|part| part.to_le_bytes()[0]);
    if high == 0 { vec![field << 3, low] } else { vec![field << 3, low | 0x80, high] }
}

impl Question {
    /// `CheckResponse`.
    pub(crate) fn reply(&self) -> Reply {
        let option = |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
        let message = match self.verdict {
            None => [field(1, &[]), field(3, &field(2, &option(CHECKED, "yes")))].concat(),
            Some(status) => {
                let denied =
                    [field(1, &number(1, status)), field(2, &option(CHECKED, "no")), field(3, DENIED.as_bytes())].concat();
                [field(1, &number(1, 7)), field(2, &denied)].concat()
            }
        };
        let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
        Reply {
            headers: BTreeMap::from([("content-type".to_owned(), Lines::One("application/grpc".into()))]),
            bytes: Some([&[0][..], &length, &message].concat()),
            trailers: BTreeMap::from([("grpc-status".to_owned(), "0".to_owned())]),
            ..Reply::default()
        }
    }
}

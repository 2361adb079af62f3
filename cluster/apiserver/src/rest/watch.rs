//! Watch streams.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meshlab_objects::Status;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::list::{Match, Revision, Selection, expired, forbidden_option};
use super::{Call, View};
use crate::api::Api;
use crate::http::{BoxError, Response};
use crate::metrics::OpenWatch;
use crate::registry::Served;
use crate::store::frame;
use crate::store::{Change, Event, Expired, Object, Watcher};

/// Kubernetes' watches end after half an hour to an hour, so that clients spread anew.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// Kubernetes' interval of bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events are joined to writes of about this size.
const CHUNK: usize = 64 << 10;

/// One client's watch.
struct Stream {
    api: Arc<Api>,
    served: Arc<Served>,
    namespace: Option<String>,
    selection: Selection,
    view: View,
    watcher: Watcher,
    /// Objects to be sent as ADDED before anything else, last one first.
    initial: Vec<Arc<Object>>,
    /// The bookmark after them, if one was asked for.
    initial_events_end: Option<u64>,
    bookmarks: Option<Interval>,
    /// The end of the watch: its time is over, or the server stops. Made once, as registering anew for every event would cost more
    /// than the event.
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    first_table: bool,
    ended: bool,
    _open: OpenWatch,
}

impl Call {
    pub(super) fn watch(&self) -> Result<Response, Status> {
        let selection = self.selection()?;
        let revision = Revision::parse(&self.query)?;
        let initial_events = self.query.optional_flag("sendInitialEvents");
        match (initial_events, revision.matching) {
            (Some(_), Match::Unset | Match::Exact) => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(forbidden_option("resourceVersionMatch", why));
            }
            (None, Match::Exact | Match::NotOlderThan) => {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(forbidden_option("resourceVersionMatch", why));
            }
            _ => {}
        }
        let bookmarks = self.query.flag("allowWatchBookmarks");
        let store = &self.api.store;
        let from_state = match (revision.requested, initial_events) {
            (_, Some(true)) | (None | Some(0), None) => true,
            (_, Some(false)) | (Some(_), None) => false,
        };
        let view = self.view()?;
        let (mut initial, watcher, listed) = if from_state {
            let (listing, watcher) = store.list_and_watch(&self.served.id, self.scope());
            (listing.objects, watcher, Some(listing.revision))
        } else {
            let since = revision.requested.filter(|requested| *requested > 0).unwrap_or_else(|| store.revision());
            match store.watch(&self.served.id, since) {
                Ok(watcher) => (Vec::new(), watcher, None),
                // As a real server does: the answer is a stream of one event.
                Err(why) => return Ok(streaming(stream::iter([Ok(Frame::data(error_frame(&expired(why))))]))),
            }
        };
        initial.retain(|object| selection.matches(object));
        initial.reverse();
        let timeout =
            self.query.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        let timeout = timeout.map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs(seconds.min(24 * 3600)));
        let first_bookmark = Instant::now() + BOOKMARK_INTERVAL;
        let stream = Stream {
            api: self.api.clone(),
            served: self.served.clone(),
            namespace: self.scope().map(str::to_owned),
            selection,
            view,
            watcher,
            initial,
            initial_events_end: listed.filter(|_| initial_events == Some(true) && bookmarks),
            bookmarks: bookmarks.then(|| {
                let mut ticks = interval_at(first_bookmark, BOOKMARK_INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            }),
            over: Box::pin(over(self.api.stop.clone(), timeout)),
            first_table: true,
            ended: false,
            _open: self.api.metrics.open_watch(),
        };
        Ok(streaming(stream::unfold(stream, |mut stream| async move {
            let bytes = stream.next().await?;
            Some((Ok(Frame::data(bytes)), stream))
        })))
    }
}

fn streaming(frames: impl futures::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static) -> Response {
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_frame(status: &Status) -> Bytes {
    frame("ERROR", status.to_value().to_string().as_bytes())
}

async fn over(stop: CancellationToken, timeout: Duration) {
    // Either way it is over.
    let _ = stop.run_until_cancelled(sleep(timeout)).await;
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

impl Stream {
    /// The next bytes of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.initial_events() {
            return Some(bytes);
        }
        while !self.ended {
            tokio::select! {
                biased;
                () = self.over.as_mut() => return None,
                events = self.watcher.next() => match events {
                    Ok(events) => if let Some(bytes) = self.events(&events) { return Some(bytes) },
                    Err(why) => return Some(self.end(why)),
                },
                () = tick(self.bookmarks.as_mut()) => {
                    if let Some(revision) = self.api.store.caught_up(&self.served.id, self.watcher.cursor()) {
                        return Some(frame("BOOKMARK", &self.view.bookmark(revision, false)));
                    }
                }
            }
        }
        None
    }

    fn end(&mut self, why: Expired) -> Bytes {
        self.ended = true;
        error_frame(&expired(why))
    }

    fn initial_events(&mut self) -> Option<Bytes> {
        if self.initial.is_empty() && self.initial_events_end.is_none() {
            return None;
        }
        let mut bytes = BytesMut::new();
        while bytes.len() < CHUNK {
            let Some(object) = self.initial.pop() else {
                self.initial = Vec::new();
                if let Some(revision) = self.initial_events_end.take() {
                    bytes.put(frame("BOOKMARK", &self.view.bookmark(revision, true)));
                }
                break;
            };
            self.put(&mut bytes, "ADDED", &object);
        }
        Some(bytes.freeze())
    }

    fn events(&mut self, events: &[Arc<Event>]) -> Option<Bytes> {
        if let [event] = events
            && self.is_whole(event)
        {
            return Some(event.frame());
        }
        let mut bytes = BytesMut::new();
        for event in events {
            if self.is_whole(event) {
                bytes.put(event.frame());
            } else if self.namespace.as_deref().is_none_or(|namespace| event.object.key.namespace() == namespace)
                && let Some(change) = self.change(event)
            {
                self.put(&mut bytes, change.name(), &event.object);
            }
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    /// The event can be sent as the store has written it.
    fn is_whole(&self, event: &Event) -> bool {
        self.view.is_plain()
            && self.selection.is_all()
            && self.namespace.as_deref().is_none_or(|namespace| event.object.key.namespace() == namespace)
    }

    /// What the event is to this client: an object that comes into its selection is added, one that leaves it is deleted.
    fn change(&self, event: &Event) -> Option<Change> {
        if self.selection.is_all() {
            return Some(event.change);
        }
        let before = event.previous.as_ref().is_some_and(|previous| self.selection.matches(previous));
        let after = event.change != Change::Deleted && self.selection.matches(&event.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
        }
    }

    fn put(&mut self, bytes: &mut BytesMut, kind: &str, object: &Object) {
        bytes.put(frame(kind, &self.view.event_object(object, self.first_table)));
        self.first_table = false;
    }
}

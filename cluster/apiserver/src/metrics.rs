//! `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::store::Store;

/// Counters of a server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    watches: Arc<AtomicU64>,
}

/// A watch that is being served.
pub(crate) struct OpenWatch(Arc<AtomicU64>);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn count(&self, method: &Method, code: StatusCode) {
        // What is no method of HTTP is one entry, so that a client cannot make them without end.
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            _ => "other",
        };
        *self.requests.lock().entry((method, code.as_u16())).or_default() += 1;
    }

    /// Counts a watch for as long as what is returned lives.
    pub(crate) fn open_watch(&self) -> OpenWatch {
        self.watches.fetch_add(1, Ordering::Relaxed);
        OpenWatch(self.watches.clone())
    }

    /// The text format of Prometheus.
    pub(crate) fn render<'a>(&self, store: &Store, resources: impl Iterator<Item = &'a crate::store::GroupResource>) -> String {
        let mut text = String::from(
            "# HELP apiserver_request_total Counter of apiserver requests broken out for each verb and HTTP response code.\n\
             # TYPE apiserver_request_total counter\n",
        );
        for ((verb, code), count) in self.requests.lock().iter() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "apiserver_request_total{{code=\"{code}\",verb=\"{verb}\"}} {count}");
        }
        let watches = self.watches.load(Ordering::Relaxed);
        let _ = writeln!(
            text,
            "# HELP apiserver_longrunning_requests Gauge of all active long-running apiserver requests.\n\
             # TYPE apiserver_longrunning_requests gauge\napiserver_longrunning_requests{{verb=\"WATCH\"}} {watches}"
        );
        text.push_str(
            "# HELP apiserver_storage_objects Number of stored objects split by kind.\n# TYPE apiserver_storage_objects gauge\n",
        );
        for resource in resources {
            let _ = writeln!(text, "apiserver_storage_objects{{resource=\"{resource}\"}} {}", store.count(resource));
        }
        text
    }
}

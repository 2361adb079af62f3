//! `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::store::Store;

/// Counters of a server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
}

impl Metrics {
    pub(crate) fn count(&self, method: &Method, code: StatusCode) {
        // What is no method of HTTP is one entry, so that a client cannot make them without end.
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
                method.as_str()
            }
            _ => "other",
        };
        *self.requests.lock().entry((method.to_owned(), code.as_u16())).or_default() += 1;
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
        text.push_str(
            "# HELP apiserver_storage_objects Number of stored objects split by kind.\n# TYPE apiserver_storage_objects gauge\n",
        );
        for resource in resources {
            let _ = writeln!(text, "apiserver_storage_objects{{resource=\"{resource}\"}} {}", store.count(resource));
        }
        text
    }
}

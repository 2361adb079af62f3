//! One line of an access log, in Istio's default text format or in its JSON.
//! <https://istio.io/latest/docs/tasks/observability/logs/access-log/#default-access-log-format>

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use crate::inventory::PodInfo;

/// Names of the fields in JSON, in the order of the text format.
const FIELDS: [&str; 24] = [
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
];

/// The default format. A path or header may hold quotes, which are not escaped: what stands around them decides.
static TEXT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let quoted = r#""(.*?)""#;
    let pattern = format!(
        r#"^\[([^\]]+)\] {quoted} (\d+|-) (\S+) (.*?) (\S+) {quoted} (\d+|-) (\d+|-) (\d+|-) (\S+) {} (\S+) (\S+) (\S+) (\S+) (\S+) (.*)$"#,
        [quoted; 5].join(" ")
    );
    Regex::new(&pattern).inspect_err(|error| tracing::error!(%error, "the pattern of access logs is broken")).ok()
});

/// Whose request it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
    Unknown,
}

/// A line.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// RFC 3339, in UTC.
    pub(super) time: String,
    pub(super) namespace: String,
    pub(super) workload: String,
    pub(super) pod: String,
    /// As written.
    pub(super) line: String,
    fields: Map<String, Value>,
}

impl Entry {
    /// A line of `pod`'s proxy; `None` if it is something else than an access log.
    pub(super) fn parse(line: &str, pod: &PodInfo) -> Option<Self> {
        let fields = if line.starts_with('{') { serde_json::from_str(line).ok()? } else { text(line)? };
        let time = fields.get("start_time")?.as_str()?.to_owned();
        Some(Self {
            time,
            namespace: pod.namespace.clone(),
            workload: pod.workload.clone(),
            pod: pod.name.clone(),
            line: line.to_owned(),
            fields,
        })
    }

    /// A field as text; empty if it is not there or `-`.
    pub(super) fn get(&self, name: &str) -> String {
        match self.fields.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) if text == "-" => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// All fields that say something, with those of a format of one's own behind.
    pub(super) fn fields(&self) -> Vec<(String, String)> {
        let known = FIELDS.iter().map(|name| (*name).to_owned());
        let own = self.fields.keys().filter(|name| !FIELDS.contains(&name.as_str())).cloned();
        known
            .chain(own)
            .map(|name| (self.get(&name), name))
            .filter(|(value, _)| !value.is_empty())
            .map(|(value, name)| (name, value))
            .collect()
    }

    /// 0 if there was no answer, or it is not HTTP.
    pub(super) fn code(&self) -> u16 {
        self.get("response_code").parse().unwrap_or(0)
    }

    pub(super) fn flags(&self) -> Vec<String> {
        self.get("response_flags").split(',').filter(|flag| !flag.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn is_http(&self) -> bool {
        !self.get("method").is_empty()
    }

    pub(super) fn is_error(&self) -> bool {
        self.code() >= 400 || (self.is_http() && self.code() == 0) || !self.flags().is_empty()
    }

    pub(super) fn direction(&self) -> Direction {
        let cluster = self.get("upstream_cluster");
        match cluster.split(['|', ';']).next().unwrap_or_default() {
            "inbound" | "InboundPassthroughCluster" => Direction::Inbound,
            "outbound" | "PassthroughCluster" | "BlackHoleCluster" => Direction::Outbound,
            _ => Direction::Unknown,
        }
    }
}

fn text(line: &str) -> Option<Map<String, Value>> {
    let captures = TEXT.as_ref()?.captures(line)?;
    let group = |index: usize| captures.get(index).map_or("", |group| group.as_str());
    let mut fields = Map::new();
    let mut put = |name: &str, value: &str| {
        fields.insert(name.to_owned(), Value::String(value.to_owned()));
    };
    put("start_time", group(1));
    // `METHOD PATH PROTOCOL`; of TCP, `- - -`.
    let request = group(2);
    let (method, rest) = request.split_once(' ').unwrap_or((request, ""));
    let (path, protocol) = rest.rsplit_once(' ').unwrap_or((rest, ""));
    put("method", method);
    put("path", path);
    put("protocol", protocol);
    for (name, index) in FIELDS[4..24].iter().zip(3..) {
        put(name, group(index));
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodInfo {
        PodInfo {
            namespace: "webapp".to_owned(),
            name: "webapp-v1-79fb958dbc-d7cxh".to_owned(),
            workload: "webapp-v1".to_owned(),
            address: "10.244.0.34".to_owned(),
            proxied: true,
            opted_out: false,
            ready: true,
        }
    }

    const LINE: &str = r#"[2026-11-22T22:34:02.175Z] "GET /order HTTP/1.1" 503 UF,URX upstream_reset_before_response_started{connection_failure} - "delayed connect error: 111" 0 91 3 - "10.244.0.1" "curl/8" "98dabb88" "webapp.istio.local" "10.244.0.34:8080" outbound|80|v1|webapp-service.webapp.svc.cluster.local - 10.96.0.7:80 10.244.0.1:0 - default"#;

    #[test]
    fn the_default_format_is_read() {
        let entry = Entry::parse(LINE, &pod()).unwrap();
        assert_eq!((entry.code(), entry.flags(), entry.direction()), (503, vec!["UF".into(), "URX".into()], Direction::Outbound));
        assert!(entry.is_error() && entry.is_http());
        let fields: Vec<_> = entry.fields().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        insta::assert_snapshot!(fields.join("\n"), @r"
        start_time=2026-11-22T22:34:02.175Z
        method=GET
        path=/order
        protocol=HTTP/1.1
        response_code=503
        response_flags=UF,URX
        response_code_details=upstream_reset_before_response_started{connection_failure}
        upstream_transport_failure_reason=delayed connect error: 111
        bytes_received=0
        bytes_sent=91
        duration=3
        x_forwarded_for=10.244.0.1
        user_agent=curl/8
        request_id=98dabb88
        authority=webapp.istio.local
        upstream_host=10.244.0.34:8080
        upstream_cluster=outbound|80|v1|webapp-service.webapp.svc.cluster.local
        downstream_local_address=10.96.0.7:80
        downstream_remote_address=10.244.0.1:0
        route_name=default
        ");
    }

    #[test]
    fn quotes_in_a_path_do_not_move_other_fields() {
        let entry = Entry::parse(&LINE.replace("/order", r#"/a" 200 - "b" c"#), &pod()).unwrap();
        assert_eq!(entry.get("route_name"), "default");
        assert_eq!(entry.get("upstream_cluster"), "outbound|80|v1|webapp-service.webapp.svc.cluster.local");
    }

    #[test]
    fn json_is_read_and_other_lines_are_not_taken_for_entries() {
        let json = r#"{"start_time":"2026-11-22T22:34:02.175Z","method":"GET","path":"/","response_code":200,"response_flags":"-","course":"phase3"}"#;
        let entry = Entry::parse(json, &pod()).unwrap();
        assert_eq!((entry.code(), entry.is_error()), (200, false));
        assert!(entry.fields().contains(&("course".to_owned(), "phase3".to_owned())));
        for other in ["", "{", "2026-11-22T22:34:02Z info ready", "[x] \"", r#"{"level":"info"}"#] {
            assert!(Entry::parse(other, &pod()).is_none(), "{other}");
        }
    }
}

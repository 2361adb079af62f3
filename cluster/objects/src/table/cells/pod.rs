//! Cells of pods: what STATUS and RESTARTS say.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, Row, at, text};
use crate::table::duration;

pub(in crate::table) fn cells(row: Row<'_>) -> Vec<Value> {
    let summary = Summary::of(row);
    let ip = row.list("/status/podIPs").first().map(|ip| text(ip, "ip")).filter(|ip| !ip.is_empty());
    let ip = ip.unwrap_or_else(|| row.text_or_none("/status/podIP"));
    vec![
        row.name(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.clone().into(),
        summary.restarts(row.now).into(),
        row.age(),
        ip.into(),
        row.text_or_none("/spec/nodeName").into(),
        row.text_or_none("/status/nominatedNodeName").into(),
        readiness_gates(row).into(),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts,
}

/// Restarts and the time of the last one.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
        let finished = at(status, "/lastState/terminated/finishedAt").and_then(Value::as_str);
        let finished = finished.and_then(|time| time.parse().ok());
        self.last = self.last.max(finished);
    }
}

impl Summary {
    fn of(row: Row<'_>) -> Self {
        let init_containers = row.list("/spec/initContainers");
        let restartable = |name: &str| {
            let container = init_containers.iter().find(|container| text(container, "name") == name);
            container.is_some_and(|container| text(container, "restartPolicy") == "Always")
        };
        let sidecars = init_containers.iter().filter(|container| text(container, "restartPolicy") == "Always").count();
        let mut summary = Self {
            ready: 0,
            total: row.list("/spec/containers").len() + sidecars,
            status: row.text("/status/phase").to_owned(),
            restarts: Restarts::default(),
        };
        if !row.text("/status/reason").is_empty() {
            row.text("/status/reason").clone_into(&mut summary.status);
        }
        if condition(row, "PodScheduled").is_some_and(|condition| text(condition, "reason") == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut summary.status);
        }
        let mut sidecar_restarts = Restarts::default();
        let initializing = summary.init(row, init_containers.len(), restartable, &mut sidecar_restarts);
        if !initializing || is_true(condition(row, "Initialized")) {
            summary.restarts = sidecar_restarts;
            summary.main(row);
        }
        if row.at("/metadata/deletionTimestamp").is_some() {
            if row.text("/status/reason") == "NodeLost" {
                "Unknown".clone_into(&mut summary.status);
            } else if !matches!(row.text("/status/phase"), "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.status);
            }
        }
        summary
    }

    /// Looks at init containers; whether the pod is still busy with them.
    fn init(&mut self, row: Row<'_>, count: usize, restartable: impl Fn(&str) -> bool, sidecar_restarts: &mut Restarts) -> bool {
        for (index, status) in row.list("/status/initContainerStatuses").iter().enumerate() {
            self.restarts.add(status);
            let sidecar = restartable(text(status, "name"));
            if sidecar {
                sidecar_restarts.add(status);
            }
            let terminated = at(status, "/state/terminated");
            let waiting = at(status, "/state/waiting").map(|waiting| text(waiting, "reason")).unwrap_or_default();
            if terminated.is_some_and(|terminated| terminated.get("exitCode").is_none_or(|code| code == 0)) {
                continue;
            }
            if sidecar && status.get("started").is_some_and(|started| started == true) {
                self.ready += usize::from(is_ready(status));
                continue;
            }
            self.status = match terminated {
                Some(terminated) => format!("Init:{}", termination(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{count}"),
            };
            return true;
        }
        false
    }

    /// Looks at the main containers; the first one has the last word.
    fn main(&mut self, row: Row<'_>) {
        let mut running = false;
        for status in row.list("/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = at(status, "/state/waiting").map(|waiting| text(waiting, "reason")).unwrap_or_default();
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if let Some(terminated) = at(status, "/state/terminated") {
                self.status = termination(terminated);
            } else if is_ready(status) && at(status, "/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // One container that still runs outweighs those that are done.
        if self.status == "Completed" && running {
            let status = if is_true(condition(row, "Ready")) { "Running" } else { "NotReady" };
            status.clone_into(&mut self.status);
        }
    }

    /// `3 (10s ago)`
    fn restarts(&self, now: Timestamp) -> String {
        match self.restarts.last {
            Some(last) if self.restarts.count > 0 => {
                format!("{} ({} ago)", self.restarts.count, duration::human(now.duration_since(last)))
            }
            _ => self.restarts.count.to_string(),
        }
    }
}

fn is_ready(status: &Value) -> bool {
    status.get("ready").is_some_and(|ready| ready == true)
}

/// Why a container ended.
fn termination(terminated: &Value) -> String {
    let number = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or_default();
    match text(terminated, "reason") {
        "" if number("signal") != 0 => format!("Signal:{}", number("signal")),
        "" => format!("ExitCode:{}", number("exitCode")),
        reason => reason.to_owned(),
    }
}

fn condition<'a>(row: Row<'a>, condition_type: &str) -> Option<&'a Value> {
    row.list("/status/conditions").iter().find(|condition| text(condition, "type") == condition_type)
}

fn is_true(condition: Option<&Value>) -> bool {
    condition.is_some_and(|condition| text(condition, "status") == "True")
}

fn readiness_gates(row: Row<'_>) -> String {
    let gates = row.list("/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let passed = gates.iter().filter(|gate| is_true(condition(row, text(gate, "conditionType")))).count();
    format!("{passed}/{}", gates.len())
}

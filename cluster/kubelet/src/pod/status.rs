//! A pod's status, computed from its containers. No input or output here.

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::{ContainerLife, RestartPolicy, Role, State};

/// What of the status is not in the containers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts<'a> {
    /// The pod's address, once it has one.
    pub(crate) pod_ip: Option<&'a str>,
    /// The node's address.
    pub(crate) host_ip: &'a str,
    /// When the node accepted the pod.
    pub(crate) start_time: Option<Time>,
    /// Network and volumes are there.
    pub(crate) ready_to_start: bool,
    /// The node gave the pod up: reason and message.
    pub(crate) failed: Option<(&'a str, &'a str)>,
}

/// The status that `pod` should have now.
pub(crate) fn status(pod: &Pod, lives: &[ContainerLife], facts: &Facts<'_>, now: &Time) -> PodStatus {
    let policy = RestartPolicy::of(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()));
    let phase = if facts.failed.is_some() { "Failed" } else { phase(lives, policy) };
    let mut status = pod.status.clone().unwrap_or_default();
    status.conditions = Some(conditions(pod, lives, phase, facts.ready_to_start, now));
    status.phase = Some(phase.to_owned());
    status.reason = facts.failed.map(|(reason, _)| reason.to_owned());
    status.message = facts.failed.map(|(_, message)| message.to_owned());
    status.host_ip = Some(facts.host_ip.to_owned());
    status.host_ips = Some(vec![HostIP { ip: facts.host_ip.to_owned() }]);
    if let Some(ip) = facts.pod_ip {
        status.pod_ip = Some(ip.to_owned());
        status.pod_ips = Some(vec![PodIP { ip: ip.to_owned() }]);
    }
    status.start_time = status.start_time.or_else(|| facts.start_time.clone());
    status.observed_generation = pod.metadata.generation.filter(|_| status.observed_generation.is_some());
    if status.qos_class.is_none() {
        status.qos_class = Some(qos_class(pod).to_owned());
    }
    let waiting_for = if lives.iter().any(is_init) { "PodInitializing" } else { "ContainerCreating" };
    let of = |wanted: fn(&ContainerLife) -> bool| -> Option<Vec<ContainerStatus>> {
        let statuses: Vec<_> = lives.iter().filter(|life| wanted(life)).map(|life| life.status(waiting_for)).collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    status.init_container_statuses = of(is_init);
    status.container_statuses = of(|life| life.role == Role::Main);
    status.container_statuses.iter_mut().for_each(|statuses| statuses.sort_by(|a, b| a.name.cmp(&b.name)));
    status.ephemeral_container_statuses = of(|life| life.role == Role::Ephemeral);
    status
}

fn is_init(life: &ContainerLife) -> bool {
    matches!(life.role, Role::Init | Role::Sidecar)
}

/// Whether all init containers are past: ended well, or, for sidecars, started.
pub(crate) fn is_initialized(lives: &[ContainerLife]) -> bool {
    incomplete(lives).is_empty()
}

fn incomplete(lives: &[ContainerLife]) -> Vec<&str> {
    let begun = lives.iter().any(|life| life.role == Role::Main && life.ran_before);
    let incomplete = lives.iter().filter(|life| match life.role {
        Role::Init => !life.has_succeeded(),
        // Once the main containers have run, a sidecar that is being restarted does not undo the initialization.
        Role::Sidecar => !life.started && !begun,
        Role::Main | Role::Ephemeral => false,
    });
    incomplete.map(|life| life.spec.name.as_str()).collect()
}

/// The pod's phase.
pub(crate) fn phase(lives: &[ContainerLife], policy: RestartPolicy) -> &'static str {
    if lives.iter().any(|life| life.role == Role::Init && !life.has_succeeded() && life.is_over(policy)) {
        return "Failed";
    }
    let main = || lives.iter().filter(|life| life.role == Role::Main);
    if !is_initialized(lives) && main().all(|life| !life.ran_before) {
        return "Pending";
    }
    if main().any(|life| matches!(life.state, State::Waiting { .. }) && life.last.is_none()) {
        return "Pending";
    }
    let sidecars_run = lives.iter().any(|life| life.role == Role::Sidecar && life.run.is_some());
    if sidecars_run || !main().all(|life| life.is_over(policy)) {
        return "Running";
    }
    if main().all(ContainerLife::has_succeeded) { "Succeeded" } else { "Failed" }
}

fn conditions(pod: &Pod, lives: &[ContainerLife], phase: &str, ready_to_start: bool, now: &Time) -> Vec<PodCondition> {
    let known: Vec<PodCondition> = pod.status.iter().flat_map(|status| status.conditions.iter().flatten().cloned()).collect();
    let incomplete = incomplete(lives);
    let initialized = match phase {
        "Succeeded" => Verdict::because("PodCompleted", None).holding(true),
        _ if incomplete.is_empty() => Verdict::holds(),
        _ => Verdict::because(
            "ContainersNotInitialized",
            Some(format!("containers with incomplete status: [{}]", incomplete.join(" "))),
        ),
    };
    let containers_ready = containers_ready(lives, phase);
    let ready = if containers_ready.holds { gates(pod, &known) } else { containers_ready.clone() };
    let running = !matches!(phase, "Succeeded" | "Failed") && ready_to_start;
    let own = [
        ("PodReadyToStartContainers", if running { Verdict::holds() } else { Verdict::default() }),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::holds()),
    ];
    let mut conditions: Vec<PodCondition> = own
        .iter()
        .map(|(condition_type, verdict)| {
            verdict.condition(condition_type, known.iter().find(|k| k.type_ == *condition_type), now)
        })
        .collect();
    conditions.extend(known.into_iter().filter(|known| !own.iter().any(|(own, _)| *own == known.type_)));
    conditions
}

fn containers_ready(lives: &[ContainerLife], phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::because("PodCompleted", None),
        "Failed" => return Verdict::because("PodFailed", None),
        _ => {}
    }
    let counted = lives.iter().filter(|life| matches!(life.role, Role::Main | Role::Sidecar));
    let unready: Vec<&str> = counted.filter(|life| !life.ready).map(|life| life.spec.name.as_str()).collect();
    match unready.is_empty() {
        true => Verdict::holds(),
        false => Verdict::because("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" ")))),
    }
}

/// Readiness gates: conditions that somebody else sets.
fn gates(pod: &Pod, known: &[PodCondition]) -> Verdict {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<String> = gates
        .filter_map(|gate| match known.iter().find(|condition| condition.type_ == gate.condition_type) {
            None => Some(format!("corresponding condition of pod readiness gate {:?} does not exist.", gate.condition_type)),
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => None,
        })
        .collect();
    if closed.is_empty() { Verdict::holds() } else { Verdict::because("ReadinessGatesNotReady", Some(closed.join(", "))) }
}

/// Whether a condition holds, and why (not).
#[derive(Debug, Clone, Default, PartialEq)]
struct Verdict {
    holds: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Verdict {
    fn holds() -> Self {
        Self { holds: true, ..Self::default() }
    }

    fn because(reason: &str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason.to_owned()), message }
    }

    fn holding(mut self, holds: bool) -> Self {
        self.holds = holds;
        self
    }

    fn condition(&self, condition_type: &str, known: Option<&PodCondition>, now: &Time) -> PodCondition {
        let status = if self.holds { "True" } else { "False" };
        let since = known.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        PodCondition {
            type_: condition_type.to_owned(),
            status: status.to_owned(),
            reason: self.reason.clone(),
            message: self.message.clone(),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            ..Default::default()
        }
    }
}

/// `Guaranteed` if every container's limits of CPU and memory are set and equal its requests, `BestEffort` if nothing is set.
fn qos_class(pod: &Pod) -> &'static str {
    let spec = pod.spec.as_ref();
    let containers = || spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let resources = || containers().map(|container| container.resources.clone().unwrap_or_default());
    let none = |resources: k8s_openapi::api::core::v1::ResourceRequirements| {
        resources.limits.is_none_or(|limits| limits.is_empty()) && resources.requests.is_none_or(|requests| requests.is_empty())
    };
    if resources().all(none) {
        return "BestEffort";
    }
    let guaranteed = |resources: k8s_openapi::api::core::v1::ResourceRequirements| {
        let limits = resources.limits.unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        ["cpu", "memory"]
            .iter()
            .all(|name| limits.get(*name).is_some_and(|limit| requests.get(*name).is_none_or(|request| request == limit)))
    };
    if resources().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated};
    use serde_json::json;
    use tokio::time::Instant;

    fn life(name: &str, role: Role) -> ContainerLife {
        ContainerLife::new(Container { name: name.into(), ..Default::default() }, role)
    }

    fn running(name: &str, role: Role, ready: bool) -> ContainerLife {
        let mut life = life(name, role);
        life.set_running("id".into(), meshlab_controller_runtime::epoch());
        (life.started, life.ready) = (true, ready);
        life
    }

    fn ended(name: &str, role: Role, exit_code: i32) -> ContainerLife {
        let mut life = running(name, role, false);
        life.set_terminated(ContainerStateTerminated { exit_code, ..Default::default() }, Instant::now());
        life
    }

    fn shown(lives: &[ContainerLife], policy: &str) -> String {
        let spec = json!({"containers": [], "restartPolicy": policy});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        let facts = Facts { pod_ip: Some("10.244.0.2"), host_ip: "10.244.0.1", ready_to_start: true, ..Default::default() };
        let status = status(&pod, lives, &facts, &meshlab_controller_runtime::epoch());
        let condition = |c: &PodCondition| {
            format!("{}={}{}", c.type_, c.status, c.reason.as_ref().map_or(String::new(), |r| format!(" {r}")))
        };
        let conditions: Vec<String> = status.conditions.iter().flatten().map(condition).collect();
        format!("{}: {}", status.phase.unwrap(), conditions.join(", "))
    }

    #[test]
    fn phases_and_conditions_from_start_to_end() {
        let text = [
            shown(&[life("init", Role::Init), life("web", Role::Main)], "Always"),
            shown(&[ended("init", Role::Init, 0), running("web", Role::Main, false)], "Always"),
            shown(&[ended("init", Role::Init, 0), running("web", Role::Main, true)], "Always"),
            shown(&[running("proxy", Role::Sidecar, true), life("web", Role::Main)], "Always"),
            shown(&[ended("web", Role::Main, 0)], "Never"),
            shown(&[ended("web", Role::Main, 1)], "Never"),
            shown(&[ended("web", Role::Main, 1)], "Always"),
            shown(&[ended("init", Role::Init, 1), life("web", Role::Main)], "Never"),
        ];
        insta::assert_snapshot!(text.join("\n"), @r"
        Pending: PodReadyToStartContainers=True, Initialized=False ContainersNotInitialized, Ready=False ContainersNotReady, ContainersReady=False ContainersNotReady, PodScheduled=True
        Running: PodReadyToStartContainers=True, Initialized=True, Ready=False ContainersNotReady, ContainersReady=False ContainersNotReady, PodScheduled=True
        Running: PodReadyToStartContainers=True, Initialized=True, Ready=True, ContainersReady=True, PodScheduled=True
        Pending: PodReadyToStartContainers=True, Initialized=True, Ready=False ContainersNotReady, ContainersReady=False ContainersNotReady, PodScheduled=True
        Succeeded: PodReadyToStartContainers=False, Initialized=True PodCompleted, Ready=False PodCompleted, ContainersReady=False PodCompleted, PodScheduled=True
        Failed: PodReadyToStartContainers=False, Initialized=True, Ready=False PodFailed, ContainersReady=False PodFailed, PodScheduled=True
        Running: PodReadyToStartContainers=True, Initialized=True, Ready=False ContainersNotReady, ContainersReady=False ContainersNotReady, PodScheduled=True
        Failed: PodReadyToStartContainers=False, Initialized=False ContainersNotInitialized, Ready=False PodFailed, ContainersReady=False PodFailed, PodScheduled=True
        ");
    }

    #[test]
    fn quality_of_service() {
        let class = |resources: serde_json::Value| {
            let container = json!({"name": "c", "resources": resources});
            qos_class(&serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap())
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    }
}

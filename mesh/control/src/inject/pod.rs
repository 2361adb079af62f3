//! A pod as the webhook receives it: JSON, with the few questions the injector has about it.

use serde_json::Value;

/// Read access to a pod's JSON.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a>(pub(crate) &'a Value);

impl<'a> Pod<'a> {
    pub(crate) fn annotation(self, name: &str) -> Option<&'a str> {
        self.0["metadata"]["annotations"][name].as_str()
    }

    pub(crate) fn label(self, name: &str) -> Option<&'a str> {
        self.0["metadata"]["labels"][name].as_str()
    }

    /// The app's containers, whatever the pod says about the proxy's.
    pub(crate) fn app_containers(self) -> impl Iterator<Item = &'a Value> {
        self.list("containers").filter(|container| container["name"] != super::PROXY)
    }

    /// Init containers and containers.
    pub(crate) fn all_containers(self) -> impl Iterator<Item = &'a Value> {
        self.list("initContainers").chain(self.list("containers"))
    }

    fn list(self, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.0["spec"][name].as_array().into_iter().flatten()
    }

    /// What owns the pod, as far as its metadata tells.
    pub(crate) fn owner(self) -> Owner {
        let metadata = &self.0["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let itself = Owner { api_version: "v1".into(), kind: "Pod".into(), name: name.into() };
        let references = metadata["ownerReferences"].as_array();
        let controller = references.and_then(|list| list.iter().find(|reference| reference["controller"] == true));
        let (Some(controller), Some(_)) = (controller, metadata["generateName"].as_str()) else { return itself };
        let text = |field: &str| controller[field].as_str().unwrap_or_default().to_owned();
        let direct = Owner { api_version: text("apiVersion"), kind: text("kind"), name: text("name") };
        match direct.kind.as_str() {
            "ReplicaSet" => self.deployment_of(&direct).unwrap_or(direct),
            "Job" => cron_job_of(&direct).unwrap_or(direct),
            _ => direct,
        }
    }

    fn deployment_of(self, replica_set: &Owner) -> Option<Owner> {
        let hash = self.label("pod-template-hash").filter(|hash| !hash.is_empty())?;
        let name = replica_set.name.strip_suffix(hash)?.strip_suffix('-')?;
        Some(Owner { kind: "Deployment".into(), name: name.into(), ..replica_set.clone() })
    }
}

/// A CronJob names its Jobs by the minute they are due: eight to ten digits after a dash.
fn cron_job_of(job: &Owner) -> Option<Owner> {
    let (name, minute) = job.name.rsplit_once('-')?;
    let due = (8..=10).contains(&minute.len()) && minute.bytes().all(|byte| byte.is_ascii_digit());
    due.then(|| Owner { api_version: "batch/v1".into(), kind: "CronJob".into(), name: name.into() })
}

/// The workload a pod belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl Owner {
    /// `kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v1`
    pub(crate) fn reference(&self, namespace: &str) -> String {
        let resource = self.kind.to_lowercase();
        format!("kubernetes://apis/{}/namespaces/{namespace}/{resource}s/{}", self.api_version, self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owner(kind: &str, name: &str) -> String {
        let pod = json!({"metadata": {
            "generateName": format!("{name}-"), "labels": {"pod-template-hash": "5d4f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true}],
        }});
        let owner = Pod(&pod).owner();
        format!("{} {} {}", owner.api_version, owner.kind, owner.name)
    }

    #[test]
    fn the_owner_is_the_workload_a_user_knows() {
        assert_eq!(owner("ReplicaSet", "reviews-v1-5d4f"), "apps/v1 Deployment reviews-v1");
        assert_eq!(owner("ReplicaSet", "reviews-v1"), "apps/v1 ReplicaSet reviews-v1");
        assert_eq!(owner("Job", "backup-28012345"), "batch/v1 CronJob backup");
        assert_eq!(owner("Job", "backup-1"), "apps/v1 Job backup-1");
        assert_eq!(owner("StatefulSet", "db"), "apps/v1 StatefulSet db");
        assert_eq!(Pod(&json!({"metadata": {"name": "web"}})).owner().name, "web");
    }
}

//! Columns of the built-in kinds: upstream's names, order and priorities.

use super::{
    Cells, Column, Columns,
    cells::{Row, cluster, network, other, pod, workload},
};
use crate::resource::GroupVersionKind;
use serde_json::Value;

pub(super) const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                                  guaranteed to be set in happens-before order across separate operations. Clients may not set this \
                                  value. It is represented in RFC3339 form and is in UTC.";
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a \
                    client to request the generation of an appropriate name automatically.";

/// Kind, columns, cells. A column is its name; `#` before it: an integer, `+`: only in wide output.
type Line = (&'static str, &'static str, &'static str, fn(Row<'_>) -> Vec<Value>);

const TABLE: &[Line] = &[
    ("", "Pod", "Name|Ready|Status|Restarts|Age|+IP|+Node|+Nominated Node|+Readiness Gates", pod::cells),
    ("", "PodTemplate", "Name|Containers|Images|Pod Labels", workload::pod_template),
    ("", "ReplicationController", REPLICAS, workload::replica_set),
    ("apps", "ReplicaSet", REPLICAS, workload::replica_set),
    ("apps", "Deployment", "Name|Ready|#Up-to-date|#Available|Age|+Containers|+Images|+Selector", workload::deployment),
    ("apps", "StatefulSet", "Name|Ready|Age|+Containers|+Images", workload::stateful_set),
    (
        "apps",
        "DaemonSet",
        "Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age|+Containers|+Images|+Selector",
        workload::daemon_set,
    ),
    ("apps", "ControllerRevision", "Name|Controller|#Revision|Age", workload::controller_revision),
    ("batch", "Job", "Name|Status|Completions|Duration|Age|+Containers|+Images|+Selector", workload::job),
    (
        "batch",
        "CronJob",
        "Name|Schedule|Timezone|Suspend|#Active|Last Schedule|Age|+Containers|+Images|+Selector",
        workload::cron_job,
    ),
    ("", "Service", "Name|Type|Cluster-IP|External-IP|Port(s)|Age|+Selector", network::service),
    ("", "Endpoints", "Name|Endpoints|Age", network::endpoints),
    ("discovery.k8s.io", "EndpointSlice", "Name|AddressType|Ports|Endpoints|Age", network::endpoint_slice),
    ("networking.k8s.io", "Ingress", "Name|Class|Hosts|Address|Ports|Age", network::ingress),
    ("networking.k8s.io", "IngressClass", "Name|Controller|Parameters|Age", network::ingress_class),
    ("networking.k8s.io", "NetworkPolicy", "Name|Pod-Selector|Age", network::network_policy),
    (
        "",
        "Node",
        "Name|Status|Roles|Age|Version|+Internal-IP|+External-IP|+OS-Image|+Kernel-Version|+Container-Runtime",
        cluster::node,
    ),
    ("", "Namespace", "Name|Status|Age", cluster::namespace),
    ("", "Event", EVENT, cluster::event),
    ("events.k8s.io", "Event", EVENT, cluster::event),
    ("", "Secret", "Name|Type|#Data|Age", other::secret),
    ("", "ConfigMap", "Name|#Data|Age", other::config_map),
    ("", "ServiceAccount", "Name|#Secrets|Age", other::service_account),
    (
        "",
        "PersistentVolume",
        "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|+VolumeMode",
        other::persistent_volume,
    ),
    (
        "",
        "PersistentVolumeClaim",
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|+VolumeMode",
        other::persistent_volume_claim,
    ),
    ("", "ResourceQuota", "Name|Request|Limit|Age", other::resource_quota),
    ("rbac.authorization.k8s.io", "RoleBinding", BINDING, cluster::role_binding),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", BINDING, cluster::role_binding),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "Name|#Webhooks|Age", cluster::webhooks),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "Name|#Webhooks|Age", cluster::webhooks),
    ("coordination.k8s.io", "Lease", "Name|Holder|Age", cluster::lease),
    ("autoscaling", "HorizontalPodAutoscaler", "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age", other::autoscaler),
    ("autoscaling", "Scale", "Name|#Desired|#Available|Age", other::scale),
    ("policy", "PodDisruptionBudget", "Name|Min Available|Max Unavailable|#Allowed Disruptions|Age", other::disruption_budget),
    (
        "storage.k8s.io",
        "StorageClass",
        "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
        other::storage_class,
    ),
    ("scheduling.k8s.io", "PriorityClass", "Name|#Value|Global-Default|Age|PreemptionPolicy", other::priority_class),
];

const REPLICAS: &str = "Name|#Desired|#Current|#Ready|Age|+Containers|+Images|+Selector";
const EVENT: &str = "Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name";
const BINDING: &str = "Name|Role|Age|+Users|+Groups|+ServiceAccounts";

pub(super) fn columns(kind: &GroupVersionKind) -> Columns {
    let line = TABLE.iter().find(|(group, name, ..)| *group == kind.group && *name == kind.kind);
    match line {
        Some((.., columns, cells)) => {
            Columns { columns: columns.split('|').map(column).collect(), cells: Cells::Builtin(*cells) }
        }
        None => {
            let created = Column { r#type: "date".to_owned(), description: CREATED.to_owned(), ..column("Created At") };
            Columns { columns: vec![name_column(), created], cells: Cells::Builtin(other::name_and_creation) }
        }
    }
}

pub(super) fn name_column() -> Column {
    column("Name")
}

fn column(text: &str) -> Column {
    let (text, priority) = text.strip_prefix('+').map_or((text, 0), |rest| (rest, 1));
    let (name, column_type) = text.strip_prefix('#').map_or((text, "string"), |rest| (rest, "integer"));
    let (format, description) = match name {
        "Name" => ("name", NAME),
        "Age" => ("", CREATED),
        _ => ("", ""),
    };
    Column {
        name: name.to_owned(),
        r#type: column_type.to_owned(),
        format: format.to_owned(),
        description: description.to_owned(),
        priority,
    }
}

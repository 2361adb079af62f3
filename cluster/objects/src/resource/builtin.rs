//! The table of built-in kinds. A further kind is a line in [`TABLE`] and one in [`crate::schema`]'s table of types.

use std::sync::OnceLock;

use super::{GroupVersionKind, ResourceDefinition, Subresource, Verb};

const ALL: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
const CREATE_ONLY: &[Verb] = &[Verb::Create];
const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
const STREAM: &[Verb] = &[Verb::Create, Verb::Get];
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];

/// One line of the table; lists are separated by spaces.
struct Line {
    group: &'static str,
    versions: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    verbs: &'static [Verb],
    short_names: &'static str,
    categories: &'static str,
    subresources: &'static str,
}

/// A kind whose objects live in namespaces.
const fn namespaced(group: &'static str, versions: &'static str, kind: &'static str, plural: &'static str) -> Line {
    Line { group, versions, kind, plural, namespaced: true, verbs: ALL, short_names: "", categories: "", subresources: "" }
}

/// A kind whose objects belong to the whole cluster.
const fn cluster(group: &'static str, versions: &'static str, kind: &'static str, plural: &'static str) -> Line {
    Line { namespaced: false, ..namespaced(group, versions, kind, plural) }
}

impl Line {
    const fn short(self, short_names: &'static str) -> Self {
        Self { short_names, ..self }
    }

    const fn in_category(self, categories: &'static str) -> Self {
        Self { categories, ..self }
    }

    const fn with(self, subresources: &'static str) -> Self {
        Self { subresources, ..self }
    }

    const fn verbs(self, verbs: &'static [Verb]) -> Self {
        Self { verbs, ..self }
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Group, versions (preferred one first, which is also the one stored), kind, plural; in the order of discovery.
const TABLE: &[Line] = &[
    namespaced("", "v1", "Binding", "bindings").verbs(CREATE_ONLY),
    namespaced("", "v1", "ConfigMap", "configmaps").short("cm"),
    namespaced("", "v1", "Endpoints", "endpoints").short("ep"),
    namespaced("", "v1", "Event", "events").short("ev"),
    namespaced("", "v1", "LimitRange", "limitranges").short("limits"),
    cluster("", "v1", "Namespace", "namespaces").short("ns").with("finalize status"),
    cluster("", "v1", "Node", "nodes").short("no").with("proxy status"),
    namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims").short("pvc").with("status"),
    cluster("", "v1", "PersistentVolume", "persistentvolumes").short("pv").with("status"),
    namespaced("", "v1", "Pod", "pods").short("po").in_category("all").with(POD_SUBRESOURCES),
    namespaced("", "v1", "PodTemplate", "podtemplates"),
    namespaced("", "v1", "ReplicationController", "replicationcontrollers").short("rc").in_category("all").with("scale status"),
    namespaced("", "v1", "ResourceQuota", "resourcequotas").short("quota").with("status"),
    namespaced("", "v1", "Secret", "secrets"),
    namespaced("", "v1", "ServiceAccount", "serviceaccounts").short("sa").with("token"),
    namespaced("", "v1", "Service", "services").short("svc").in_category("all").with("proxy status"),
    namespaced("apps", "v1", "ControllerRevision", "controllerrevisions"),
    namespaced("apps", "v1", "DaemonSet", "daemonsets").short("ds").in_category("all").with("status"),
    namespaced("apps", "v1", "Deployment", "deployments").short("deploy").in_category("all").with("scale status"),
    namespaced("apps", "v1", "ReplicaSet", "replicasets").short("rs").in_category("all").with("scale status"),
    namespaced("apps", "v1", "StatefulSet", "statefulsets").short("sts").in_category("all").with("scale status"),
    namespaced("events.k8s.io", "v1", "Event", "events").short("ev"),
    cluster(AUTHENTICATION, "v1", "SelfSubjectReview", "selfsubjectreviews").verbs(CREATE_ONLY),
    cluster(AUTHENTICATION, "v1", "TokenReview", "tokenreviews").verbs(CREATE_ONLY),
    namespaced(AUTHORIZATION, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews").verbs(CREATE_ONLY),
    cluster(AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews").verbs(CREATE_ONLY),
    cluster(AUTHORIZATION, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews").verbs(CREATE_ONLY),
    cluster(AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews").verbs(CREATE_ONLY),
    namespaced("autoscaling", "v2 v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short("hpa")
        .in_category("all")
        .with("status"),
    namespaced("batch", "v1", "CronJob", "cronjobs").short("cj").in_category("all").with("status"),
    namespaced("batch", "v1", "Job", "jobs").in_category("all").with("status"),
    cluster(NETWORKING, "v1", "IngressClass", "ingressclasses"),
    namespaced(NETWORKING, "v1", "Ingress", "ingresses").short("ing").with("status"),
    namespaced(NETWORKING, "v1", "NetworkPolicy", "networkpolicies").short("netpol"),
    namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets").short("pdb").with("status"),
    cluster(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings"),
    cluster(RBAC, "v1", "ClusterRole", "clusterroles"),
    namespaced(RBAC, "v1", "RoleBinding", "rolebindings"),
    namespaced(RBAC, "v1", "Role", "roles"),
    cluster(STORAGE, "v1", "StorageClass", "storageclasses").short("sc"),
    cluster(ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations").in_category("api-extensions"),
    cluster(ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations").in_category("api-extensions"),
    cluster("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short("crd crds")
        .in_category("api-extensions")
        .with("status"),
    cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses").short("pc"),
    namespaced("coordination.k8s.io", "v1", "Lease", "leases"),
    namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
];

const POD_SUBRESOURCES: &str = "attach binding ephemeralcontainers eviction exec log portforward proxy resize status";

/// Every built-in kind, groups in the order discovery lists them. The first call builds the table.
pub fn builtin() -> &'static [ResourceDefinition] {
    static BUILTIN: OnceLock<Vec<ResourceDefinition>> = OnceLock::new();
    BUILTIN.get_or_init(|| TABLE.iter().map(definition).collect())
}

/// The built-in kind of this group and plural name.
pub fn find(group: &str, plural: &str) -> Option<&'static ResourceDefinition> {
    builtin().iter().find(|definition| definition.group == group && definition.plural == plural)
}

fn definition(line: &Line) -> ResourceDefinition {
    let versions = words(line.versions);
    let preferred = versions.first().cloned().unwrap_or_default();
    let own_kind = GroupVersionKind::new(line.group, preferred.clone(), line.kind);
    ResourceDefinition {
        group: line.group.to_owned(),
        storage_version: preferred,
        versions,
        kind: line.kind.to_owned(),
        list_kind: if line.verbs.contains(&Verb::List) { format!("{}List", line.kind) } else { String::new() },
        plural: line.plural.to_owned(),
        singular: line.kind.to_lowercase(),
        short_names: words(line.short_names),
        namespaced: line.namespaced,
        categories: words(line.categories),
        verbs: line.verbs.to_vec(),
        subresources: line.subresources.split_whitespace().map(|name| subresource(name, &own_kind)).collect(),
    }
}

fn words(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// A subresource of this name on this kind.
fn subresource(name: &str, owner: &GroupVersionKind) -> Subresource {
    let core = |kind: &str| GroupVersionKind::new("", "v1", kind);
    let (kind, verbs) = match name {
        "scale" => (GroupVersionKind::new("autoscaling", "v1", "Scale"), READ_WRITE),
        "attach" => (core("PodAttachOptions"), STREAM),
        "binding" => (core("Binding"), CREATE_ONLY),
        "eviction" => (GroupVersionKind::new("policy", "v1", "Eviction"), CREATE_ONLY),
        "exec" => (core("PodExecOptions"), STREAM),
        "log" => (owner.clone(), &[Verb::Get] as &[Verb]),
        "portforward" => (core("PodPortForwardOptions"), STREAM),
        "proxy" => (GroupVersionKind::new("", "v1", format!("{}ProxyOptions", owner.kind)), PROXY),
        "token" => (GroupVersionKind::new(AUTHENTICATION, "v1", "TokenRequest"), CREATE_ONLY),
        "finalize" => (owner.clone(), &[Verb::Update] as &[Verb]),
        _ => (owner.clone(), READ_WRITE),
    };
    Subresource { name: name.to_owned(), kind, verbs: verbs.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_within_a_group() {
        let mut seen = std::collections::BTreeSet::new();
        for definition in builtin() {
            assert!(seen.insert((&definition.group, &definition.plural)), "{} stands twice", definition.qualified_name());
        }
    }

    #[test]
    fn every_kind_has_a_schema() {
        for definition in builtin() {
            for version in &definition.versions {
                assert!(
                    crate::schema::Schema::builtin(&definition.group, version, &definition.kind).is_some(),
                    "{} {version} has no schema",
                    definition.qualified_name()
                );
            }
        }
    }

    #[test]
    fn deployments() {
        let deployment = find("apps", "deployments").unwrap();
        assert_eq!(deployment.short_names, ["deploy"]);
        assert_eq!(deployment.singular, "deployment");
        assert_eq!(deployment.list_kind, "DeploymentList");
        assert_eq!(deployment.subresource("scale").unwrap().kind.api_version(), "autoscaling/v1");
    }
}

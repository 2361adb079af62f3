//! Schemas of the built-in kinds, made from the types of k8s-openapi when they are first asked for.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use k8s_openapi::{
    api, apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions, apimachinery::pkg::apis::meta::v1 as meta,
    schemars::SchemaGenerator,
};
use serde_json::Value;

use super::{
    Schema,
    facts::{field_facts, type_facts},
    node::{ListType, Node, NodeId, PatchStrategy, Type},
};

/// A built-in kind: what it is called and where its type comes from.
struct Line {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    generate: fn(&mut SchemaGenerator) -> k8s_openapi::schemars::Schema,
    schema: OnceLock<Arc<Schema>>,
}

macro_rules! lines {
    ($($group:literal $version:literal $module:path: $($kind:ident)+;)+) => {
        vec![$($({
            use $module as module;
            Line {
                group: $group,
                version: $version,
                kind: stringify!($kind),
                generate: |generator| generator.subschema_for::<module::$kind>(),
                schema: OnceLock::new(),
            }
        },)+)+]
    };
}

fn lines() -> &'static [Line] {
    static LINES: OnceLock<Vec<Line>> = OnceLock::new();
    LINES.get_or_init(|| {
        lines! {
            "" "v1" api::core::v1: Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
                PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
            "" "v1" meta: DeleteOptions;
            "meta.k8s.io" "v1" meta: DeleteOptions;
            "apps" "v1" api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
            "batch" "v1" api::batch::v1: CronJob Job;
            "events.k8s.io" "v1" api::events::v1: Event;
            "discovery.k8s.io" "v1" api::discovery::v1: EndpointSlice;
            "rbac.authorization.k8s.io" "v1" api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
            "admissionregistration.k8s.io" "v1" api::admissionregistration::v1: MutatingWebhookConfiguration
                ValidatingWebhookConfiguration;
            "apiextensions.k8s.io" "v1" apiextensions: CustomResourceDefinition;
            "coordination.k8s.io" "v1" api::coordination::v1: Lease;
            "autoscaling" "v1" api::autoscaling::v1: HorizontalPodAutoscaler Scale;
            "autoscaling" "v2" api::autoscaling::v2: HorizontalPodAutoscaler;
            "policy" "v1" api::policy::v1: Eviction PodDisruptionBudget;
            "networking.k8s.io" "v1" api::networking::v1: Ingress IngressClass NetworkPolicy;
            "scheduling.k8s.io" "v1" api::scheduling::v1: PriorityClass;
            "storage.k8s.io" "v1" api::storage::v1: StorageClass;
            "authentication.k8s.io" "v1" api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
            "authorization.k8s.io" "v1" api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview
                SelfSubjectRulesReview SubjectAccessReview;
        }
    })
}

fn line(group: &str, version: &str, kind: &str) -> Option<&'static Line> {
    lines().iter().find(|line| line.group == group && line.version == version && line.kind == kind)
}

/// The schema of a built-in kind.
pub(super) fn schema(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    line(group, version, kind).map(|line| Arc::clone(line.schema.get_or_init(|| Arc::new(build(line)))))
}

/// The JSON schema of a built-in kind: a reference to its type, and the definitions of all types it uses by their full names.
pub(crate) fn json_schema(group: &str, version: &str, kind: &str) -> Option<(String, serde_json::Map<String, Value>)> {
    line(group, version, kind).map(generate)
}

fn generate(line: &Line) -> (String, serde_json::Map<String, Value>) {
    let mut generator = SchemaGenerator::default();
    let root = (line.generate)(&mut generator);
    (reference(root.as_value()).unwrap_or_default().to_owned(), generator.take_definitions(false))
}

/// The type a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// Fields the schemas call required, while a real API server accepts objects without them: their Go types have a zero value. The same
/// holds of `metadata` and of everything in a status.
const LENIENT: &[(&str, &str)] = &[
    ("EndpointSlice", "endpoints"),
    ("Event", "involvedObject"),
    ("PolicyRule", "verbs"),
    ("StatefulSetSpec", "serviceName"),
    ("TokenRequestSpec", "audiences"),
    ("ControllerRevision", "revision"),
];

/// How the names of types end that stand in a status.
const STATUS_TYPES: &[&str] =
    &["Status", "Condition", "NodeSystemInfo", "AttachedVolume", "NodeAddress", "DaemonEndpoint", "ContainerStateTerminated"];

/// The part of a type's name that says: a schema or something else.
const SCHEMA_OR: &str = "JSONSchemaPropsOr";

/// The nodes of `ObjectMeta`, for the schemas of custom resources; the first is its root.
pub(super) fn object_meta() -> Vec<Node> {
    static NODES: OnceLock<Vec<Node>> = OnceLock::new();
    let nodes = NODES.get_or_init(|| {
        let mut generator = SchemaGenerator::default();
        let root = generator.subschema_for::<meta::ObjectMeta>();
        let definitions = generator.take_definitions(false);
        let mut builder = Builder { definitions: &definitions, by_type: HashMap::new(), nodes: Vec::new() };
        builder.named(reference(root.as_value()).unwrap_or_default());
        builder.nodes
    });
    nodes.clone()
}

fn build(line: &Line) -> Schema {
    let (root, definitions) = generate(line);
    let mut builder = Builder { definitions: &definitions, by_type: HashMap::new(), nodes: Vec::new() };
    let root = builder.named(&root);
    Schema { nodes: builder.nodes, root, builtin: true, rules: super::cel::Rules::none() }
}

struct Builder<'a> {
    definitions: &'a serde_json::Map<String, Value>,
    by_type: HashMap<&'a str, NodeId>,
    nodes: Vec<Node>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The node of a named type, made once.
    fn named(&mut self, name: &str) -> NodeId {
        // `JSONSchemaPropsOrArray`, `…OrBool` and `…OrStringArray` share the node of the schema they can be; see `special`.
        let name = if name.contains(SCHEMA_OR) { name.split_inclusive("JSONSchemaProps").next().unwrap_or(name) } else { name };
        let Some((name, definition)) = self.definitions.get_key_value(name) else {
            return self.add(Node::default());
        };
        if let Some(id) = self.by_type.get(name.as_str()) {
            return *id;
        }
        // Recursive types find the place before it is filled.
        let id = self.add(Node::default());
        self.by_type.insert(name, id);
        let mut node = self.node(name, definition);
        if name.ends_with(".JSONSchemaProps") {
            // Where a schema stands there may also be a boolean or an array (of schemas or of names).
            node.r#type = Type::Any;
            node.items = Some(id);
        }
        self.nodes[id] = node;
        id
    }

    fn node(&mut self, type_name: &str, schema: &'a Value) -> Node {
        if let Some(node) = Self::special(type_name) {
            return node;
        }
        let r#type = match schema.get("type").and_then(Value::as_str) {
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            _ if schema.get("x-kubernetes-int-or-string").is_some() => Type::IntOrString,
            _ => Type::Any,
        };
        let mut node = Node { r#type, ..Node::default() };
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            node.type_name = Some(type_name.into());
            node.atomic = type_facts(type_name).is_some_and(|facts| facts.atomic);
            for (name, property) in properties {
                let property = self.property(type_name, name, property);
                node.properties.insert(name.as_str().into(), property);
            }
        } else if r#type == Type::Object && schema.get("additionalProperties").is_none() {
            // RawExtension, FieldsV1 and structs without fields.
            node.type_name = Some(type_name.into());
            node.preserve_unknown = ["RawExtension", "FieldsV1"].iter().any(|open| type_name.ends_with(open));
        }
        node.additional = schema.get("additionalProperties").map(|values| self.inline(values));
        node.items = schema.get("items").map(|items| self.inline(items));
        if let Some(required) = schema.get("required").and_then(Value::as_array) {
            let short = type_name.rsplit('.').next().unwrap_or_default();
            let enforced = |name: &&str| {
                !STATUS_TYPES.iter().any(|end| short.ends_with(end)) && *name != "metadata" && !LENIENT.contains(&(short, *name))
            };
            node.required = required.iter().filter_map(Value::as_str).filter(enforced).map(Into::into).collect();
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str) {
            let constraints = super::constraints::Constraints { format: Some(format.into()), ..Default::default() };
            node.constraints = Some(Box::new(constraints));
        }
        node
    }

    /// Types that JSON schema cannot say.
    fn special(type_name: &str) -> Option<Node> {
        match type_name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => Some(Node { r#type: Type::Quantity, ..Node::default() }),
            "JSON" => Some(Node { preserve_unknown: true, ..Node::default() }),
            _ => None,
        }
    }

    /// A schema that stands where it is used.
    fn inline(&mut self, schema: &'a Value) -> NodeId {
        match reference(schema) {
            Some(name) => self.named(name),
            None => {
                let node = self.node("", schema);
                self.add(node)
            }
        }
    }

    /// A property, with what the sources say of it beside its schema.
    fn property(&mut self, type_name: &str, name: &str, schema: &'a Value) -> NodeId {
        let id = self.inline(schema);
        let Some(facts) = field_facts(type_name, name) else { return id };
        let plain = facts.list_type.is_empty()
            && !facts.atomic
            && facts.patch_strategy.is_empty()
            && facts.merge_key.is_none()
            && facts.default.is_none();
        if plain {
            return id;
        }
        let mut node = self.nodes[id].clone();
        node.list_type = match facts.list_type {
            "set" => ListType::Set,
            "map" => ListType::Map(facts.list_map_keys.iter().map(|key| (*key).into()).collect()),
            _ => ListType::Atomic,
        };
        node.atomic |= facts.atomic;
        node.patch = PatchStrategy {
            merge: facts.patch_strategy.split(',').any(|strategy| strategy == "merge"),
            retain_keys: facts.patch_strategy.split(',').any(|strategy| strategy == "retainKeys"),
            merge_key: facts.merge_key.map(Into::into),
        };
        node.default = facts.default.map(|default| Value::from(default.trim_matches('"')));
        self.add(node)
    }
}

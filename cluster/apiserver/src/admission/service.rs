//! Addresses and node ports of Services.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use meshlab_objects::{Cause, CauseReason, Status};
use rand::Rng;
use serde_json::{Value, json};

use crate::api::Api;
use crate::registry::Served;

/// 10.96.0.0/12
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const ADDRESSES: u32 = 1 << 20;
/// Addresses that are given out when asked for only, as `--service-cluster-ip-range` reserves them.
const RESERVED: u32 = 256;
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;

/// Completes a Service; `old` is what it was before.
pub(super) fn allocate(api: &Api, served: &Arc<Served>, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let invalid = |cause| Status::invalid("", "Service", &name, vec![cause]);
    let others = api.store.list(&served.id, None).objects;
    let others = others
        .iter()
        .filter(|other| (other.key.namespace(), other.key.name()) != (namespace.as_str(), name.as_str()))
        .map(|other| other.value());
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or("ClusterIP").to_owned();
    if kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
        return Ok(());
    }
    let before = old.map(|old| &old["spec"]);
    let taken = Taken::collect(others);
    let address = cluster_ip(spec.get("clusterIP").and_then(Value::as_str), before, &taken).map_err(invalid)?;
    spec.insert("clusterIP".into(), json!(address));
    spec.insert("clusterIPs".into(), json!([address]));
    let headless = address == "None";
    if spec.get("ipFamilies").is_none_or(|families| families.as_array().is_none_or(Vec::is_empty)) {
        spec.insert("ipFamilies".into(), json!(["IPv4"]));
    }
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
    if headless && !spec.contains_key("selector") && old.is_none() {
        spec.insert("ipFamilyPolicy".into(), json!("SingleStack"));
    }
    let wants_ports = match kind.as_str() {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    };
    if wants_ports { node_ports(spec, before, &taken).map_err(invalid) } else { release_node_ports(spec, &kind) }
}

/// What other Services use.
struct Taken {
    addresses: HashSet<String>,
    ports: HashSet<(u64, String)>,
}

impl Taken {
    fn collect(services: impl Iterator<Item = Arc<Value>>) -> Self {
        let mut taken = Self { addresses: HashSet::new(), ports: HashSet::new() };
        for service in services {
            let spec = &service["spec"];
            taken.addresses.extend(spec["clusterIP"].as_str().map(str::to_owned));
            for port in spec["ports"].as_array().into_iter().flatten() {
                taken.ports.extend(port["nodePort"].as_u64().map(|number| (number, protocol(port))));
            }
        }
        taken
    }
}

fn protocol(port: &Value) -> String {
    port["protocol"].as_str().unwrap_or("TCP").to_owned()
}

fn cluster_ip(wanted: Option<&str>, before: Option<&Value>, taken: &Taken) -> Result<String, Cause> {
    let field = "spec.clusterIPs[0]";
    let had = before.and_then(|spec| spec["clusterIP"].as_str()).filter(|address| !address.is_empty());
    let wanted = wanted.filter(|address| !address.is_empty());
    match (wanted, had) {
        (None, Some(had)) => Ok(had.to_owned()),
        (Some(wanted), Some(had)) if wanted == had => Ok(had.to_owned()),
        (Some(wanted), Some(_)) => Err(Cause {
            reason: CauseReason::FieldValueInvalid,
            message: format!("Invalid value: {:?}: may not change once set", [wanted]),
            field: field.into(),
        }),
        (Some("None"), None) => Ok("None".to_owned()),
        (Some(wanted), None) => {
            let invalid = |why: &str| Cause {
                reason: CauseReason::FieldValueInvalid,
                message: format!("Invalid value: {:?}: {why}", [wanted]),
                field: "spec.clusterIPs".into(),
            };
            let address: Ipv4Addr = wanted.parse().map_err(|_| invalid("must be a valid IPv4 address"))?;
            let offset = u32::from(address).wrapping_sub(FIRST_ADDRESS);
            if offset == 0 || offset >= ADDRESSES - 1 {
                return Err(invalid(
                    "failed to allocate IP: the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12",
                ));
            }
            if taken.addresses.contains(wanted) {
                return Err(invalid("failed to allocate IP: provided IP is already allocated"));
            }
            Ok(wanted.to_owned())
        }
        (None, None) => {
            let mut random = rand::rng();
            for _ in 0..1000 {
                let offset = random.random_range(RESERVED..ADDRESSES - 1);
                let address = Ipv4Addr::from(FIRST_ADDRESS + offset).to_string();
                if !taken.addresses.contains(&address) {
                    return Ok(address);
                }
            }
            Err(Cause {
                reason: CauseReason::FieldValueInvalid,
                message: "failed to allocate IP: range is full".into(),
                field: field.into(),
            })
        }
    }
}

fn node_ports(spec: &mut serde_json::Map<String, Value>, before: Option<&Value>, taken: &Taken) -> Result<(), Cause> {
    let before = before.and_then(|spec| spec["ports"].as_array());
    let had = |port: &Value| {
        let same = |old: &&Value| old["port"] == port["port"] && protocol(old) == protocol(port);
        before.into_iter().flatten().find(same).and_then(|old| old["nodePort"].as_u64())
    };
    let mut own: HashSet<(u64, String)> = HashSet::new();
    let mut random = rand::rng();
    for (index, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let invalid = |value: u64, why: &str| Cause {
            reason: CauseReason::FieldValueInvalid,
            message: format!("Invalid value: {value}: {why}"),
            field: format!("spec.ports[{index}].nodePort"),
        };
        let protocol = protocol(port);
        let free = |number: u64| !taken.ports.contains(&(number, protocol.clone()));
        let number = match port["nodePort"].as_u64().filter(|number| *number != 0).or_else(|| had(port)) {
            Some(number) if !NODE_PORTS.contains(&number) => {
                return Err(invalid(number, "provided port is not in the valid range. The range of valid ports is 30000-32767"));
            }
            Some(number) if !free(number) => return Err(invalid(number, "provided port is already allocated")),
            Some(number) => number,
            None => {
                let mut draws = (0..10_000).map(|_| random.random_range(NODE_PORTS));
                let drawn = draws.find(|number| free(*number) && !own.contains(&(*number, protocol.clone())));
                drawn.ok_or_else(|| invalid(0, "range is full"))?
            }
        };
        own.insert((number, protocol));
        port["nodePort"] = json!(number);
    }
    Ok(())
}

/// A Service that became one of another type gives its node ports back.
fn release_node_ports(spec: &mut serde_json::Map<String, Value>, kind: &str) -> Result<(), Status> {
    if kind == "ClusterIP" {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            drop(port.as_object_mut().map(|port| port.remove("nodePort")));
        }
    }
    Ok(())
}

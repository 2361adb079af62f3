//! Cells of Services and what surrounds them.

use serde_json::Value;

use super::{NONE, Row, first_of, join, labels, or_none, selector, text};

pub(in crate::table) fn service(row: Row<'_>) -> Vec<Value> {
    let cluster_ip = row.list("/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or_else(|| row.text("/spec/clusterIP"));
    vec![
        row.name(),
        row.text("/spec/type").into(),
        or_none(cluster_ip.to_owned()).into(),
        external_ip(row).into(),
        ports(row).into(),
        row.age(),
        labels(row.at("/spec/selector")).into(),
    ]
}

fn external_ip(row: Row<'_>) -> String {
    let own = row.list("/spec/externalIPs").iter().filter_map(Value::as_str);
    match row.text("/spec/type") {
        "ExternalName" => row.text("/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = row.list("/status/loadBalancer/ingress").iter();
            let balanced =
                ingress.map(|point| if text(point, "ip").is_empty() { text(point, "hostname") } else { text(point, "ip") });
            let all = join(balanced.chain(own));
            if all.is_empty() { "<pending>".to_owned() } else { all }
        }
        _ => or_none(join(own)),
    }
}

/// `80:30080/TCP,443/TCP`
fn ports(row: Row<'_>) -> String {
    let port = |port: &Value| {
        let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or_default();
        let protocol = text(port, "protocol");
        match number("nodePort") {
            0 => format!("{}/{protocol}", number("port")),
            node_port => format!("{}:{node_port}/{protocol}", number("port")),
        }
    };
    or_none(row.list("/spec/ports").iter().map(port).collect::<Vec<_>>().join(","))
}

pub(in crate::table) fn endpoints(row: Row<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in row.list("/subsets") {
        let list = |field: &str| subset.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ports = list("ports");
        for address in list("addresses") {
            let ip = text(address, "ip");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            all.extend(
                ports.iter().map(|port| format!("{host}:{}", port.get("port").and_then(Value::as_i64).unwrap_or_default())),
            );
        }
    }
    vec![row.name(), first_of(&all, 3, NONE).into(), row.age()]
}

pub(in crate::table) fn endpoint_slice(row: Row<'_>) -> Vec<Value> {
    let port = |port: &Value| port.get("port").and_then(Value::as_i64).map_or_else(|| "*".to_owned(), |port| port.to_string());
    let ports: Vec<String> = row.list("/ports").iter().map(port).collect();
    let addresses = row.list("/endpoints").iter().filter_map(|endpoint| endpoint.get("addresses")?.as_array()).flatten();
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    vec![
        row.name(),
        row.text("/addressType").into(),
        first_of(&ports, 3, "<unset>").into(),
        first_of(&addresses, 3, "<unset>").into(),
        row.age(),
    ]
}

pub(in crate::table) fn ingress(row: Row<'_>) -> Vec<Value> {
    let hosts: Vec<String> =
        row.list("/spec/rules").iter().map(|rule| text(rule, "host").to_owned()).filter(|host| !host.is_empty()).collect();
    let addresses = row.list("/status/loadBalancer/ingress").iter();
    let addresses = addresses.map(|point| if text(point, "ip").is_empty() { text(point, "hostname") } else { text(point, "ip") });
    let ports = if row.list("/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        row.name(),
        row.text_or_none("/spec/ingressClassName").into(),
        first_of(&hosts, 3, "*").into(),
        join(addresses).into(),
        ports.into(),
        row.age(),
    ]
}

pub(in crate::table) fn ingress_class(row: Row<'_>) -> Vec<Value> {
    let parameters = row.at("/spec/parameters").map_or_else(
        || NONE.to_owned(),
        |parameters| {
            let group = Some(text(parameters, "apiGroup")).filter(|group| !group.is_empty()).map(|group| format!(".{group}"));
            format!("{}{}/{}", text(parameters, "kind"), group.unwrap_or_default(), text(parameters, "name"))
        },
    );
    vec![row.name(), row.text("/spec/controller").into(), parameters.into(), row.age()]
}

pub(in crate::table) fn network_policy(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), selector(row.at("/spec/podSelector")).into(), row.age()]
}

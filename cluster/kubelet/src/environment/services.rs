//! The variables that tell a container where services are, in Docker's old way of links. No input or output here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// The variables of one service; none where it has no address of its own.
pub(crate) fn variables(service: &Service) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(spec) = &service.spec else { return variables };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return variables };
    let prefix = upper(&service.name_any());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return variables };
    let mut set = |name: String, value: String| {
        variables.insert(format!("{prefix}_{name}"), value);
    };
    set("SERVICE_HOST".into(), ip.to_owned());
    set("SERVICE_PORT".into(), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(format!("SERVICE_PORT_{}", upper(name)), port.port.to_string());
        }
        if index == 0 {
            set("PORT".into(), url.clone());
        }
        let port_prefix = format!("PORT_{}_{protocol}", port.port);
        set(port_prefix.clone(), url);
        set(format!("{port_prefix}_PROTO"), protocol.to_lowercase());
        set(format!("{port_prefix}_PORT"), port.port.to_string());
        set(format!("{port_prefix}_ADDR"), ip.to_owned());
    }
    variables
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_becomes_its_variables() {
        let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http-web", "port": 80}]});
        let service = serde_json::from_value(json!({"metadata": {"name": "my-web"}, "spec": spec})).unwrap();
        let lines: Vec<String> = variables(&service).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        MY_WEB_PORT=tcp://10.96.0.9:80
        MY_WEB_PORT_80_TCP=tcp://10.96.0.9:80
        MY_WEB_PORT_80_TCP_ADDR=10.96.0.9
        MY_WEB_PORT_80_TCP_PORT=80
        MY_WEB_PORT_80_TCP_PROTO=tcp
        MY_WEB_SERVICE_HOST=10.96.0.9
        MY_WEB_SERVICE_PORT=80
        MY_WEB_SERVICE_PORT_HTTP_WEB=80
        ");
    }
}

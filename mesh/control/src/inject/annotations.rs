//! The annotations that steer injection, and what they may say.

use std::net::IpAddr;

use super::pod::Pod;

/// Refuses a pod whose annotations the injector could not obey, naming each.
pub(crate) fn validate(pod: Pod<'_>) -> Result<(), String> {
    let Some(annotations) = pod.0["metadata"]["annotations"].as_object() else { return Ok(()) };
    let faults = annotations.iter().filter_map(|(name, value)| {
        let value = value.as_str().unwrap_or_default();
        let fault = check(name, value).err()?;
        Some(format!("invalid value '{value}' for annotation '{name}': {fault}"))
    });
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

fn check(name: &str, value: &str) -> Result<(), String> {
    match name {
        "sidecar.istio.io/interceptionMode" => match value {
            "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
            _ => Err(format!("interceptionMode invalid, use REDIRECT,TPROXY,NONE: {value}")),
        },
        "status.sidecar.istio.io/port" => value.parse::<u16>().map(drop).map_err(|e| e.to_string()),
        "readiness.status.sidecar.istio.io/initialDelaySeconds"
        | "readiness.status.sidecar.istio.io/periodSeconds"
        | "readiness.status.sidecar.istio.io/failureThreshold" => value.parse::<u32>().map(drop).map_err(|e| e.to_string()),
        "traffic.sidecar.istio.io/includeOutboundIPRanges" if value == "*" => Ok(()),
        "traffic.sidecar.istio.io/includeOutboundIPRanges" | "traffic.sidecar.istio.io/excludeOutboundIPRanges" => ranges(value),
        "traffic.sidecar.istio.io/includeInboundPorts" | "traffic.sidecar.istio.io/includeOutboundPorts" if value == "*" => {
            Ok(())
        }
        "traffic.sidecar.istio.io/includeInboundPorts"
        | "traffic.sidecar.istio.io/excludeInboundPorts"
        | "traffic.sidecar.istio.io/includeOutboundPorts"
        | "traffic.sidecar.istio.io/excludeOutboundPorts" => ports(value),
        "prometheus.istio.io/merge-metrics" => parse_bool(value).map(drop).ok_or_else(|| "want true or false".into()),
        "proxy.istio.io/config" => proxy_config(value).map(drop),
        "sidecar.istio.io/proxyCPU"
        | "sidecar.istio.io/proxyMemory"
        | "sidecar.istio.io/proxyCPULimit"
        | "sidecar.istio.io/proxyMemoryLimit" => quantity(value),
        _ => Ok(()),
    }
}

/// The YAML of `proxy.istio.io/config`.
pub(crate) fn proxy_config(yaml: &str) -> Result<serde_json::Value, String> {
    let config: serde_json::Value = serde_saphyr::from_str(yaml).map_err(|error| format!("not YAML: {error}"))?;
    match config {
        serde_json::Value::Object(_) => Ok(config),
        serde_json::Value::Null => Ok(serde_json::json!({})),
        _ => Err("want a mapping of ProxyConfig fields".into()),
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn ports(list: &str) -> Result<(), String> {
    let wrong = list.split(',').map(str::trim).find(|port| !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port > 0));
    wrong.map_or(Ok(()), |port| Err(format!("{port:?} is no port")))
}

fn ranges(list: &str) -> Result<(), String> {
    let valid = |range: &str| {
        let Some((address, bits)) = range.split_once('/') else { return false };
        let longest = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= longest)
    };
    let wrong = list.split(',').find(|range| !range.is_empty() && !valid(range));
    wrong.map_or(Ok(()), |range| Err(format!("{range:?} is no CIDR range")))
}

fn quantity(value: &str) -> Result<(), String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &value[digits.len()..];
    const SUFFIXES: [&str; 15] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let known = SUFFIXES.contains(&suffix);
    if known && digits.parse::<f64>().is_ok() { Ok(()) } else { Err("not a resource quantity".into()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_is_named() {
        let pod = json!({"metadata": {"annotations": {
            "sidecar.istio.io/interceptionMode": "MAGIC",
            "sidecar.istio.io/proxyCPU": "100m",
            "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/8,10.0.0.1",
            "traffic.sidecar.istio.io/includeInboundPorts": "*",
        }}});
        insta::assert_snapshot!(validate(Pod(&pod)).unwrap_err(), @r#"invalid value 'MAGIC' for annotation 'sidecar.istio.io/interceptionMode': interceptionMode invalid, use REDIRECT,TPROXY,NONE: MAGIC; invalid value '10.0.0.0/8,10.0.0.1' for annotation 'traffic.sidecar.istio.io/excludeOutboundIPRanges': "10.0.0.1" is no CIDR range"#);
    }
}

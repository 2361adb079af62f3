//! Metrics merging: the agent scrapes the app where the pod's annotations point, and the annotations then point at the agent.

use serde_json::{Value, json};

use super::annotations::parse_bool;

/// Annotations are read whatever punctuation they use, as Prometheus' relabelling does.
fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Returns the value of `ISTIO_PROMETHEUS_ANNOTATIONS` (what the agent scrapes), if the app is scraped at all.
///
/// # Errors
/// The port to scrape is none, or one of the mesh's own.
pub(crate) fn merge(pod: &mut Value, enabled_by_mesh: bool, status_port: u16) -> Result<Option<String>, String> {
    let annotations = &mut pod["metadata"]["annotations"];
    let read = |wanted: &str| {
        let all = annotations.as_object().into_iter().flatten();
        all.filter(|(name, _)| sanitized(name) == wanted).find_map(|(_, value)| value.as_str()).map(str::to_owned)
    };
    let scrape = read("prometheus_io_scrape");
    if scrape.as_deref().and_then(parse_bool) == Some(false) {
        return Ok(None);
    }
    let merge = annotations["prometheus.istio.io/merge-metrics"].as_str().and_then(parse_bool);
    let (port, path) = (read("prometheus_io_port"), read("prometheus_io_path"));
    // Pointing at the agent already: injected before.
    if !merge.unwrap_or(enabled_by_mesh) || port.as_deref() == Some(&status_port.to_string()) {
        return Ok(None);
    }
    if let Some(port) = &port {
        check_port(port, status_port)?;
    }
    if !annotations.is_object() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        let ours = ["prometheus_io_scrape", "prometheus_io_port", "prometheus_io_path"];
        annotations.retain(|name, _| !ours.contains(&sanitized(name).as_str()));
    }
    annotations["prometheus.io/port"] = status_port.to_string().into();
    annotations["prometheus.io/path"] = "/stats/prometheus".into();
    annotations["prometheus.io/scrape"] = "true".into();
    if scrape.is_none() && port.is_none() && path.is_none() {
        return Ok(None);
    }
    let scrape = json!({
        "scrape": scrape.unwrap_or_default(), "path": path.unwrap_or_default(), "port": port.unwrap_or_default(),
    });
    Ok(Some(scrape.to_string()))
}

fn check_port(port: &str, status_port: u16) -> Result<(), String> {
    let fault = match port.parse::<u16>() {
        Ok(0) | Err(_) => format!("invalid port {port:?}"),
        Ok(number) if number == status_port => format!("port {port} conflicts with agent port"),
        Ok(15000 | 15001 | 15006 | 15008 | 15021 | 15053 | 15090) => {
            format!("port {port} is reserved for Istio and cannot be scraped")
        }
        Ok(_) => return Ok(()),
    };
    Err(format!("invalid prometheus scrape configuration: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(annotations: Value) -> (Result<Option<String>, String>, Value) {
        let mut pod = json!({"metadata": {"annotations": annotations}});
        let scrape = merge(&mut pod, true, 15020);
        (scrape, pod["metadata"]["annotations"].clone())
    }

    #[test]
    fn the_apps_endpoint_moves_behind_the_agents() {
        let (scrape, annotations) = merged(json!({"prometheus.io/port": "9090", "prometheus/io/scrape": "true"}));
        assert_eq!(scrape.unwrap().unwrap(), r#"{"path":"","port":"9090","scrape":"true"}"#);
        let expected =
            json!({"prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus", "prometheus.io/scrape": "true"});
        assert_eq!(annotations, expected);
    }

    #[test]
    fn a_pod_without_annotations_gets_the_agents() {
        let (scrape, annotations) = merged(Value::Null);
        assert_eq!(scrape, Ok(None));
        assert_eq!(annotations["prometheus.io/port"], "15020");
    }

    #[test]
    fn opting_out_leaves_all_as_it_is() {
        for annotations in [json!({"prometheus.io/scrape": "false"}), json!({"prometheus.istio.io/merge-metrics": "false"})] {
            assert_eq!(merged(annotations.clone()), (Ok(None), annotations));
        }
    }

    #[test]
    fn the_meshs_own_ports_are_refused() {
        let (scrape, _) = merged(json!({"prometheus.io/port": "15090"}));
        assert!(scrape.unwrap_err().contains("15090 is reserved"));
    }
}

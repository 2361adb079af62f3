//! The app's own probes: the kubelet cannot speak mutual TLS, so they are sent to the agent, which asks the app.

use serde_json::{Map, Value, json};

/// Points every HTTP, TCP and gRPC probe (and lifecycle handler) of the app's containers at the agent, and returns what the agent
/// has to ask instead: the value of `ISTIO_KUBE_APP_PROBERS`. `None` when there is nothing to ask.
pub(crate) fn rewrite(pod: &mut Value, status_port: u16) -> Option<String> {
    let mut probers = Map::new();
    for list in ["initContainers", "containers"] {
        for container in super::merge::spec_list(pod, list) {
            if container["name"] != super::PROXY {
                rewrite_container(container, status_port, &mut probers);
            }
        }
    }
    (!probers.is_empty()).then(|| Value::Object(probers).to_string())
}

fn rewrite_container(container: &mut Value, status_port: u16, probers: &mut Map<String, Value>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    for (field, suffix) in [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")] {
        let path = format!("/app-health/{name}/{suffix}");
        if let Some(probe) = container.get_mut(field) {
            let timeout = probe["timeoutSeconds"].clone();
            redirect(probe, &path, status_port, &ports, timeout, probers);
        }
    }
    for (field, suffix) in [("preStop", "prestopz"), ("postStart", "poststartz")] {
        let path = format!("/app-lifecycle/{name}/{suffix}");
        if let Some(handler) = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field)) {
            redirect(handler, &path, status_port, &ports, Value::Null, probers);
        }
    }
}

fn redirect(probe: &mut Value, path: &str, status_port: u16, ports: &Value, timeout: Value, probers: &mut Map<String, Value>) {
    let Some(probe) = probe.as_object_mut() else { return };
    let Some((kind, mut action)) = ["httpGet", "tcpSocket", "grpc"].iter().find_map(|kind| Some((*kind, probe.remove(*kind)?)))
    else {
        return;
    };
    let mut get = if kind == "httpGet" { action.clone() } else { json!({}) };
    get["path"] = path.into();
    get["port"] = status_port.into();
    if get["scheme"] == "HTTPS" {
        get["scheme"] = "HTTP".into();
    }
    if get["scheme"].is_null() {
        get.as_object_mut().map(|get| get.remove("scheme"));
    }
    probe.insert("httpGet".into(), get);

    if action["port"].is_string() {
        let number = ports.as_array().and_then(|ports| ports.iter().find(|port| port["name"] == action["port"]));
        // A port that the container does not name cannot be asked; the probe will fail, as it would have.
        let Some(number) = number else { return };
        action["port"] = number["containerPort"].clone();
    }
    if action["port"] == status_port {
        return;
    }
    let mut prober = Map::from_iter([(kind.to_owned(), action)]);
    if timeout.as_u64().is_some_and(|timeout| timeout > 0) {
        prober.insert("timeoutSeconds".into(), timeout);
    }
    probers.insert(path.to_owned(), Value::Object(prober));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_go_through_the_agent() {
        let mut pod = json!({"spec": {"containers": [
            {
                "name": "web", "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTPS"}, "periodSeconds": 5, "timeoutSeconds": 3},
                "livenessProbe": {"tcpSocket": {"port": 8080}},
                "startupProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": 8080}}},
            },
            {"name": "istio-proxy", "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}}},
        ]}});
        let probers: Value = serde_json::from_str(&rewrite(&mut pod, 15020).unwrap()).unwrap();
        insta::assert_json_snapshot!(pod["spec"]["containers"], @r#"
        [
          {
            "lifecycle": {
              "preStop": {
                "httpGet": {
                  "path": "/app-lifecycle/web/prestopz",
                  "port": 15020
                }
              }
            },
            "livenessProbe": {
              "httpGet": {
                "path": "/app-health/web/livez",
                "port": 15020
              }
            },
            "name": "web",
            "ports": [
              {
                "containerPort": 8080,
                "name": "http"
              }
            ],
            "readinessProbe": {
              "httpGet": {
                "path": "/app-health/web/readyz",
                "port": 15020,
                "scheme": "HTTP"
              },
              "periodSeconds": 5,
              "timeoutSeconds": 3
            },
            "startupProbe": {
              "exec": {
                "command": [
                  "true"
                ]
              }
            }
          },
          {
            "name": "istio-proxy",
            "readinessProbe": {
              "httpGet": {
                "path": "/healthz/ready",
                "port": 15021
              }
            }
          }
        ]
        "#);
        insta::assert_json_snapshot!(probers, @r#"
        {
          "/app-health/web/livez": {
            "tcpSocket": {
              "port": 8080
            }
          },
          "/app-health/web/readyz": {
            "httpGet": {
              "path": "/ready",
              "port": 8080,
              "scheme": "HTTPS"
            },
            "timeoutSeconds": 3
          },
          "/app-lifecycle/web/prestopz": {
            "httpGet": {
              "path": "/bye",
              "port": 8080
            }
          }
        }
        "#);
    }
}

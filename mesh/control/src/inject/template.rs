//! The injected containers and volumes, as a piece of pod that is laid over the app's: Istio's templates `sidecar` and `gateway`.

use serde_json::{Map, Value, json};

use super::pod::{Owner, Pod};
use super::values::Values;
use super::{INIT, PROXY, Template};

/// User and group that the proxy runs as; its traffic is told from the app's by it.
const PROXY_ID: u32 = 1337;

/// All that a template may look at.
pub(crate) struct Context<'a> {
    pub(crate) pod: Pod<'a>,
    pub(crate) namespace: &'a str,
    pub(crate) owner: Owner,
    pub(crate) values: &'a Values,
    /// Mesh configuration.
    pub(crate) mesh: &'a Value,
    /// `defaultConfig` of the mesh with the workload's own on top.
    pub(crate) proxy_config: Value,
    /// The proxy runs as a restartable init container.
    pub(crate) native: bool,
    pub(crate) revision: &'a str,
    pub(crate) template: Template,
}

impl Context<'_> {
    /// The pod piece to lay over.
    pub(crate) fn render(&self) -> Value {
        let mut spec = json!({ "volumes": self.volumes() });
        match self.template {
            Template::Gateway => {
                spec["containers"] = json!([self.proxy()]);
                spec["securityContext"] = json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] });
            }
            Template::Sidecar => {
                let mut init = Vec::new();
                if self.interception_mode() != "NONE" {
                    init.push(self.init());
                }
                if self.native {
                    init.push(self.proxy());
                } else {
                    spec["containers"] = json!([self.proxy()]);
                }
                spec["initContainers"] = init.into();
            }
        }
        if let Some(secrets) = self.values.global("/imagePullSecrets").as_array() {
            spec["imagePullSecrets"] = secrets.iter().map(|name| json!({ "name": name })).collect();
        }
        json!({ "metadata": { "labels": self.labels(), "annotations": self.annotations() }, "spec": spec })
    }

    /// Whether the app waits for the proxy (a native sidecar makes it wait anyway).
    pub(crate) fn holds_application(&self) -> bool {
        let hold = self.proxy_config["holdApplicationUntilProxyStarts"] == true;
        hold || *self.values.global("/proxy/holdApplicationUntilProxyStarts") == true
    }

    /// The agent's port.
    pub(crate) fn status_port(&self) -> u16 {
        let annotated = self.pod.annotation("status.sidecar.istio.io/port").and_then(|port| port.parse().ok());
        let configured = || self.proxy_config["statusPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        annotated.or_else(configured).unwrap_or(15020)
    }

    fn interception_mode(&self) -> &str {
        let configured = || self.proxy_config["interceptionMode"].as_str();
        self.pod.annotation("sidecar.istio.io/interceptionMode").or_else(configured).unwrap_or("REDIRECT")
    }

    /// An annotation, or the installation's value.
    fn setting(&self, annotation: &str, value: &str) -> String {
        self.pod.annotation(annotation).map_or_else(|| self.values.text(value), str::to_owned)
    }

    fn labels(&self) -> Value {
        let first = |names: &[&str]| names.iter().find_map(|name| self.pod.label(name).filter(|value| !value.is_empty()));
        let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]).unwrap_or(&self.owner.name);
        let name: String = name.chars().take(63).collect();
        let name = name.trim_matches(['-', '_', '.']);
        let revision =
            first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]).unwrap_or("latest");
        let mut labels = json!({ "service.istio.io/canonical-name": name, "service.istio.io/canonical-revision": revision });
        if self.template == Template::Sidecar {
            labels["security.istio.io/tlsMode"] = first(&["security.istio.io/tlsMode"]).unwrap_or("istio").into();
        }
        labels
    }

    fn annotations(&self) -> Value {
        let mut annotations = json!({ "istio.io/rev": self.revision });
        if let Some(first) = self.pod.app_containers().next() {
            for name in ["kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container"] {
                if self.pod.annotation(name).is_none() {
                    annotations[name] = first["name"].clone();
                }
            }
        }
        annotations
    }

    /// `istio-init`: redirects the pod's traffic to the proxy, then ends.
    fn init(&self) -> Value {
        let port = |field: &str, default: u16| self.mesh[field].as_u64().unwrap_or(default.into()).to_string();
        let excluded_inbound = {
            let set = self.setting("traffic.sidecar.istio.io/excludeInboundPorts", "/proxy/excludeInboundPorts");
            let status = self.status_port().to_string();
            let mut ports = vec!["15090".to_owned(), "15021".to_owned()];
            ports.extend(set.split(',').map(str::trim).filter(|port| !port.is_empty()).map(str::to_owned));
            if status != "0" && !ports.contains(&status) {
                ports.push(status);
            }
            ports.join(",")
        };
        let mut args = vec![
            "istio-iptables".to_owned(),
            "-p".into(),
            port("proxyListenPort", 15001),
            "-z".into(),
            port("proxyInboundListenPort", 15006),
            "-u".into(),
            PROXY_ID.to_string(),
            "-m".into(),
            self.interception_mode().to_owned(),
            "-i".into(),
            self.setting("traffic.sidecar.istio.io/includeOutboundIPRanges", "/proxy/includeIPRanges"),
            "-x".into(),
            self.setting("traffic.sidecar.istio.io/excludeOutboundIPRanges", "/proxy/excludeIPRanges"),
            "-b".into(),
            self.setting("traffic.sidecar.istio.io/includeInboundPorts", "/proxy/includeInboundPorts"),
            "-d".into(),
            excluded_inbound,
        ];
        let optional = [
            ("-q", "traffic.sidecar.istio.io/includeOutboundPorts", "/proxy/includeOutboundPorts"),
            ("-o", "traffic.sidecar.istio.io/excludeOutboundPorts", "/proxy/excludeOutboundPorts"),
            ("-k", "istio.io/reroute-virtual-interfaces", "/proxy/rerouteVirtualInterfaces"),
            ("-c", "traffic.sidecar.istio.io/excludeInterfaces", "/proxy/excludeInterfaces"),
        ];
        for (flag, annotation, value) in optional {
            let setting = self.setting(annotation, value);
            if self.pod.annotation(annotation).is_some() || !setting.is_empty() {
                args.extend([flag.to_owned(), setting]);
            }
        }
        args.push(format!("--log_output_level={}", self.setting("sidecar.istio.io/agentLogLevel", "/logging/level")));
        let mut container = json!({
            "name": INIT,
            "image": self.image("/proxy_init/image"),
            "args": args,
            "resources": self.resources(),
            "securityContext": {
                "allowPrivilegeEscalation": self.values.global("/proxy/privileged"),
                "privileged": self.values.global("/proxy/privileged"),
                "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
                "readOnlyRootFilesystem": false,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "runAsUser": 0,
            },
        });
        let metadata = self.proxy_metadata();
        if !metadata.is_empty() {
            container["env"] = metadata.into();
        }
        self.set_pull_policy(&mut container);
        container
    }

    /// `istio-proxy`.
    fn proxy(&self) -> Value {
        let role = if self.template == Template::Gateway { "router" } else { "sidecar" };
        let mut container = json!({
            "name": PROXY,
            "image": self.image("/proxy/image"),
            "ports": [{ "containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom" }],
            "args": [
                "proxy",
                role,
                "--domain",
                format!("$(POD_NAMESPACE).svc.{}", self.values.text("/proxy/clusterDomain")),
                format!("--proxyLogLevel={}", self.setting("sidecar.istio.io/logLevel", "/proxy/logLevel")),
                format!("--proxyComponentLogLevel={}", self.setting("sidecar.istio.io/componentLogLevel", "/proxy/componentLogLevel")),
                format!("--log_output_level={}", self.setting("sidecar.istio.io/agentLogLevel", "/logging/level")),
            ],
            "env": self.env(),
            "resources": self.resources(),
            "securityContext": self.proxy_security_context(),
            "volumeMounts": self.volume_mounts(),
        });
        if self.native {
            container["restartPolicy"] = "Always".into();
        }
        if let Some(lifecycle) = self.lifecycle() {
            container["lifecycle"] = lifecycle;
        }
        self.set_probes(&mut container);
        self.set_pull_policy(&mut container);
        container
    }

    fn lifecycle(&self) -> Option<Value> {
        let set = self.values.global("/proxy/lifecycle");
        let exec = |command: Value| json!({ "exec": { "command": command } });
        if !set.is_null() {
            Some(set.clone())
        } else if self.template == Template::Gateway {
            None
        } else if self.native {
            // The pod begins to end: drain. The signal comes once the app is gone.
            let port = format!("--debug-port={}", self.status_port());
            Some(json!({ "preStop": exec(json!(["pilot-agent", "request", port, "POST", "drain"])) }))
        } else {
            self.holds_application().then(|| json!({ "postStart": exec(json!(["pilot-agent", "wait"])) }))
        }
    }

    fn set_probes(&self, container: &mut Value) {
        if self.status_port() == 0 {
            return;
        }
        let get = json!({ "path": "/healthz/ready", "port": 15021 });
        let number = |annotation: &str, value: &str| self.setting(annotation, value).parse::<u32>().unwrap_or_default();
        if self.template == Template::Sidecar && *self.values.global("/proxy/startupProbe/enabled") == true {
            container["startupProbe"] = json!({
                "httpGet": get, "initialDelaySeconds": 0, "periodSeconds": 1, "timeoutSeconds": 3,
                "failureThreshold": self.values.global("/proxy/startupProbe/failureThreshold"),
            });
        }
        container["readinessProbe"] = json!({
            "httpGet": get,
            "initialDelaySeconds":
                number("readiness.status.sidecar.istio.io/initialDelaySeconds", "/proxy/readinessInitialDelaySeconds"),
            "periodSeconds": number("readiness.status.sidecar.istio.io/periodSeconds", "/proxy/readinessPeriodSeconds"),
            "timeoutSeconds": 3,
            "failureThreshold": number("readiness.status.sidecar.istio.io/failureThreshold", "/proxy/readinessFailureThreshold"),
        });
    }

    fn proxy_security_context(&self) -> Value {
        if self.template == Template::Gateway {
            return json!({ "runAsUser": PROXY_ID, "runAsGroup": PROXY_ID });
        }
        let privileged = self.values.global("/proxy/privileged");
        let mut context = json!({
            "allowPrivilegeEscalation": privileged,
            "capabilities": { "drop": ["ALL"] },
            "privileged": privileged,
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_ID,
            "runAsNonRoot": true,
            "runAsUser": PROXY_ID,
        });
        let transparent = self.interception_mode() == "TPROXY";
        let bind = self.setting("sidecar.istio.io/capNetBindService", "/proxy/capNetBindService") == "true";
        let add: Vec<_> =
            [(transparent, "NET_ADMIN"), (bind, "NET_BIND_SERVICE")].iter().filter(|(on, _)| *on).map(|x| x.1).collect();
        if !add.is_empty() {
            context["capabilities"]["add"] = json!(add);
            context["runAsNonRoot"] = false.into();
            context["runAsUser"] = 0.into();
        }
        context
    }

    fn env(&self) -> Vec<Value> {
        let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let value = |name: &str, value: &str| json!({ "name": name, "value": value });
        let limit = |name: &str, resource: &str| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource, "divisor": "1" } } });
        let system = self.values.text("/istioNamespace");
        let ca_address = match self.values.text("/caAddress") {
            address if address.is_empty() => format!("istiod.{system}.svc:15012"),
            address => address,
        };
        let ports: Vec<_> = self.pod.app_containers().filter_map(|c| c["ports"].as_array()).flatten().collect();
        let apps: Vec<_> = self.pod.app_containers().filter_map(|container| container["name"].as_str()).collect();
        let workload = self.pod.label("service.istio.io/workload-name").unwrap_or(&self.owner.name);
        let trust_domain = self.mesh["trustDomain"].as_str().unwrap_or("cluster.local");
        let cluster = self.values.text("/multiCluster/clusterName");
        let network = self.pod.label("topology.istio.io/network").map_or_else(|| self.values.text("/network"), str::to_owned);
        let mut env = vec![
            value("PILOT_CERT_PROVIDER", "istiod"),
            value("CA_ADDR", &ca_address),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
            limit("ISTIO_CPU_LIMIT", "limits.cpu"),
            value("PROXY_CONFIG", &format!("{}\n", self.changed_proxy_config())),
            value("ISTIO_META_POD_PORTS", &Value::from_iter(ports.into_iter().cloned()).to_string()),
            value("ISTIO_META_APP_CONTAINERS", &apps.join(",")),
            limit("GOMEMLIMIT", "limits.memory"),
            value("ISTIO_META_CLUSTER_ID", if cluster.is_empty() { "Kubernetes" } else { &cluster }),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
            value("ISTIO_META_INTERCEPTION_MODE", self.interception_mode()),
        ];
        if !network.is_empty() {
            env.push(value("ISTIO_META_NETWORK", &network));
        }
        if !workload.is_empty() {
            env.push(value("ISTIO_META_WORKLOAD_NAME", workload));
        }
        if !self.owner.name.is_empty() {
            env.push(value("ISTIO_META_OWNER", &self.owner.reference(self.namespace)));
        }
        env.extend([value("ISTIO_META_MESH_ID", trust_domain), value("TRUST_DOMAIN", trust_domain)]);
        env.extend(self.proxy_metadata());
        env
    }

    /// `proxyMetadata` of the proxy's configuration: environment variables.
    fn proxy_metadata(&self) -> Vec<Value> {
        let metadata = self.proxy_config["proxyMetadata"].as_object().into_iter().flatten();
        metadata
            .map(|(name, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                json!({ "name": name, "value": text })
            })
            .collect()
    }

    /// The proxy's configuration without what is default anyway, as the agent expects it.
    fn changed_proxy_config(&self) -> Value {
        let defaults = [("interceptionMode", json!("REDIRECT")), ("statusPort", json!(15020))];
        let changed = self.proxy_config.as_object().into_iter().flatten();
        let changed = changed.filter(|(name, value)| !defaults.iter().any(|(known, default)| name == known && *value == default));
        Value::Object(changed.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn resources(&self) -> Value {
        let annotated = |kind: &str| {
            let names =
                [("cpu", format!("sidecar.istio.io/proxyCPU{kind}")), ("memory", format!("sidecar.istio.io/proxyMemory{kind}"))];
            let set =
                names.iter().filter_map(|(name, annotation)| Some(((*name).to_owned(), self.pod.annotation(annotation)?.into())));
            set.collect::<Map<String, Value>>()
        };
        let (requests, limits) = (annotated(""), annotated("Limit"));
        // One annotation replaces all of the installation's values, as in Istio.
        if requests.is_empty() && limits.is_empty() {
            return self.values.global("/proxy/resources").clone();
        }
        let parts = [("requests", requests), ("limits", limits)].into_iter().filter(|(_, amounts)| !amounts.is_empty());
        Value::Object(parts.map(|(name, amounts)| (name.to_owned(), Value::Object(amounts))).collect())
    }

    /// A full image reference from the annotation or the installation, or hub, name and tag put together.
    fn image(&self, value: &str) -> String {
        let image = self.setting("sidecar.istio.io/proxyImage", value);
        if image.contains('/') { image } else { format!("{}/{image}:{}", self.values.text("/hub"), self.values.text("/tag")) }
    }

    fn set_pull_policy(&self, container: &mut Value) {
        let policy = self.values.text("/imagePullPolicy");
        if !policy.is_empty() {
            container["imagePullPolicy"] = policy.into();
        }
    }

    fn volume_mounts(&self) -> Value {
        let mut mounts = json!([
            { "name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds" },
            { "name": "credential-socket", "mountPath": "/var/run/secrets/credential-uds" },
            { "name": "workload-certs", "mountPath": "/var/run/secrets/workload-spiffe-credentials" },
            { "name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio" },
            { "name": "istio-data", "mountPath": "/var/lib/istio/data" },
            { "name": "istio-envoy", "mountPath": "/etc/istio/proxy" },
            { "name": "istio-token", "mountPath": "/var/run/secrets/tokens" },
            { "name": "istio-podinfo", "mountPath": "/etc/istio/pod" },
        ]);
        if let Some(mounts) = mounts.as_array_mut() {
            for (name, mount) in self.user_object("sidecar.istio.io/userVolumeMount") {
                let mut named = json!({ "name": name });
                super::merge::lay_over(&mut named, &mount);
                mounts.push(named);
            }
        }
        mounts
    }

    fn volumes(&self) -> Value {
        let mut volumes = json!([
            { "name": "workload-socket", "emptyDir": {} },
            { "name": "credential-socket", "emptyDir": {} },
            { "name": "workload-certs", "emptyDir": {} },
            { "name": "istio-envoy", "emptyDir": { "medium": "Memory" } },
            { "name": "istio-data", "emptyDir": {} },
            { "name": "istio-podinfo", "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                { "path": "annotations", "fieldRef": { "fieldPath": "metadata.annotations" } },
            ] } },
            { "name": "istio-token", "projected": { "sources": [
                { "serviceAccountToken": { "path": "istio-token", "expirationSeconds": 43200, "audience": "istio-ca" } },
            ] } },
            { "name": "istiod-ca-cert", "configMap": { "name": "istio-ca-root-cert" } },
        ]);
        if let Some(volumes) = volumes.as_array_mut() {
            for (name, volume) in self.user_object("sidecar.istio.io/userVolume") {
                let mut named = json!({ "name": name });
                super::merge::lay_over(&mut named, &volume);
                volumes.push(named);
            }
        }
        volumes
    }

    /// An annotation that holds a JSON object.
    fn user_object(&self, annotation: &str) -> Map<String, Value> {
        self.pod.annotation(annotation).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

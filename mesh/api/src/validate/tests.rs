use serde_json::{Value, json};

use super::validate;

fn object(kind: &str, spec: &str) -> Value {
    let api_version = match kind {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
        "Telemetry" => "telemetry.istio.io/v1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        "ProxyConfig" => "networking.istio.io/v1beta1",
        "WasmPlugin" => "extensions.istio.io/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "x", "namespace": "default" }, "spec": spec })
}

/// The fields that are refused.
fn refused(kind: &str, spec: &str) -> Vec<String> {
    match validate(&object(kind, spec)) {
        Ok(warnings) => panic!("{kind} {spec} is accepted, with {warnings:?}"),
        Err(errors) => errors.into_iter().map(|error| error.path).collect(),
    }
}

/// The fields that are warned of.
fn accepted(kind: &str, spec: &str) -> Vec<String> {
    match validate(&object(kind, spec)) {
        Ok(warnings) => warnings.into_iter().map(|warning| warning.path).collect(),
        Err(errors) => panic!("{kind} {spec} is refused: {errors:?}"),
    }
}

/// What the labs' readers write.
const GOOD: &[(&str, &str)] = &[
    (
        "VirtualService",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]}]}",
    ),
    (
        "VirtualService",
        "{hosts: ['*'], gateways: [web], http: [{match: [{uri: {exact: /productpage}}, {uri: {prefix: /static}}], route: [{destination: {host: productpage, port: {number: 9080}}}]}]}",
    ),
    (
        "VirtualService",
        "{hosts: [ratings], http: [{fault: {delay: {percentage: {value: 100.0}, fixedDelay: 7s}}, match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: ratings}}]}, {route: [{destination: {host: ratings}}]}]}",
    ),
    (
        "VirtualService",
        "{hosts: [a], http: [{match: [{headers: {x: {regex: '*'}}}], route: [{destination: {host: a}}], retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,503'}}]}",
    ),
    ("VirtualService", "{http: [{route: [{destination: {host: a}}]}]}"),
    (
        "DestinationRule",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}]}",
    ),
    (
        "DestinationRule",
        "{host: httpbin, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}, outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}}}",
    ),
    (
        "Gateway",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: cert}, hosts: ['./*.example.com']}]}",
    ),
    (
        "ServiceEntry",
        "{hosts: [httpbin.org], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS, location: MESH_EXTERNAL}",
    ),
    ("Sidecar", "{egress: [{hosts: ['./*', 'istio-system/*']}]}"),
    ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    ("AuthorizationPolicy", "{}"),
    (
        "AuthorizationPolicy",
        "{action: DENY, rules: [{from: [{source: {namespaces: [foo]}}], to: [{operation: {ports: ['80'], methods: [GET]}}], when: [{key: 'request.headers[x]', values: ['*']}]}]}",
    ),
    ("RequestAuthentication", "{jwtRules: [{issuer: a, jwksUri: 'https://example.com/keys'}]}"),
    ("Telemetry", "{tracing: [{randomSamplingPercentage: 100.0}], accessLogging: [{providers: [{name: envoy}]}]}"),
    ("ProxyConfig", "{concurrency: 2}"),
];

#[test]
fn what_learners_write_is_accepted() {
    for (kind, spec) in GOOD {
        assert_eq!(accepted(kind, spec), Vec::<String>::new(), "{kind} {spec}");
    }
}

/// What the rules in a kind's schema say about an object.
fn rules_broken(kind: &str, spec: &str) -> Vec<String> {
    let object = object(kind, spec);
    let definitions = crate::crds();
    let definition = definitions.iter().find(|definition| definition.spec.names.kind == kind).unwrap();
    let version = object["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap();
    let version = definition.spec.versions.iter().find(|known| known.name == version).unwrap();
    let schema = serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap();
    match kube_cel::Validator::new().validate(&schema, &object, None) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| format!("{error:?}")).collect(),
    }
}

#[test]
fn the_rules_in_the_schemas_hold_for_it_too() {
    for (kind, spec) in GOOD {
        assert_eq!(rules_broken(kind, spec), Vec::<String>::new(), "{kind} {spec}");
    }
}

#[test]
fn the_rules_in_the_schemas_refuse() {
    for (kind, spec) in [
        ("PeerAuthentication", "{portLevelMtls: {'80': {mode: STRICT}}}"),
        ("PeerAuthentication", "{selector: {matchLabels: {app: a}}, portLevelMtls: {'0': {mode: STRICT}}}"),
        ("ServiceEntry", "{hosts: ['*'], resolution: NONE}"),
        ("ServiceEntry", "{hosts: [a.com], addresses: [10.0.0.0/8], resolution: DNS}"),
        ("ServiceEntry", "{hosts: [a.com], ports: [{number: 1, name: a}, {number: 1, name: b}]}"),
        ("ServiceEntry", "{hosts: [a.com], endpoints: [{address: 1.1.1.1}]}"),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwks: b, jwksUri: 'https://a/b'}]}"),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwksUri: 'ftp://a/b'}]}"),
        ("AuthorizationPolicy", "{selector: {}, targetRefs: [{kind: Gateway, name: a}]}"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}"),
        ("AuthorizationPolicy", "{selector: {matchLabels: {a: 'b*'}}}"),
        ("VirtualService", "{hosts: [a], http: [{timeout: 0.1ms}]}"),
        (
            "Gateway",
            "{servers: [{port: {number: 1, name: a, protocol: HTTPS}, hosts: [a], tls: {credentialName: a, credentialNames: [b]}}]}",
        ),
        ("Telemetry", "{metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: b}}}]}]}"),
    ] {
        assert!(!rules_broken(kind, spec).is_empty(), "{kind} {spec}");
    }
}

#[test]
fn unknown_fields_and_wrong_types_are_named() {
    assert_eq!(refused("VirtualService", "{hosts: [a], http: [{routes: []}]}"), ["spec.http[0].routes"]);
    assert_eq!(
        refused("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: FASTEST}}}"),
        ["spec.trafficPolicy.loadBalancer.simple"]
    );
    assert_eq!(
        refused("VirtualService", "{hosts: [a], http: [{timeout: 5, route: [{destination: {host: a}}]}]}"),
        ["spec.http[0].timeout"]
    );
    assert_eq!(
        refused("VirtualService", "{hosts: [a], http: [{timeout: 0s, route: [{destination: {host: a}}]}]}"),
        ["spec.http[0].timeout"]
    );
    let mut top = object("PeerAuthentication", "{}");
    top["mtls"] = json!({ "mode": "STRICT" });
    assert_eq!(validate(&top).unwrap_err()[0].path, "mtls");
    assert_eq!(validate(&json!({ "apiVersion": "networking.istio.io/v9", "kind": "Gateway" })).unwrap_err()[0].path, "kind");
}

#[test]
fn fact_12_weights() {
    let weights = |a: i32, b: i32| {
        format!(
            "{{hosts: [a], http: [{{route: [{{destination: {{host: a}}, weight: {a}}}, {{destination: {{host: b}}, weight: {b}}}]}}]}}"
        )
    };
    assert_eq!(refused("VirtualService", &weights(0, 0)), ["spec.http[0].route"]);
    assert_eq!(refused("VirtualService", &weights(-1, 101)), ["spec.http[0].route[0].weight"]);
    assert_eq!(accepted("VirtualService", &weights(1, 3)), Vec::<String>::new());
}

#[test]
fn fact_15_a_direct_response_stands_alone() {
    for other in [
        "route: [{destination: {host: a}}]",
        "redirect: {uri: /}",
        "rewrite: {uri: /}",
        "fault: {abort: {httpStatus: 500, percentage: {value: 1}}}",
    ] {
        let spec = format!("{{hosts: [a], http: [{{directResponse: {{status: 200}}, {other}}}]}}");
        assert_eq!(refused("VirtualService", &spec), ["spec.http[0]"], "{other}");
    }
}

#[test]
fn fact_16_host_can_be_set_but_not_removed() {
    let headers = |operations: &str| {
        format!("{{hosts: [a], http: [{{headers: {{request: {operations}}}, route: [{{destination: {{host: a}}}}]}}]}}")
    };
    assert_eq!(accepted("VirtualService", &headers("{set: {Host: b}}")), Vec::<String>::new());
    assert_eq!(refused("VirtualService", &headers("{remove: [Host]}")), ["spec.http[0].headers.request.remove[0]"]);
    assert_eq!(refused("VirtualService", &headers("{set: {':path': b}}")), ["spec.http[0].headers.request.set[:path]"]);
}

#[test]
fn fact_21_mirror_and_mirrors_exclude_each_other() {
    let spec =
        "{hosts: [a], http: [{route: [{destination: {host: a}}], mirror: {host: b}, mirrors: [{destination: {host: c}}]}]}";
    assert_eq!(refused("VirtualService", spec), ["spec.http[0]"]);
}

#[test]
fn a_fault_without_a_percentage_is_warned_of() {
    let spec = "{hosts: [a], http: [{fault: {abort: {httpStatus: 500}}, route: [{destination: {host: a}}]}]}";
    assert_eq!(accepted("VirtualService", spec), ["spec.http[0].fault.abort"]);
}

#[test]
fn virtual_services() {
    let cases = [
        ("{hosts: [a]}", "spec"),
        ("{hosts: ['*'], http: [{route: [{destination: {host: a}}]}]}", "spec.hosts[0]"),
        ("{hosts: [a, A], http: [{route: [{destination: {host: a}}]}]}", "spec.hosts[1]"),
        ("{hosts: [a], http: [{}]}", "spec.http[0]"),
        ("{hosts: [a], http: [{route: [{destination: {}}]}]}", "spec.http[0].route[0].destination.host"),
        (
            "{hosts: [a], http: [{match: [{uri: {regex: '*'}}], route: [{destination: {host: a}}]}]}",
            "spec.http[0].match[0].uri.regex",
        ),
        (
            "{hosts: [a], http: [{match: [{uri: {exact: /, prefix: /}}], route: [{destination: {host: a}}]}]}",
            "spec.http[0].match[0].uri",
        ),
        ("{hosts: [a], http: [{redirect: {}}]}", "spec.http[0].redirect"),
        ("{hosts: [a], http: [{redirect: {uri: /, redirectCode: 200}}]}", "spec.http[0].redirect.redirectCode"),
        (
            "{hosts: [a], http: [{route: [{destination: {host: a}}], retries: {attempts: 1, retryOn: often}}]}",
            "spec.http[0].retries.retryOn",
        ),
        (
            "{hosts: [a], http: [{route: [{destination: {host: a}}], fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}}]}",
            "spec.http[0].fault.delay.percentage",
        ),
        (
            "{hosts: [a], http: [{route: [{destination: {host: a}}], corsPolicy: {allowMethods: [get]}}]}",
            "spec.http[0].corsPolicy.allowMethods[0]",
        ),
        (
            "{hosts: [a], tls: [{route: [{destination: {host: a}}], match: [{sniHosts: [b]}]}]}",
            "spec.tls[0].match[0].sniHosts[0]",
        ),
        ("{hosts: [a], tcp: [{route: []}]}", "spec.tcp[0].route"),
        ("{hosts: [a], exportTo: ['*', b], http: [{route: [{destination: {host: a}}]}]}", "spec.exportTo"),
        ("{gateways: [g], http: [{route: [{destination: {host: a}}]}]}", "spec.gateways"),
        ("{http: [{delegate: {name: b}}]}", "spec.http[0].delegate"),
    ];
    for (spec, field) in cases {
        assert_eq!(refused("VirtualService", spec), [field], "{spec}");
    }
    let spec = "{hosts: [a], http: [{route: [{destination: {host: a}}]}, {match: [{uri: {prefix: /b}}], route: [{destination: {host: b}}]}]}";
    assert_eq!(accepted("VirtualService", spec), ["spec.http[1]"]);
}

#[test]
fn destination_rules() {
    let cases = [
        ("{}", "spec.host"),
        ("{host: a, trafficPolicy: {}}", "spec.trafficPolicy"),
        ("{host: a, subsets: [{name: v1}, {name: v1}]}", "spec.subsets[1].name"),
        (
            "{host: a, trafficPolicy: {portLevelSettings: [{tls: {mode: SIMPLE}}]}}",
            "spec.trafficPolicy.portLevelSettings[0].port",
        ),
        (
            "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}",
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
        ),
        ("{host: a, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c}}}", "spec.trafficPolicy.tls.privateKey"),
        (
            "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {maglev: {tableSize: 10}}}}}",
            "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}",
            "spec.trafficPolicy.loadBalancer",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: r/*, to: {r/*: 50}}]}}}}",
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
        ),
        ("{host: a, trafficPolicy: {connectionPool: {}}}", "spec.trafficPolicy.connectionPool"),
        ("{host: a, workloadSelector: {matchLabels: {app: a}}, exportTo: ['*']}", "spec.exportTo"),
    ];
    for (spec, field) in cases {
        assert_eq!(refused("DestinationRule", spec), [field], "{spec}");
    }
}

#[test]
fn gateways_entries_and_sidecars() {
    let cases = [
        ("Gateway", "{}", "spec.servers"),
        ("Gateway", "{servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.com]}]}", "spec.servers[0].tls"),
        (
            "Gateway",
            "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.com], tls: {mode: SIMPLE}}]}",
            "spec.servers[0].tls",
        ),
        (
            "Gateway",
            "{servers: [{port: {number: 80, name: a, protocol: HTPP}, hosts: [a.com]}]}",
            "spec.servers[0].port.protocol",
        ),
        ("Gateway", "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: []}]}", "spec.servers[0].hosts"),
        (
            "Gateway",
            "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [a]}, {port: {number: 81, name: a, protocol: HTTP}, hosts: [b]}]}",
            "spec.servers[1].port.name",
        ),
        ("ServiceEntry", "{hosts: ['*'], resolution: NONE}", "spec.hosts[0]"),
        ("ServiceEntry", "{hosts: ['*.a.com'], resolution: DNS}", "spec.hosts"),
        ("ServiceEntry", "{hosts: [a.com], addresses: [10.0.0.0/8], resolution: DNS}", "spec.addresses[0]"),
        ("ServiceEntry", "{hosts: [a.com], resolution: STATIC, endpoints: [{address: b.com}]}", "spec.endpoints[0].address"),
        ("ServiceEntry", "{hosts: [a.com], endpoints: [{address: 1.1.1.1}]}", "spec.endpoints"),
        ("Sidecar", "{}", "spec"),
        ("Sidecar", "{egress: [{hosts: ['*']}]}", "spec.egress[0].hosts[0]"),
        (
            "Sidecar",
            "{ingress: [{port: {number: 80, protocol: HTTP, name: a}, defaultEndpoint: '1.1.1.1:80'}]}",
            "spec.ingress[0].defaultEndpoint",
        ),
    ];
    for (kind, spec, field) in cases {
        assert_eq!(refused(kind, spec), [field], "{kind} {spec}");
    }
}

#[test]
fn security_and_telemetry() {
    let cases = [
        ("PeerAuthentication", "{portLevelMtls: {'80': {mode: STRICT}}}", "spec.portLevelMtls"),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: a}}, portLevelMtls: {'0': {mode: STRICT}}}",
            "spec.portLevelMtls[0]",
        ),
        ("AuthorizationPolicy", "{action: DENY}", "spec.rules"),
        ("AuthorizationPolicy", "{action: CUSTOM, rules: [{}]}", "spec.provider.name"),
        ("AuthorizationPolicy", "{provider: {name: a}, rules: [{}]}", "spec.provider"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {ipBlocks: [a]}}]}]}", "spec.rules[0].from[0].source.ipBlocks[0]"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {ports: ['x']}}]}]}", "spec.rules[0].to[0].operation.ports[0]"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: request.header, values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("AuthorizationPolicy", "{selector: {matchLabels: {app: 'a*'}}, rules: [{}]}", "spec.selector.matchLabels[app]"),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwks: x}]}", "spec.jwtRules[0].jwks"),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwksUri: 'ftp://a'}]}", "spec.jwtRules[0].jwksUri"),
        ("Telemetry", "{tracing: [{randomSamplingPercentage: 101}]}", "spec.tracing[0].randomSamplingPercentage"),
        (
            "Telemetry",
            "{metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides[a].value",
        ),
    ];
    for (kind, spec, field) in cases {
        assert_eq!(refused(kind, spec), [field], "{kind} {spec}");
    }
}

#[test]
fn kinds_without_effect_say_so() {
    assert_eq!(accepted("EnvoyFilter", "{configPatches: []}"), ["spec"]);
    assert_eq!(accepted("WasmPlugin", "{url: 'oci://x'}"), ["spec"]);
}

#[test]
fn fields_that_nothing_acts_on_say_so() {
    let spec = "{host: a, subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, maxConnectionDuration: 1s}}}}], \
                trafficPolicy: {loadBalancer: {warmup: {duration: 1s, aggression: 2}}}}";
    let mut warned = accepted("DestinationRule", spec);
    warned.sort();
    assert_eq!(
        warned,
        [
            "spec.subsets[0].trafficPolicy.connectionPool.tcp.maxConnectionDuration",
            "spec.trafficPolicy.loadBalancer.warmup.aggression"
        ]
    );
    let tags = "{tracing: [{customTags: {team: {literal: {value: a}}, who: {formatter: {value: '%REQ(:PATH)%'}}}}]}";
    assert_eq!(accepted("Telemetry", tags), ["spec.tracing[0].customTags.who.formatter"]);
    let unset = "{host: a, trafficPolicy: {outlierDetection: {outlierDetectionHttpErrorCodes: []}}}";
    assert_eq!(accepted("DestinationRule", unset), Vec::<String>::new());
}

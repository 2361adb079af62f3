//! AuthorizationPolicy.

use super::check::{Check, is_ip_or_block};
use crate::{Action, AuthorizationPolicy, Condition, Object, Operation, Rule, Source};

pub(super) fn check(object: &Object<AuthorizationPolicy>, check: &mut Check) {
    let spec = &object.spec;
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    let provider = spec.provider.as_ref().map(|provider| provider.name.as_str());
    match (spec.action, provider) {
        (Action::Custom, None | Some("")) => check.error("spec.provider.name", "action CUSTOM needs a provider"),
        (Action::Custom, _) | (_, None) => {}
        (action, Some(_)) => check.error("spec.provider", format!("is for action CUSTOM, not {action:?}")),
    }
    if spec.rules.is_empty() && matches!(spec.action, Action::Deny | Action::Custom) {
        check.error("spec.rules", "without rules the policy never matches; an empty rule {} takes every request");
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        self::rule(rule, spec.action, &format!("spec.rules[{index}]"), check);
    }
    let allows_nothing = spec.action == Action::Allow && spec.rules.is_empty();
    if allows_nothing && *spec != AuthorizationPolicy::default() && object.spec.selector.is_none() {
        check.warning("spec", "without rules an ALLOW policy allows nothing, so all traffic is denied");
    }
    tcp_warning(object, check);
}

fn rule(rule: &Rule, action: Action, path: &str, check: &mut Check) {
    for (index, from) in rule.from.iter().enumerate() {
        let place = format!("{path}.from[{index}].source");
        match &from.source {
            None => check.error(place, "is required"),
            Some(source) if *source == Source::default() => {
                check.error(place, "at least one field is needed; leave from out to take everyone")
            }
            Some(source) => self::source(source, action, &place, check),
        }
    }
    for (index, to) in rule.to.iter().enumerate() {
        let place = format!("{path}.to[{index}].operation");
        match &to.operation {
            None => check.error(place, "is required"),
            Some(operation) if *operation == Operation::default() => {
                check.error(place, "at least one field is needed; leave to out to take everything");
            }
            Some(operation) => self::operation(operation, &place, check),
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        self::condition(condition, action, &format!("{path}.when[{index}]"), check);
    }
}

fn source(source: &Source, action: Action, path: &str, check: &mut Check) {
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let identities = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    if accounts && identities.iter().any(|list| !list.is_empty()) {
        check.error(path, "serviceAccounts cannot stand beside principals or namespaces");
    }
    let from_identity = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    for (field, list) in from_identity {
        not_empty(list, &format!("{path}.{field}"), check);
        if action == Action::Custom && !list.is_empty() {
            check.error(format!("{path}.{field}"), "is not for action CUSTOM");
        }
    }
    for (field, list) in [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)] {
        for (index, account) in list.iter().enumerate() {
            let place = format!("{path}.{field}[{index}]");
            if account.contains('*') {
                check.error(place, "a service account takes no wildcards");
            } else if account.matches('/').count() > 1 {
                check.error(place, format!("{account:?} is not name or namespace/name"));
            }
        }
    }
    let blocks = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (field, list) in blocks {
        addresses(list, &format!("{path}.{field}"), check);
    }
}

fn operation(operation: &Operation, path: &str, check: &mut Check) {
    for (field, list) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        not_empty(list, &format!("{path}.{field}"), check);
    }
    for (field, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        ports(list, &format!("{path}.{field}"), check);
    }
    for (field, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        for (index, template) in list.iter().enumerate().filter(|(_, path)| path.contains(['{', '}'])) {
            path_template(template, &format!("{path}.{field}[{index}]"), check);
        }
    }
}

/// `{*}` is one segment, `{**}` the rest, and nothing comes after it but fixed text.
fn path_template(template: &str, path: &str, check: &mut Check) {
    let mut rest_seen = false;
    for segment in template.split('/') {
        let operator = matches!(segment, "{*}" | "{**}");
        if !operator && segment.contains(['{', '}', '*']) {
            check.error(path, format!("{segment:?} is neither fixed text, {{*}} nor {{**}}"));
        }
        if operator && rest_seen {
            check.error(path, "nothing but fixed text comes after {**}");
        }
        rest_seen |= segment == "{**}";
    }
}

fn condition(condition: &Condition, action: Action, path: &str, check: &mut Check) {
    let key = condition.key.as_str();
    if key.is_empty() {
        check.error(format!("{path}.key"), "is required");
        return;
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        check.error(path, format!("{key} needs values or notValues"));
    }
    let identity = matches!(key, "source.namespace" | "source.serviceAccount" | "source.trustDomain" | "source.principal")
        || key.starts_with("request.auth.");
    if action == Action::Custom && identity {
        check.error(format!("{path}.key"), format!("{key} is not for action CUSTOM"));
    }
    for (field, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let place = format!("{path}.{field}");
        not_empty(list, &place, check);
        match key {
            "source.ip" | "remote.ip" | "destination.ip" => addresses(list, &place, check),
            "destination.port" => ports(list, &place, check),
            _ => {}
        }
    }
    let bracketed = |prefix: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2)
    };
    let known = matches!(
        key,
        "source.ip"
            | "remote.ip"
            | "source.namespace"
            | "source.principal"
            | "source.serviceAccount"
            | "source.trustDomain"
            | "request.auth.principal"
            | "request.auth.audiences"
            | "request.auth.presenter"
            | "destination.ip"
            | "destination.port"
            | "connection.sni"
    );
    if key.starts_with("experimental.envoy.filters.") {
        check.warning(format!("{path}.key"), format!("{key} asks for Envoy's own metadata, which the proxy here has not"));
    } else if !known && !bracketed("request.headers") && !bracketed("request.auth.claims") {
        check.error(
            format!("{path}.key"),
            format!("{key:?} is not an attribute; request.headers[NAME] and request.auth.claims[NAME] have brackets"),
        );
    }
}

fn not_empty(list: &[String], path: &str, check: &mut Check) {
    for (index, _) in list.iter().enumerate().filter(|(_, value)| value.is_empty()) {
        check.error(format!("{path}[{index}]"), "a value cannot be empty");
    }
}

fn addresses(list: &[String], path: &str, check: &mut Check) {
    for (index, value) in list.iter().enumerate().filter(|(_, value)| !is_ip_or_block(value)) {
        check.error(format!("{path}[{index}]"), format!("{value:?} is not an address or a block"));
    }
}

fn ports(list: &[String], path: &str, check: &mut Check) {
    for (index, value) in list.iter().enumerate() {
        if !value.parse::<u16>().is_ok_and(|port| port > 0) {
            check.error(format!("{path}[{index}]"), format!("{value:?} is not a port"));
        }
    }
}

/// A DENY rule with attributes of requests alone denies every connection of TCP ports.
fn tcp_warning(object: &Object<AuthorizationPolicy>, check: &mut Check) {
    if object.spec.action != Action::Deny {
        return;
    }
    for (index, rule) in object.spec.rules.iter().enumerate() {
        let names_port = rule.to.iter().any(|to| to.operation.as_ref().is_some_and(|operation| !operation.ports.is_empty()));
        let http = rule.to.iter().any(|to| {
            to.operation.as_ref().is_some_and(|operation| {
                !operation.hosts.is_empty()
                    || !operation.methods.is_empty()
                    || !operation.paths.is_empty()
                    || !operation.not_hosts.is_empty()
                    || !operation.not_methods.is_empty()
                    || !operation.not_paths.is_empty()
            })
        });
        if http && !names_port {
            check.warning(
                format!("spec.rules[{index}]"),
                "connections have no HTTP attributes, so on TCP ports this rule denies more than it says; name the HTTP ports in to.operation.ports",
            );
        }
    }
}

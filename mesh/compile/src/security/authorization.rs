//! AuthorizationPolicy: who may do what.

mod attribute;

use meshlab_istio_api::{Action, AuthorizationPolicy, Object, Operation, Rule, Source};
use meshlab_proxy_config::{
    AllOf, Attribute, AttributeMatch, AuthorizerProtocol, Condition, CustomPolicy, ExternalAuthorizer, HttpAccess, Policy,
    PolicyRule, StringMatch, TcpAccess,
};

use self::attribute::{Values, host_match, is_http_only, parse_key, service_account, string_match, trust_domain_match};
use super::request;
use super::selection::select;
use crate::Problem;
use crate::cluster::cluster_name;
use crate::mesh_config::{ExtAuthz, MeshConfig};
use crate::proxy::ProxyIdentity;
use crate::registry::origin;
use crate::snapshot::Snapshot;

/// Istio's limit for one question to an authorizer.
const ASK_TIMEOUT_MS: u64 = 600_000;

/// Request-level and connection-level access control of a proxy.
pub(crate) fn access(snapshot: &Snapshot, proxy: &ProxyIdentity, problems: &mut Vec<Problem>) -> (HttpAccess, TcpAccess) {
    let sources = snapshot.sources();
    let mut http = HttpAccess { jwt: request::jwt_rules(snapshot, proxy, problems), ..Default::default() };
    let mut tcp = TcpAccess::default();
    for object in select(&sources.authorization_policies, proxy, &sources.mesh.root_namespace) {
        let place = origin("AuthorizationPolicy", &object.meta.namespace, &object.meta.name, "");
        let mut translate = |for_tcp: bool| {
            let mut translation = Translation { mesh: &sources.mesh, object, for_tcp, unknown: Vec::new() };
            let policy = translation.policy();
            if !for_tcp {
                problems.extend(translation.unknown.into_iter().map(|message| Problem::new(place.clone(), message)));
            }
            policy
        };
        let (for_http, for_tcp) = (translate(false), translate(true));
        match object.spec.action {
            Action::Allow => {
                http.allow.push(for_http);
                tcp.allow.push(for_tcp);
            }
            Action::Deny => {
                http.deny.push(for_http);
                tcp.deny.push(for_tcp);
            }
            Action::Audit => {
                http.audit.push(for_http);
                tcp.audit.push(for_tcp);
            }
            Action::Custom => {
                let name = object.spec.provider.as_ref().map_or("", |provider| provider.name.as_str());
                match authorizer(name, snapshot, &proxy.namespace) {
                    Ok(provider) => http.custom.push(CustomPolicy { policy: for_http, provider }),
                    Err(message) => {
                        // What nobody can be asked about is refused.
                        problems.push(Problem::new(place.clone(), format!("{message}; what it covers is denied")));
                        http.deny.push(for_http);
                    }
                }
                // Authorizers are asked about requests; connections that the policy covers are refused.
                tcp.deny.push(for_tcp);
            }
        }
    }
    (http, tcp)
}

fn authorizer(name: &str, snapshot: &Snapshot, namespace: &str) -> Result<ExternalAuthorizer, String> {
    let providers = &snapshot.sources().mesh.extension_providers;
    let Some(provider) = providers.iter().find(|provider| provider.name == name) else {
        let known: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
        return Err(format!("provider {name:?} is not among meshConfig.extensionProviders {known:?}"));
    };
    let (settings, protocol) = match (&provider.envoy_ext_authz_http, &provider.envoy_ext_authz_grpc) {
        (Some(settings), _) => (settings, AuthorizerProtocol::Http),
        (None, Some(settings)) => (settings, AuthorizerProtocol::Grpc),
        (None, None) => return Err(format!("provider {name:?} is no external authorizer")),
    };
    let host = provider_host(&settings.service, snapshot, namespace);
    Ok(ExternalAuthorizer {
        cluster: cluster_name(settings.port, "", &host),
        protocol,
        timeout_ms: settings.timeout.map_or(ASK_TIMEOUT_MS, |timeout| timeout.millis()),
        fail_open: settings.fail_open,
        status_on_error: settings.status_on_error.parse().unwrap_or(403),
        path_prefix: settings.path_prefix.clone(),
        include_request_headers: headers(&included(settings)),
        headers_to_upstream: headers(&settings.headers_to_upstream_on_allow),
        headers_to_downstream: headers(&settings.headers_to_downstream_on_deny),
        max_body_bytes: settings.include_request_body_in_check.as_ref().map_or(0, |body| body.max_request_bytes),
    })
}

fn included(settings: &ExtAuthz) -> Vec<String> {
    let current = &settings.include_request_headers_in_check;
    if current.is_empty() { settings.include_headers_in_check.clone() } else { current.clone() }
}

fn headers(names: &[String]) -> Vec<StringMatch> {
    names.iter().map(|name| string_match(&name.to_ascii_lowercase())).collect()
}

/// The host of a provider's service: `host`, `namespace/host`, or a short form of either.
pub(crate) fn provider_host(service: &str, snapshot: &Snapshot, namespace: &str) -> String {
    let host = service.split_once('/').map_or(service, |(_, host)| host);
    let full = format!("{host}.svc.{}", snapshot.sources().mesh.domain_suffix);
    if snapshot.service(host, namespace).is_none() && snapshot.service(&full, namespace).is_some() {
        full
    } else {
        host.to_owned()
    }
}

/// Turns one policy into what proxies look at.
struct Translation<'a> {
    mesh: &'a MeshConfig,
    object: &'a Object<AuthorizationPolicy>,
    for_tcp: bool,
    unknown: Vec<String>,
}

/// A rule that cannot hold: it asks for what a connection does not have, or for values that cannot be read.
struct HttpOnly;

impl Translation<'_> {
    fn policy(&mut self) -> Policy {
        let object = self.object;
        let rules = object.spec.rules.iter().enumerate().filter_map(|(index, rule)| self.rule(index, rule)).collect();
        Policy {
            origin: origin("AuthorizationPolicy", &object.meta.namespace, &object.meta.name, ""),
            dry_run: object.meta.annotations.get("istio.io/dry-run").is_some_and(|value| value == "true"),
            rules,
        }
    }

    /// On connections a rule that asks for attributes of requests is left out of what allows.
    fn rule(&mut self, index: usize, rule: &Rule) -> Option<PolicyRule> {
        let mut out = PolicyRule { index, ..Default::default() };
        for from in &rule.from {
            out.from.push(self.source(from.source.as_ref().unwrap_or(&Source::default())).ok()?);
        }
        for to in &rule.to {
            out.to.push(self.operation(to.operation.as_ref().unwrap_or(&Operation::default())).ok()?);
        }
        for condition in &rule.when {
            let Some((attribute, kind)) = parse_key(&condition.key) else {
                self.unknown.push(format!("spec.rules[{index}]: key {} is not known, so the rule is left out", condition.key));
                return None;
            };
            self.push(&mut out.when, attribute, kind, &condition.values, &condition.not_values).ok()?;
        }
        Some(out)
    }

    fn source(&self, source: &Source) -> Result<AllOf, HttpOnly> {
        let mut out = Vec::new();
        self.push(&mut out, Attribute::Principal, Values::Principal, &source.principals, &source.not_principals)?;
        self.push(
            &mut out,
            Attribute::RequestPrincipal,
            Values::Text,
            &source.request_principals,
            &source.not_request_principals,
        )?;
        self.push(
            &mut out,
            Attribute::ServiceAccount,
            Values::ServiceAccount,
            &source.service_accounts,
            &source.not_service_accounts,
        )?;
        self.push(&mut out, Attribute::Principal, Values::TrustDomain, &source.trust_domains, &source.not_trust_domains)?;
        self.push(&mut out, Attribute::Namespace, Values::Text, &source.namespaces, &source.not_namespaces)?;
        self.push(&mut out, Attribute::RemoteIp, Values::Ip, &source.remote_ip_blocks, &source.not_remote_ip_blocks)?;
        self.push(&mut out, Attribute::SourceIp, Values::Ip, &source.ip_blocks, &source.not_ip_blocks)?;
        Ok(out)
    }

    fn operation(&self, operation: &Operation) -> Result<AllOf, HttpOnly> {
        let mut out = Vec::new();
        self.push(&mut out, Attribute::Host, Values::Host, &operation.hosts, &operation.not_hosts)?;
        self.push(&mut out, Attribute::Method, Values::Text, &operation.methods, &operation.not_methods)?;
        self.push(&mut out, Attribute::Path, Values::Path, &operation.paths, &operation.not_paths)?;
        self.push(&mut out, Attribute::DestinationPort, Values::Port, &operation.ports, &operation.not_ports)?;
        Ok(out)
    }

    /// Adds a condition, if there is one. What a connection does not have is an error where it would allow, and is left out
    /// where it would deny, so that more is denied.
    fn push(
        &self,
        out: &mut AllOf,
        attribute: Attribute,
        kind: Values,
        values: &[String],
        not_values: &[String],
    ) -> Result<(), HttpOnly> {
        if values.is_empty() && not_values.is_empty() {
            return Ok(());
        }
        if self.for_tcp && is_http_only(&attribute) {
            return if self.object.spec.action == Action::Allow { Err(HttpOnly) } else { Ok(()) };
        }
        let translate = |list: &[String]| list.iter().flat_map(|value| self.value(kind, value)).collect::<Vec<_>>();
        let condition = Condition { attribute, values: translate(values), not_values: translate(not_values) };
        // Values that all cannot be read would otherwise match everything.
        if !values.is_empty() && condition.values.is_empty() {
            return if self.object.spec.action == Action::Allow { Err(HttpOnly) } else { Ok(()) };
        }
        out.push(condition);
        Ok(())
    }

    fn value(&self, kind: Values, value: &str) -> Vec<AttributeMatch> {
        let text = |text: &str| vec![AttributeMatch::String(string_match(text))];
        match kind {
            Values::Text => text(value),
            Values::Host => vec![AttributeMatch::String(host_match(value))],
            Values::Path if value.contains("{*}") || value.contains("{**}") => {
                vec![AttributeMatch::PathTemplate(value.to_owned())]
            }
            Values::Path => text(value),
            Values::Principal => self.with_aliases(value).iter().flat_map(|value| text(value)).collect(),
            Values::TrustDomain => {
                let domains = if self.is_own_domain(value) { self.own_domains() } else { vec![value.to_owned()] };
                domains.iter().map(|domain| AttributeMatch::String(trust_domain_match(domain))).collect()
            }
            Values::ServiceAccount => text(&service_account(value, &self.object.meta.namespace)),
            Values::Ip => attribute::ip_block(value).map(AttributeMatch::Ip).into_iter().collect(),
            Values::Port => value.parse().map(AttributeMatch::Port).into_iter().collect(),
        }
    }

    /// A principal of the mesh's own trust domain is one of its aliases' too; `cluster.local` stands for the own one.
    fn with_aliases(&self, principal: &str) -> Vec<String> {
        match principal.split_once('/') {
            Some((domain, rest)) if self.is_own_domain(domain) => {
                self.own_domains().iter().map(|domain| format!("{domain}/{rest}")).collect()
            }
            _ => vec![principal.to_owned()],
        }
    }

    fn is_own_domain(&self, domain: &str) -> bool {
        domain == "cluster.local" || self.own_domains().iter().any(|own| own == domain)
    }

    fn own_domains(&self) -> Vec<String> {
        let mut out = vec![self.mesh.trust_domain.clone()];
        out.extend(self.mesh.trust_domain_aliases.iter().cloned());
        out
    }
}

//! AuthorizationPolicy: AUDIT, DENY, ALLOW (facts 35 to 39).

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;
use meshlab_proxy_config as config;
use meshlab_proxy_config::{Attribute, AttributeMatch, Origin};
use regex::Regex;

use super::{AccessError, AccessInput, Denial, template};
use crate::matching::{MatchError, StringMatcher, any_line, header_name};
use crate::route::matcher::{claim_strings, path_of, value_strings};
use crate::tls::peer::{namespace_and_account, principal};
use crate::trail::Trail;

/// The policies of a chain.
pub(crate) struct Policies {
    audit: Vec<Policy>,
    deny: Vec<Policy>,
    allow: Vec<Policy>,
}

/// One policy.
pub(crate) struct Policy {
    origin: Origin,
    dry_run: bool,
    rules: Vec<Rule>,
}

struct Rule {
    index: usize,
    from: Vec<Vec<Condition>>,
    to: Vec<Vec<Condition>>,
    when: Vec<Condition>,
}

struct Condition {
    attribute: Subject,
    values: Vec<Value>,
    not_values: Vec<Value>,
}

enum Subject {
    Known(Attribute),
    Header(HeaderName),
}

enum Value {
    Text(StringMatcher),
    Ip(IpNet),
    Port(u16),
    Template(Regex),
}

impl Policies {
    pub(super) fn new(audit: &[config::Policy], deny: &[config::Policy], allow: &[config::Policy]) -> Result<Self, AccessError> {
        let compile = |policies: &[config::Policy]| policies.iter().map(Policy::new).collect::<Result<_, _>>();
        Ok(Self { audit: compile(audit)?, deny: compile(deny)?, allow: compile(allow)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.audit.is_empty() && self.deny.is_empty() && self.allow.is_empty()
    }

    pub(crate) fn check(&self, input: &AccessInput<'_>) -> Result<(), Denial> {
        for policy in &self.audit {
            if let Some(rule) = policy.matching_rule(input) {
                tracing::info!(policy = %policy.rule_name(rule), "audit");
            }
        }
        for policy in &self.deny {
            if let Some(rule) = policy.matching_rule(input) {
                if policy.dry_run {
                    tracing::info!(policy = %policy.rule_name(rule), "dry run: would be denied");
                    continue;
                }
                let details = format!("rbac_access_denied_matched_policy[{}]", policy.rule_name(rule));
                return Err(Denial { details: Cow::Owned(details) });
            }
        }
        let mut enforced = self.allow.iter().filter(|policy| !policy.dry_run).peekable();
        if enforced.peek().is_none() || enforced.any(|policy| policy.matching_rule(input).is_some()) {
            return Ok(());
        }
        Err(Denial { details: Cow::Borrowed("rbac_access_denied_matched_policy[none]") })
    }

    /// What each policy made of a request.
    pub(crate) fn explain(&self, input: &AccessInput<'_>, trail: &mut Trail) {
        for (action, policies) in [("AUDIT", &self.audit), ("DENY", &self.deny), ("ALLOW", &self.allow)] {
            for policy in policies {
                let verdict = match policy.matching_rule(input) {
                    Some(rule) => format!("matched rule {rule}"),
                    None if policy.rules.is_empty() => "has no rules: matches nothing".to_owned(),
                    None => policy.why_not(input),
                };
                let verdict = if policy.dry_run { format!("{verdict} (dry run)") } else { verdict };
                trail.policy(&policy.origin, action, &verdict);
            }
        }
    }
}

impl Policy {
    pub(super) fn new(policy: &config::Policy) -> Result<Self, AccessError> {
        let failed =
            |source| AccessError::Policy { namespace: policy.origin.namespace.clone(), name: policy.origin.name.clone(), source };
        let rules = policy.rules.iter().map(Rule::new).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { origin: policy.origin.clone(), dry_run: policy.dry_run, rules })
    }

    /// The index of the first rule that matches.
    pub(super) fn matching_rule(&self, input: &AccessInput<'_>) -> Option<usize> {
        self.rules.iter().find(|rule| rule.matches(input)).map(|rule| rule.index)
    }

    /// As Istio names the rules that it gives to Envoy.
    fn rule_name(&self, rule: usize) -> String {
        format!("ns[{}]-policy[{}]-rule[{rule}]", self.origin.namespace, self.origin.name)
    }

    fn why_not(&self, input: &AccessInput<'_>) -> String {
        let reasons: Vec<String> = self
            .rules
            .iter()
            .map(|rule| {
                let part = if !any_of(&rule.from, input) {
                    "from"
                } else if !any_of(&rule.to, input) {
                    "to"
                } else {
                    "when"
                };
                format!("rule {}: `{part}` does not match", rule.index)
            })
            .collect();
        reasons.join("; ")
    }
}

fn any_of(alternatives: &[Vec<Condition>], input: &AccessInput<'_>) -> bool {
    alternatives.is_empty() || alternatives.iter().any(|all| all.iter().all(|condition| condition.matches(input)))
}

impl Rule {
    fn new(config: &config::PolicyRule) -> Result<Self, MatchError> {
        let all = |conditions: &config::AllOf| conditions.iter().map(Condition::new).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            index: config.index,
            from: config.from.iter().map(all).collect::<Result<_, _>>()?,
            to: config.to.iter().map(all).collect::<Result<_, _>>()?,
            when: all(&config.when)?,
        })
    }

    fn matches(&self, input: &AccessInput<'_>) -> bool {
        any_of(&self.from, input) && any_of(&self.to, input) && self.when.iter().all(|condition| condition.matches(input))
    }
}

impl Condition {
    fn new(config: &config::Condition) -> Result<Self, MatchError> {
        let compile = |values: &[AttributeMatch]| values.iter().map(Value::new).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            attribute: match &config.attribute {
                Attribute::Header(name) => Subject::Header(header_name(name)?),
                other => Subject::Known(other.clone()),
            },
            values: compile(&config.values)?,
            not_values: compile(&config.not_values)?,
        })
    }

    fn matches(&self, input: &AccessInput<'_>) -> bool {
        (self.values.is_empty() || self.any(&self.values, input))
            && (self.not_values.is_empty() || !self.any(&self.not_values, input))
    }

    fn any(&self, values: &[Value], input: &AccessInput<'_>) -> bool {
        let text = |value: Option<&str>| value.is_some_and(|value| values.iter().any(|wanted| wanted.matches_text(value)));
        let connection = input.connection;
        let identity = connection.peer_identity();
        match &self.attribute {
            Subject::Header(name) => {
                // `*` asks that a header is there, be it empty.
                let wanted = |line: &str| {
                    values.iter().any(|value| matches!(value, Value::Text(StringMatcher::Present)) || value.matches_text(line))
                };
                input.http.is_some_and(|http| any_line(http.headers, name, wanted))
            }
            Subject::Known(attribute) => match attribute {
                Attribute::Principal => text(identity.map(principal)),
                Attribute::Namespace => text(identity.and_then(namespace_and_account).map(|(namespace, _)| namespace)),
                Attribute::ServiceAccount => {
                    let account = identity.and_then(namespace_and_account).map(|(ns, account)| format!("{ns}/{account}"));
                    text(account.as_deref())
                }
                Attribute::SourceIp => any_ip(values, connection.peer.ip()),
                Attribute::RemoteIp => any_ip(values, input.remote),
                Attribute::DestinationIp => any_ip(values, connection.local.ip()),
                Attribute::DestinationPort => {
                    let port = connection.local.port();
                    values.iter().any(|value| match value {
                        Value::Port(wanted) => *wanted == port,
                        other => other.matches_text(&port.to_string()),
                    })
                }
                Attribute::Sni => text(connection.server_name.as_deref()),
                Attribute::Method => text(input.http.map(|http| http.method.as_str())),
                Attribute::Path => text(input.http.map(|http| path_of(http.path_and_query))),
                // Compared without case, and with its port, as it came.
                Attribute::Host => input.http.is_some_and(|http| values.iter().any(|value| value.matches_host(http.authority))),
                Attribute::RequestPrincipal => {
                    let claim = |name: &str| input.claims.and_then(|claims| claims.get(name)).and_then(|value| value.as_str());
                    let principal = claim("iss").zip(claim("sub")).map(|(issuer, subject)| format!("{issuer}/{subject}"));
                    text(principal.as_deref())
                }
                Attribute::Audience => any_claim(values, input, &["aud"]),
                Attribute::Presenter => any_claim(values, input, &["azp"]),
                Attribute::Claim(path) => any_claim(values, input, path),
                // Compiled into `Subject::Header`.
                Attribute::Header(_) => false,
            },
        }
    }
}

fn any_ip(values: &[Value], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    values.iter().any(|value| match value {
        Value::Ip(block) => block.contains(&ip),
        other => other.matches_text(&ip.to_string()),
    })
}

fn any_claim<S: AsRef<str>>(values: &[Value], input: &AccessInput<'_>, path: &[S]) -> bool {
    let Some(claims) = input.claims else { return false };
    let found = path.iter().try_fold(claims, |value, key| value.get(key.as_ref()));
    let strings = |found| match path {
        [only] => claim_strings(only.as_ref(), found),
        _ => value_strings(found),
    };
    found.is_some_and(|found| strings(found).iter().any(|have| values.iter().any(|wanted| wanted.matches_text(have))))
}

impl Value {
    fn new(config: &AttributeMatch) -> Result<Self, MatchError> {
        Ok(match config {
            AttributeMatch::String(value) => Self::Text(StringMatcher::new(value)?),
            AttributeMatch::Ip(block) => Self::Ip(*block),
            AttributeMatch::Port(port) => Self::Port(*port),
            AttributeMatch::PathTemplate(path) => Self::Template(template::compile(path)?),
        })
    }

    fn matches_text(&self, text: &str) -> bool {
        match self {
            Self::Text(matcher) => matcher.matches(text),
            Self::Template(regex) => regex.is_match(text),
            Self::Ip(block) => text.parse().is_ok_and(|ip: IpAddr| block.contains(&ip)),
            Self::Port(port) => text.parse() == Ok(*port),
        }
    }

    fn matches_host(&self, host: &str) -> bool {
        match self {
            Self::Text(matcher) => matcher.matches_ignoring_case(host),
            other => other.matches_text(host),
        }
    }
}

//! Collects findings, with the checks that many kinds share.

use std::collections::BTreeMap;

use regex::Regex;

use super::Warning;
use crate::{Destination, FieldError, LabelSelector, Percent, StringMatch, TargetRef};

/// Istio's limit for an expression.
const MAX_REGEX: usize = 1024;

/// Findings so far.
#[derive(Default)]
pub(super) struct Check {
    pub(super) errors: Vec<FieldError>,
    warnings: Vec<Warning>,
}

impl Check {
    pub(super) fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(FieldError::new(path, message));
    }

    pub(super) fn warning(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Warning { path: path.into(), message: message.into() });
    }

    pub(super) fn finish(mut self) -> Result<Vec<Warning>, Vec<FieldError>> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort();
        self.errors.dedup();
        Err(self.errors)
    }

    pub(super) fn required(&mut self, path: impl Into<String>, text: &str) {
        if text.is_empty() {
            self.error(path, "is required");
        }
    }

    pub(super) fn port(&mut self, port: u32, path: impl Into<String>) {
        if !(1..=65535).contains(&port) {
            self.error(path, format!("a port is between 1 and 65535, not {port}"));
        }
    }

    pub(super) fn at_most_one(&mut self, path: &str, fields: &[(&str, bool)]) {
        let set: Vec<&str> = fields.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        if set.len() > 1 {
            self.error(path, format!("{} exclude each other", set.join(" and ")));
        }
    }

    pub(super) fn non_negative(&mut self, path: impl Into<String>, value: i32) {
        if value < 0 {
            self.error(path, format!("cannot be negative, but is {value}"));
        }
    }

    pub(super) fn regex(&mut self, expression: &str, path: impl Into<String>) {
        let path = path.into();
        if expression.is_empty() {
            self.error(path, "an expression cannot be empty");
        } else if expression.len() > MAX_REGEX {
            self.error(path, format!("an expression has at most {MAX_REGEX} characters, this one {}", expression.len()));
        } else if let Err(error) = Regex::new(expression) {
            let reason = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            self.error(
                path,
                format!("{expression:?} is not an RE2 expression ({reason}); * alone is none, .* matches everything"),
            );
        }
    }

    /// A string match whose prefix and expression must say something.
    pub(super) fn string_match(&mut self, wanted: &StringMatch, path: &str) {
        self.string_match_form(wanted, path);
        if wanted.prefix.as_deref() == Some("") {
            self.error(format!("{path}.prefix"), "cannot be empty");
        }
    }

    /// The same, with an empty prefix allowed.
    pub(super) fn string_match_form(&mut self, wanted: &StringMatch, path: &str) {
        self.at_most_one(
            path,
            &[("exact", wanted.exact.is_some()), ("prefix", wanted.prefix.is_some()), ("regex", wanted.regex.is_some())],
        );
        if let Some(expression) = &wanted.regex {
            self.regex(expression, format!("{path}.regex"));
        }
    }

    pub(super) fn percentage(&mut self, percentage: Option<Percent>, path: impl Into<String>) {
        if let Some(Percent { value }) = percentage
            && value != 0.0
            && !(0.0001..=100.0).contains(&value)
        {
            self.error(path, format!("a percentage is 0 or from 0.0001 to 100, not {value}"));
        }
    }

    pub(super) fn selector(&mut self, selector: Option<&LabelSelector>, path: &str) {
        if let Some(selector) = selector {
            self.selector_labels(&selector.match_labels, &format!("{path}.matchLabels"));
        }
    }

    /// Labels that workloads are selected by.
    pub(super) fn selector_labels(&mut self, labels: &BTreeMap<String, String>, path: &str) {
        if labels.is_empty() {
            self.warning(path, "a selector without labels takes every workload");
        }
        for (key, value) in labels {
            if key.is_empty() {
                self.error(path, "a label key cannot be empty");
            }
            if key.contains('*') || value.contains('*') {
                self.error(format!("{path}[{key}]"), format!("a selector takes no wildcards, as in {key}={value}"));
            }
            if value.len() > 63 {
                self.error(format!("{path}[{key}]"), "a label value has at most 63 characters");
            }
        }
    }

    /// Labels of workloads.
    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>, path: &str) {
        for (key, value) in labels {
            if !is_label_key(key) {
                self.error(format!("{path}[{key}]"), format!("{key:?} is not a label key"));
            }
            if !is_label_value(value) {
                self.error(format!("{path}[{key}]"), format!("{value:?} is not a label value"));
            }
        }
    }

    /// One way of naming the targets of a policy.
    pub(super) fn targets(&mut self, selector: Option<&LabelSelector>, one: Option<&TargetRef>, several: &[TargetRef]) {
        self.selector(selector, "spec.selector");
        let fields = [("selector", selector.is_some()), ("targetRef", one.is_some()), ("targetRefs", !several.is_empty())];
        self.at_most_one("spec", &fields);
        let several = several.iter().enumerate().map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
        let all: Vec<(String, &TargetRef)> =
            one.map(|target| ("spec.targetRef".to_owned(), target)).into_iter().chain(several).collect();
        for (path, target) in all {
            self.required(format!("{path}.name"), &target.name);
            self.required(format!("{path}.kind"), &target.kind);
            if !target.namespace.is_empty() {
                self.error(format!("{path}.namespace"), "a target in another namespace cannot be referred to");
            }
            let known = [
                ("", "Service"),
                ("gateway.networking.k8s.io", "Gateway"),
                ("gateway.networking.k8s.io", "GatewayClass"),
                ("networking.istio.io", "ServiceEntry"),
            ];
            let group = if target.group == "core" { "" } else { target.group.as_str() };
            if !target.kind.is_empty() && !known.contains(&(group, target.kind.as_str())) {
                self.error(
                    &path,
                    format!("a target is a Service, Gateway, GatewayClass or ServiceEntry, not {}/{}", target.group, target.kind),
                );
            }
        }
    }

    pub(super) fn destination(&mut self, destination: &Destination, path: &str) {
        let host = &destination.host;
        if host.is_empty() {
            self.error(format!("{path}.host"), "is required");
        } else if host == "*" || !is_wildcard_host(host) {
            self.error(format!("{path}.host"), format!("{host:?} is not a host name"));
        }
        if !destination.subset.is_empty() && !is_subset_name(&destination.subset) {
            self.error(
                format!("{path}.subset"),
                format!("{:?} is not a subset name: letters, digits, dashes and dots", destination.subset),
            );
        }
        if let Some(port) = destination.port {
            self.port(port.number, format!("{path}.port.number"));
        }
    }

    /// `.`, `*`, `~` and namespace names.
    pub(super) fn export_to(&mut self, export_to: &[String], namespace: &str, service_entry: bool) {
        let path = "spec.exportTo";
        for (index, entry) in export_to.iter().enumerate() {
            if !matches!(entry.as_str(), "." | "*" | "~") && !is_dns_label(entry) {
                self.error(format!("{path}[{index}]"), format!("{entry:?} is not ., *, ~ or a namespace"));
            }
            let same =
                |other: &String| other == entry || (other == "." && entry == namespace) || (entry == "." && other == namespace);
            if export_to[..index].iter().any(same) {
                self.error(format!("{path}[{index}]"), format!("{entry:?} stands here twice"));
            }
        }
        let has = |wanted: &str| export_to.iter().any(|entry| entry == wanted);
        if has("*") && export_to.len() > 1 {
            self.error(path, "* stands for every namespace, so nothing else can stand beside it");
        }
        if service_entry && has("~") && export_to.len() > 1 {
            self.error(path, "~ stands for no namespace, so nothing else can stand beside it");
        }
    }
}

/// A label of a DNS name.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A host name without wildcard. Labels may have capital letters and underscores, as Istio lets them.
pub(super) fn is_fqdn(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && (ends(label.chars().next()) || label.starts_with('_'))
            && ends(label.chars().last())
    };
    !text.is_empty() && text.len() <= 255 && text.split('.').all(label)
}

/// A host name, possibly with `*` before it.
pub(super) fn is_wildcard_host(text: &str) -> bool {
    match text.strip_prefix('*') {
        None => is_fqdn(text),
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').or(rest.strip_prefix('-')).is_some_and(is_fqdn),
    }
}

pub(super) fn is_ip_or_block(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok()
}

fn is_subset_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                && ends(part.chars().next())
                && ends(part.chars().last())
        })
}

fn is_label_key(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && ends(value.chars().next())
        && ends(value.chars().last())
}

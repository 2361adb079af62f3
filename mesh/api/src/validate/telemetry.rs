//! Telemetry.

use super::check::Check;
use crate::{Object, ProviderRef, TagOperation, Telemetry};

pub(super) fn check(object: &Object<Telemetry>, check: &mut Check) {
    let spec = &object.spec;
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.tracing.len() > 1 {
        check.warning("spec.tracing", "several entries are merged, a later one over an earlier");
    }
    for (index, tracing) in spec.tracing.iter().enumerate() {
        let path = format!("spec.tracing[{index}]");
        providers(&tracing.providers, &path, check);
        if tracing.providers.len() > 1 {
            check.warning(format!("{path}.providers"), "only the first is used");
        }
        if tracing.random_sampling_percentage.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            check.error(format!("{path}.randomSamplingPercentage"), "a percentage is between 0 and 100");
        }
        for (name, tag) in &tracing.custom_tags {
            let place = format!("{path}.customTags[{name}]");
            if name.is_empty() {
                check.error(&place, "a tag needs a name");
            }
            let forms = [
                ("literal", tag.literal.is_some()),
                ("environment", tag.environment.is_some()),
                ("header", tag.header.is_some()),
                ("formatter", tag.formatter.is_some()),
            ];
            check.at_most_one(&place, &forms);
            if forms.iter().all(|(_, set)| !set) {
                check.error(&place, "one of literal, environment, header and formatter is needed");
            }
            for (field, text) in [
                ("literal.value", tag.literal.as_ref().map(|tag| &tag.value)),
                ("formatter.value", tag.formatter.as_ref().map(|tag| &tag.value)),
                ("environment.name", tag.environment.as_ref().map(|tag| &tag.name)),
                ("header.name", tag.header.as_ref().map(|tag| &tag.name)),
            ] {
                if text.is_some_and(String::is_empty) {
                    check.error(format!("{place}.{field}"), "cannot be empty");
                }
            }
        }
    }
    for (index, metrics) in spec.metrics.iter().enumerate() {
        let path = format!("spec.metrics[{index}]");
        providers(&metrics.providers, &path, check);
        for (index, change) in metrics.overrides.iter().enumerate() {
            let place = format!("{path}.overrides[{index}]");
            if let Some(selector) = &change.r#match {
                check.at_most_one(
                    &format!("{place}.match"),
                    &[("metric", selector.metric.is_some()), ("customMetric", selector.custom_metric.is_some())],
                );
                if selector.custom_metric.as_deref() == Some("") {
                    check.error(format!("{place}.match.customMetric"), "cannot be empty");
                }
            }
            for (tag, change) in &change.tag_overrides {
                let place = format!("{place}.tagOverrides[{tag}].value");
                match change.operation {
                    TagOperation::Upsert => check.required(place, &change.value),
                    TagOperation::Remove if !change.value.is_empty() => check.error(place, "is for operation UPSERT"),
                    TagOperation::Remove => {}
                }
            }
        }
    }
    for (index, logging) in spec.access_logging.iter().enumerate() {
        providers(&logging.providers, &format!("spec.accessLogging[{index}]"), check);
    }
}

fn providers(providers: &[ProviderRef], path: &str, check: &mut Check) {
    for (index, provider) in providers.iter().enumerate() {
        check.required(format!("{path}.providers[{index}].name"), &provider.name);
    }
}

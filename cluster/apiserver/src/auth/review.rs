//! The reviews: questions about who somebody is and what somebody may do, asked by creating an object that is not stored.

use http::StatusCode;
use meshlab_objects::{Reason, Status};
use serde_json::{Value, json};

use super::rbac::Rule;
use super::{Action, UserInfo};
use crate::http::{Response, yaml_or_json};
use crate::rest::{Call, meta};

/// Whether creating this asks a question.
pub(crate) fn is_review(group: &str, resource: &str) -> bool {
    match group {
        "authentication.k8s.io" => matches!(resource, "tokenreviews" | "selfsubjectreviews"),
        "authorization.k8s.io" => matches!(
            resource,
            "subjectaccessreviews" | "selfsubjectaccessreviews" | "localsubjectaccessreviews" | "selfsubjectrulesreviews"
        ),
        _ => false,
    }
}

/// Answers a review.
pub(crate) async fn review(call: &Call, verb: &str, body: crate::http::Body) -> Result<Response, Status> {
    if verb != "create" {
        return Err(Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource"));
    }
    let mut review = call.decode_object(body).await?.value;
    meta::check_kind(&mut review, &call.served.definition.kind_in(&call.path.version))?;
    let spec = review["spec"].clone();
    let status = match call.path.resource.as_str() {
        "selfsubjectreviews" => json!({"userInfo": call.user.to_value()}),
        "tokenreviews" => token_review(call, &spec)?,
        "selfsubjectrulesreviews" => rules_review(call, &spec)?,
        "selfsubjectaccessreviews" => access_review(call, &call.user, &spec, "")?,
        "localsubjectaccessreviews" => access_review(call, &subject(&spec)?, &spec, call.namespace())?,
        _ => access_review(call, &subject(&spec)?, &spec, "")?,
    };
    review["status"] = status;
    let metadata = meta::metadata_mut(&mut review)?;
    if call.path.resource == "selfsubjectreviews" {
        metadata.insert("creationTimestamp".into(), json!(meta::rfc3339(jiff::Timestamp::now())));
    }
    Ok(yaml_or_json(StatusCode::CREATED, call.accept, &review))
}

fn token_review(call: &Call, spec: &Value) -> Result<Value, Status> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let audiences: Vec<String> = audiences.map(str::to_owned).collect();
    if let Some(user) = call.api.static_tokens.get(token) {
        return Ok(json!({"authenticated": true, "user": user.to_value()}));
    }
    Ok(match call.api.tokens.verify(token, &audiences, &call.api.store) {
        Ok(verified) => json!({"authenticated": true, "user": verified.user.to_value(), "audiences": verified.audiences}),
        Err(error) => json!({"error": error.to_string(), "user": {}}),
    })
}

fn subject(spec: &Value) -> Result<UserInfo, Status> {
    let texts =
        |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let name = spec["user"].as_str().unwrap_or_default().to_owned();
    let groups = texts(&spec["groups"]);
    if name.is_empty() && groups.is_empty() {
        return Err(Status::bad_request("at least one of user or group must be specified"));
    }
    let extra = spec["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), texts(values))).collect();
    Ok(UserInfo { name, uid: spec["uid"].as_str().unwrap_or_default().to_owned(), groups, extra })
}

fn access_review(call: &Call, user: &UserInfo, spec: &Value, namespace: &str) -> Result<Value, Status> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = &spec["resourceAttributes"];
    let other = &spec["nonResourceAttributes"];
    let action = match (resource.is_object(), other.is_object()) {
        (true, false) => Action {
            verb: text(&resource["verb"]),
            group: text(&resource["group"]),
            version: text(&resource["version"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            namespace: text(&resource["namespace"]),
            name: text(&resource["name"]),
            path: None,
        },
        (false, true) => Action { verb: text(&other["verb"]), path: Some(text(&other["path"])), ..Action::default() },
        _ => return Err(Status::bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")),
    };
    if !namespace.is_empty() && action.namespace != namespace {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace: must match metadata.namespace: {namespace}"
        )));
    }
    let decision = call.api.authorizer.decide(&call.api.store, user, &action);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    Ok(status)
}

fn rules_review(call: &Call, spec: &Value) -> Result<Value, Status> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = call.api.authorizer.rules(&call.api.store, &call.user, namespace);
    let (other, resource): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| !rule.urls.is_empty());
    let resource: Vec<Value> = resource
        .into_iter()
        .map(|rule| {
            let mut value = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                value["resourceNames"] = json!(rule.names);
            }
            value
        })
        .collect();
    let other: Vec<Value> = other.into_iter().map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls})).collect();
    Ok(json!({"resourceRules": resource, "nonResourceRules": other, "incomplete": false}))
}

//! Admission webhooks: which of them a request concerns, and what becomes of their answers.

mod condition;
mod configuration;
mod dispatch;
mod review;

use std::sync::Arc;

use futures::future::join_all;
use meshlab_objects::schema::Schema;
use meshlab_objects::{Reason, Status, patch};
use serde_json::Value;

use super::Attributes;
use crate::api::Api;
use crate::rest::to_version;
use condition::Conditions;
use configuration::{FailurePolicy, Phase, SideEffects, Webhook};
use review::{Answer, Review};

/// Calls webhooks.
#[derive(Default)]
pub(crate) struct Webhooks {
    conditions: Conditions,
}

/// What a call came to.
enum Verdict {
    /// The webhook is not concerned, or could not be asked and does not insist.
    Skipped,
    /// It has answered.
    Answered(Answer),
}

impl Webhooks {
    /// Mutating webhooks, one after the other, in the order of their names.
    pub(super) async fn mutate(
        &self,
        api: &Api,
        attributes: &mut Attributes,
        object: &mut Value,
        schema: &Schema,
    ) -> Result<(), Status> {
        let webhooks = configuration::load(api, attributes, Phase::Mutating)?;
        if webhooks.is_empty() {
            return Ok(());
        }
        // For each webhook, whether the object has changed since it was asked.
        let mut stale = vec![false; webhooks.len()];
        for (index, webhook) in webhooks.iter().enumerate() {
            if self.mutate_by(api, webhook, attributes, object, schema).await? {
                stale[..index].fill(true);
            }
        }
        for (index, webhook) in webhooks.iter().enumerate() {
            if stale[index] && webhook.reinvocation_if_needed {
                self.mutate_by(api, webhook, attributes, object, schema).await?;
            }
        }
        Ok(())
    }

    /// Asks one mutating webhook; true if it has changed the object.
    async fn mutate_by(
        &self,
        api: &Api,
        webhook: &Webhook,
        attributes: &mut Attributes,
        object: &mut Value,
        schema: &Schema,
    ) -> Result<bool, Status> {
        let Verdict::Answered(answer) = self.ask(api, webhook, attributes, object).await? else { return Ok(false) };
        attributes.warnings.extend(answer.warnings.clone());
        answer.check(&webhook.name)?;
        let Some(operations) = &answer.patch else { return Ok(false) };
        let failed = |why: &dyn std::fmt::Display| {
            Status::internal(format!("webhook {:?} sent a patch that cannot be applied: {why}", webhook.name))
        };
        // The patch is for the version that the webhook was sent.
        let definition = &attributes.served.definition;
        let seen = to_version(object, definition, &webhook.version).into_owned();
        let patched = patch::json_patch(&seen, operations).map_err(|status| failed(&status.message))?;
        if !patched.is_object() {
            return Err(failed(&"the result is not an object"));
        }
        let mut patched = to_version(&patched, definition, &attributes.version).into_owned();
        schema.prune(&mut patched);
        schema.apply_defaults(&mut patched);
        let changed = *object != patched;
        *object = patched;
        Ok(changed)
    }

    /// Validating webhooks, all at once.
    pub(super) async fn validate(&self, api: &Api, attributes: &mut Attributes, object: &Value) -> Result<(), Status> {
        let webhooks = configuration::load(api, attributes, Phase::Validating)?;
        if webhooks.is_empty() {
            return Ok(());
        }
        let shared: &Attributes = attributes;
        let mut calls = Vec::with_capacity(webhooks.len());
        for webhook in &webhooks {
            calls.push(self.ask(api, webhook, shared, object));
        }
        let verdicts = join_all(calls).await;
        for (webhook, verdict) in webhooks.iter().zip(verdicts) {
            if let Verdict::Answered(answer) = verdict? {
                attributes.warnings.extend(answer.warnings.clone());
                answer.check(&webhook.name)?;
            }
        }
        Ok(())
    }

    async fn ask(&self, api: &Api, webhook: &Webhook, attributes: &Attributes, object: &Value) -> Result<Verdict, Status> {
        if !webhook.selects(attributes, object) {
            return Ok(Verdict::Skipped);
        }
        match self.conditions.hold(webhook, attributes, object) {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::Skipped),
            Err(error) if webhook.failure_policy == FailurePolicy::Ignore => {
                tracing::warn!(webhook = webhook.name, %error, "match condition failed; the webhook is not called");
                return Ok(Verdict::Skipped);
            }
            Err(error) => {
                let definition = &attributes.served.definition;
                let why = format!("admission webhook {:?}: {error}", webhook.name);
                return Err(crate::auth::forbidden(&definition.group, &definition.plural, attributes.key.name(), &why));
            }
        }
        if attributes.dry_run && webhook.side_effects == SideEffects::Some {
            let message = format!("admission webhook {:?} does not support dry run", webhook.name);
            return Err(Status::new(Reason::BadRequest, message));
        }
        let review = Review::new(webhook, attributes, object);
        match dispatch::call(api, webhook, &review).await.and_then(|body| review.read(&body)) {
            Ok(answer) => Ok(Verdict::Answered(answer)),
            Err(error) if webhook.failure_policy == FailurePolicy::Ignore => {
                tracing::warn!(webhook = webhook.name, %error, "failed calling webhook, failing open");
                Ok(Verdict::Skipped)
            }
            Err(error) => Err(Status::internal(format!("failed calling webhook {:?}: {error}", webhook.name))),
        }
    }
}

/// Shared by the calls of one request.
type SharedWebhooks = Vec<Arc<Webhook>>;

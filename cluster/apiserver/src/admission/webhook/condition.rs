//! `matchConditions`: CEL expressions over a request.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::{Context, Program, Value as CelValue};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::Attributes;
use super::configuration::Webhook;
use super::review;

/// Compiled expressions kept; a cluster has a handful.
const CAPACITY: usize = 256;

/// Why a condition has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConditionError {
    #[error("match condition {name:?} does not compile: {why}")]
    Compile { name: String, why: String },
    #[error("match condition {name:?} cannot be evaluated: {why}")]
    Evaluate { name: String, why: String },
}

/// Evaluates conditions.
#[derive(Default)]
pub(super) struct Conditions {
    programs: Mutex<HashMap<String, Arc<Program>>>,
}

impl Conditions {
    /// Whether all conditions of a webhook hold. One that is false decides, whatever errors the others end in.
    pub(super) fn hold(&self, webhook: &Webhook, attributes: &Attributes, object: &Value) -> Result<bool, ConditionError> {
        if webhook.conditions.is_empty() {
            return Ok(true);
        }
        let mut context = Context::default().with_all();
        let request = review::request(webhook, attributes, "");
        let or_null = |value: &Value| if value.is_object() { value.clone() } else { Value::Null };
        let variables =
            [("object", or_null(object)), ("oldObject", attributes.old.clone().unwrap_or(Value::Null)), ("request", request)];
        for (name, value) in variables {
            context.add_variable(name, value).map_err(|error| evaluation(name, &error))?;
        }
        context.add_variable("params", json!(null)).map_err(|error| evaluation("params", &error))?;
        let mut failure = None;
        for (name, expression) in &webhook.conditions {
            match self.program(name, expression).and_then(|program| evaluate(name, &program, &context)) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(true), Err)
    }

    fn program(&self, name: &str, expression: &str) -> Result<Arc<Program>, ConditionError> {
        if let Some(program) = self.programs.lock().get(expression) {
            return Ok(program.clone());
        }
        let compiled = Program::compile(expression);
        let compiled = compiled.map_err(|error| ConditionError::Compile { name: name.to_owned(), why: error.to_string() })?;
        let program = Arc::new(compiled);
        let mut programs = self.programs.lock();
        if programs.len() >= CAPACITY {
            programs.clear();
        }
        programs.insert(expression.to_owned(), program.clone());
        Ok(program)
    }
}

fn evaluation(name: &str, why: &dyn std::fmt::Display) -> ConditionError {
    ConditionError::Evaluate { name: name.to_owned(), why: why.to_string() }
}

fn evaluate(name: &str, program: &Program, context: &Context<'_>) -> Result<bool, ConditionError> {
    match program.execute(context) {
        Ok(CelValue::Bool(holds)) => Ok(holds),
        Ok(_) => Err(evaluation(name, &"the result is not a bool")),
        Err(error) => Err(evaluation(name, &error)),
    }
}

//! Admission webhooks.

use meshlab_objects::Status;
use meshlab_objects::schema::Schema;
use serde_json::Value;

use super::Attributes;
use crate::api::Api;

/// Calls webhooks.
#[derive(Default)]
pub(crate) struct Webhooks {}

impl Webhooks {
    /// Mutating webhooks.
    pub(super) async fn mutate(
        &self,
        _api: &Api,
        _attributes: &mut Attributes,
        _object: &mut Value,
        _schema: &Schema,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Validating webhooks.
    pub(super) async fn validate(&self, _api: &Api, _attributes: &mut Attributes, _object: &Value) -> Result<(), Status> {
        Ok(())
    }
}

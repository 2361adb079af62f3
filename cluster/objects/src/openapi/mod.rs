//! OpenAPI v3 documents.

use serde_json::Value;

use crate::resource::ResourceDefinition;

/// A kind to publish in a group version's document.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// How it is served.
    pub definition: &'a ResourceDefinition,
    /// A CRD's `openAPIV3Schema` of this version; `None` for a built-in kind.
    pub crd_schema: Option<&'a Value>,
}

/// The document of one group version, as JSON.
pub fn document(group: &str, version: &str, kinds: &[Published<'_>]) -> Vec<u8> {
    todo!("{group}{version}{kinds:?}")
}

/// The hash of a document, as it stands in the root's URLs and in the ETag: upper-case SHA-512 in hexadecimal.
pub fn hash(document: &[u8]) -> String {
    todo!("{document:?}")
}

/// The root, `/openapi/v3`: a path per group version (`api/v1`, `apis/apps/v1`) with its hashed URL.
pub fn root<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Value {
    // (group, version, hash)
    todo!("{}", documents.into_iter().count())
}

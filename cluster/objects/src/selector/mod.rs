//! Label selectors and field selectors.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;

/// As long as a selector's text may be.
const MAX_LENGTH: usize = 64 * 1024;

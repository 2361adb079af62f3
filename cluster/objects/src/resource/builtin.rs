//! The table of built-in kinds.

use super::ResourceDefinition;

/// Every built-in kind, groups in the order discovery lists them. The first call builds the table.
pub fn builtin() -> &'static [ResourceDefinition] {
    todo!()
}

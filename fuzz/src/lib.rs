//! What several fuzz targets share.

pub mod api_server;
pub mod proxy;
pub mod upgraded;

use serde_json::Value;

/// Two JSON values, one behind the other; nothing if the input is not that.
pub fn two_json(input: &[u8]) -> Option<(Value, Value)> {
    let mut values = serde_json::Deserializer::from_slice(input).into_iter::<Value>();
    let first = values.next()?.ok()?;
    Some((first, values.next()?.ok()?))
}

//! Kubernetes' protobuf bodies: `k8s\0`, a `runtime.Unknown`, and in it a message whose fields stand in [`crate::schema`]'s table.
//!
//! Clients only ever send it; answers are JSON. Go writes fields that are no pointers even where they are empty, and its JSON
//! leaves them out again, so this decoder does too.

use prost::{
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint},
};
use serde_json::{Map, Value, json};

use crate::{
    resource::GroupVersionKind,
    schema::facts::{FieldFacts, Shape, type_facts},
};

/// What a Kubernetes protobuf body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
const MAX_DEPTH: usize = 100;

/// Why a body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first four bytes are others.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes are no protobuf.
    #[error("malformed protobuf: {0}")]
    Malformed(String),
    /// A kind this server has no message for.
    #[error("no protobuf message is known for {kind} in version {api_version:?}; send it as JSON")]
    UnknownKind {
        /// `apiVersion`
        api_version: String,
        /// `kind`
        kind: String,
    },
    /// The raw bytes are encoded again.
    #[error("unsupported content {0:?} inside of a protobuf body")]
    Content(String),
    /// Messages within messages without end.
    #[error("protobuf message nests deeper than {MAX_DEPTH}")]
    Depth,
}

impl From<prost::DecodeError> for Error {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Decodes a body to the object JSON would have said.
///
/// # Errors
/// See [`Error`].
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let unknown = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let (mut api_version, mut kind, mut raw): (String, String, &[u8]) = (String::new(), String::new(), &[]);
    for field in Fields(unknown) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3 | 4, Wire::Bytes(content)) if !content.is_empty() => return Err(Error::Content(utf8(content)?)),
            _ => {}
        }
    }
    let unknown_kind = || Error::UnknownKind { api_version: api_version.clone(), kind: kind.clone() };
    let gvk = GroupVersionKind::parse(&api_version, &kind).ok_or_else(unknown_kind)?;
    let type_name = type_name(&gvk).ok_or_else(unknown_kind)?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    message(&type_name, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

/// The message of a kind. Options such as `DeleteOptions` go by the version of the group they are sent to.
fn type_name(gvk: &GroupVersionKind) -> Option<String> {
    let meta = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{}", gvk.kind);
    let name = match gvk.group.split('.').next().unwrap_or_default() {
        _ if gvk.kind.ends_with("Options") && type_facts(&meta).is_some() => meta,
        "" => format!("io.k8s.api.core.{}.{}", gvk.version, gvk.kind),
        "meta" => meta,
        "apiextensions" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{}.{}", gvk.version, gvk.kind)
        }
        package => format!("io.k8s.api.{package}.{}.{}", gvk.version, gvk.kind),
    };
    type_facts(&name).is_some().then_some(name)
}

/// A field's bytes or number.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, as they stand on the wire.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Wire<'a>), Error> {
        let (number, wire_type) = decode_key(&mut self.0)?;
        let too_short = || Error::Malformed("unexpected end".to_owned());
        let wire = match wire_type {
            WireType::Varint => Wire::Varint(decode_varint(&mut self.0)?),
            WireType::ThirtyTwoBit if self.0.len() >= 4 => Wire::Fixed(self.0.get_u32_le().into()),
            WireType::SixtyFourBit if self.0.len() >= 8 => Wire::Fixed(self.0.get_u64_le()),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut self.0)?).map_err(|_| too_short())?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(too_short)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            WireType::ThirtyTwoBit | WireType::SixtyFourBit => return Err(too_short()),
            WireType::StartGroup | WireType::EndGroup => return Err(Error::Malformed("groups are not supported".to_owned())),
        };
        Ok((number, wire))
    }
}

/// Adds the fields of a message to an object.
fn message(type_name: &str, bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let Some(facts) = type_facts(type_name) else { return Ok(()) };
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let Some(field) = facts.fields.iter().find(|field| field.number == number) else { continue };
        if field.name.is_empty() {
            if let Wire::Bytes(bytes) = wire {
                message(field.target, bytes, object, depth + 1)?;
            }
            continue;
        }
        match field.shape {
            Shape::One => {
                if let Some(value) = single(field, wire, depth)? {
                    object.insert(field.name.to_owned(), value);
                }
            }
            Shape::List => {
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                if let Value::Array(items) = list {
                    items.extend(repeated(field.target, wire, depth)?);
                }
            }
            Shape::Map => {
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                if let (Value::Object(map), Wire::Bytes(entry)) = (map, wire) {
                    let (key, value) = map_entry(field.target, entry, depth)?;
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

/// Strings that Go keeps as pointers, so that an empty one says something.
const POINTERS_TO_STRINGS: &[&str] = &["storageClassName", "volumeAttributesClassName", "reportingController"];

/// Numbers and booleans that Go keeps as values, so that zero and false are what was left out. All others are pointers, whose
/// zero was meant: `replicas`, `runAsUser`, `gracePeriodSeconds`, ….
const VALUES: &[&str] = &[
    "active",
    "attachRequired",
    "availableReplicas",
    "count",
    "currentNumberScheduled",
    "currentReplicas",
    "denied",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "failed",
    "failureThreshold",
    "fullyLabeledReplicas",
    "generation",
    "globalDefault",
    "healthCheckNodePort",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "nullable",
    "numberAvailable",
    "numberUnavailable",
    "observedGeneration",
    "paused",
    "periodSeconds",
    "priority",
    "publishNotReadyAddresses",
    "readOnly",
    "readyReplicas",
    "restartCount",
    "revision",
    "stderr",
    "stdin",
    "stdinOnce",
    "stdout",
    "succeeded",
    "successThreshold",
    "timeoutSeconds",
    "tty",
    "uniqueItems",
    "unavailableReplicas",
    "unschedulable",
    "updatedNumberScheduled",
    "updatedReplicas",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
];

/// A field that stands once; `None` where Go's JSON leaves it out.
fn single(field: &FieldFacts, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, Error> {
    let value = value(field.target, wire, depth)?;
    let left_out = match &value {
        Value::Null => true,
        Value::String(text) if text.is_empty() => field.target == "string" && !POINTERS_TO_STRINGS.contains(&field.name),
        Value::Number(number) => number.as_f64() == Some(0.0) && VALUES.contains(&field.name),
        Value::Bool(false) => VALUES.contains(&field.name),
        _ => false,
    };
    Ok((!left_out).then_some(value))
}

/// One value of a list, or several where numbers are packed.
fn repeated(target: &str, wire: Wire<'_>, depth: usize) -> Result<Vec<Value>, Error> {
    match (target, wire) {
        ("int32" | "int64" | "uint32" | "uint64" | "bool", Wire::Bytes(mut packed)) => {
            let mut values = Vec::new();
            while !packed.is_empty() {
                values.push(value(target, Wire::Varint(decode_varint(&mut packed)?), depth)?);
            }
            Ok(values)
        }
        _ => Ok(vec![value(target, wire, depth)?]),
    }
}

fn map_entry(target: &str, entry: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut content) = (String::new(), None);
    for field in Fields(entry) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => content = Some(value(target, wire, depth)?),
            _ => {}
        }
    }
    // An empty value is left out on the wire.
    let content = match content {
        Some(content) => content,
        None => value(target, Wire::Bytes(&[]), depth)?,
    };
    Ok((key, content))
}

/// A value of a scalar type or of a message.
fn value(target: &str, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    let value = match (target, wire) {
        ("string", Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        ("bytes", Wire::Bytes(bytes)) => base64(bytes).into(),
        ("bool", Wire::Varint(number)) => (number != 0).into(),
        ("int32", Wire::Varint(number)) => (number as i32).into(),
        ("int64", Wire::Varint(number)) => (number as i64).into(),
        ("uint32" | "uint64", Wire::Varint(number)) => number.into(),
        ("double", Wire::Fixed(bits)) => float(f64::from_bits(bits)),
        (message_type, Wire::Bytes(bytes)) if message_type.contains('.') => message_value(message_type, bytes, depth + 1)?,
        _ => return Err(Error::Malformed(format!("wrong wire type for {target}"))),
    };
    Ok(value)
}

fn float(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { (number as i64).into() } else { number.into() }
}

/// Messages that JSON writes in a way of their own, and all others as objects.
fn message_value(type_name: &str, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut object = Map::new();
    message(type_name, bytes, &mut object, depth)?;
    let mut take = |name: &str| object.remove(name).unwrap_or_default();
    let value = match type_name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => Some(take("string")),
        "Time" => Some(time(&object, bytes, 0)?),
        "MicroTime" => Some(time(&object, bytes, 6)?),
        "IntOrString" => Some(match take("type").as_i64() {
            Some(1) => Value::String(take("strVal").as_str().unwrap_or_default().to_owned()),
            _ => take("intVal").as_i64().unwrap_or_default().into(),
        }),
        "ExtraValue" | "Verbs" => Some(match take("items") {
            Value::Null => json!([]),
            items => items,
        }),
        "RawExtension" | "FieldsV1" | "JSON" => Some(raw(bytes)?),
        "JSONSchemaPropsOrBool" => Some(match take("schema") {
            Value::Null => take("allows"),
            schema => schema,
        }),
        "JSONSchemaPropsOrArray" => Some(first_stated(take("schema"), || take("jSonSchemas"))),
        "JSONSchemaPropsOrStringArray" => Some(first_stated(take("schema"), || take("property"))),
        _ => None,
    };
    Ok(value.unwrap_or(Value::Object(object)))
}

fn first_stated(value: Value, other: impl FnOnce() -> Value) -> Value {
    if value.is_null() { other() } else { value }
}

/// `Time` and `MicroTime`; the zero time is an empty message and null in JSON.
fn time(fields: &Map<String, Value>, bytes: &[u8], precision: u8) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |name: &str| fields.get(name).and_then(Value::as_i64).unwrap_or_default();
    let nanos = i32::try_from(number("nanos")).unwrap_or_default();
    let timestamp = jiff::Timestamp::new(number("seconds"), nanos).map_err(|error| Error::Malformed(error.to_string()))?;
    Ok(if precision == 0 {
        format!("{:.0}", timestamp.round(jiff::Unit::Second).unwrap_or(timestamp))
    } else {
        format!("{timestamp:.6}")
    }
    .into())
}

/// JSON inside of a message; an object may also be protobuf again.
fn raw(message: &[u8]) -> Result<Value, Error> {
    for field in Fields(message) {
        if let (1, Wire::Bytes(bytes)) = field? {
            if bytes.starts_with(MAGIC) {
                return decode(bytes);
            }
            return serde_json::from_slice(bytes).map_err(|error| Error::Malformed(error.to_string()));
        }
    }
    Ok(Value::Null)
}

fn utf8(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Malformed("a string is not UTF-8".to_owned()))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

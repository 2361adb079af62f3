//! Spans as they are kept: bytes, in which a text that many spans share is a number. A proxy's span takes about 150 of them,
//! where its tags as texts would take 2,000.

use std::sync::Arc;

use ahash::AHashMap;
use serde_json::{Number, Value};

use super::model::{Event, Process, Span, Tag};

/// Most texts that are numbered, and most bytes of them. They stay for good: what comes later is written out.
const MAX_TEXTS: usize = 20_000;
const MAX_TEXT_BYTES: usize = 2 << 20;
/// A tag with more values than this has one for each request: they are not numbered.
const MAX_VALUES: u32 = 256;

/// Texts that spans share.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    texts: Vec<Arc<str>>,
    numbers: AHashMap<Arc<str>, u32>,
    /// How many values of a tag are numbered, by the number of its name.
    values: AHashMap<u32, u32>,
    bytes: usize,
}

impl Dictionary {
    /// The number of a text, which is given one if there is room.
    fn number(&mut self, text: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(text) {
            return Some(*number);
        }
        if self.texts.len() >= MAX_TEXTS || self.bytes + text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let (number, text) = (self.texts.len() as u32, Arc::<str>::from(text));
        self.bytes += text.len();
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        Some(number)
    }

    /// The number of a tag's value.
    fn value(&mut self, name: Option<u32>, value: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(value) {
            return Some(*number);
        }
        let known = self.values.entry(name?).or_default();
        if *known >= MAX_VALUES {
            return None;
        }
        *known += 1;
        self.number(value)
    }

    fn text(&self, number: u64) -> &str {
        usize::try_from(number).ok().and_then(|number| self.texts.get(number)).map_or("", |text| text)
    }

    /// Memory used, in bytes, about.
    pub(super) fn size(&self) -> usize {
        self.bytes + self.texts.len() * (2 * size_of::<Arc<str>>() + 2 * size_of::<usize>() + size_of::<u32>())
    }
}

/// Appends a span to the bytes of its trace.
pub(super) fn append(trace: &mut Vec<u8>, span: &Span, process: u32, dictionary: &mut Dictionary) {
    let mut writer = Writer { bytes: Vec::with_capacity(256), dictionary };
    writer.number(u64::from(process));
    writer.bytes.extend(span.id.to_le_bytes());
    writer.bytes.push(u8::from(span.parent.is_some()));
    writer.bytes.extend(span.parent.into_iter().flat_map(u64::to_le_bytes));
    writer.number(span.start);
    writer.number(span.duration);
    writer.text(&span.name);
    writer.tags(&span.tags);
    writer.number(span.events.len() as u64);
    for event in &span.events {
        writer.number(event.time);
        writer.tags(&event.fields);
    }
    writer.number(span.warnings.len() as u64);
    span.warnings.iter().for_each(|warning| {
        writer.text(warning);
    });
    let body = writer.bytes;
    let mut length = Vec::with_capacity(3);
    write_number(&mut length, body.len() as u64);
    // A trace has few spans: room for exactly them is less than room for the next ones.
    trace.reserve_exact(length.len() + body.len());
    trace.extend(length);
    trace.extend(body);
}

/// The spans of a trace.
pub(super) fn spans<'a>(trace: &'a [u8], dictionary: &'a Dictionary) -> impl Iterator<Item = Packed<'a>> + 'a {
    let mut rest = Reader { bytes: trace, dictionary };
    std::iter::from_fn(move || {
        if rest.bytes.is_empty() {
            return None;
        }
        let length = rest.length();
        let mut body = Reader { bytes: rest.take(length), dictionary };
        let process = u32::try_from(body.number()).unwrap_or(u32::MAX);
        let id = body.fixed();
        let parent = (body.take(1) == [1]).then(|| body.fixed());
        let (start, duration) = (body.number(), body.number());
        Some(Packed { process, id, parent, start, duration, body })
    })
}

/// A tag that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    name: &'a str,
    value: &'a str,
    /// Of the name.
    number: Option<u32>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(name: &'a str, value: &'a str, dictionary: &Dictionary) -> Self {
        Self { name, value, number: dictionary.numbers.get(name).copied() }
    }
}

/// A span whose name, tags and events are still to be read.
#[derive(Clone)]
pub(super) struct Packed<'a> {
    pub(super) process: u32,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) start: u64,
    pub(super) duration: u64,
    body: Reader<'a>,
}

impl Packed<'_> {
    pub(super) fn name(&self) -> &str {
        self.body.clone().text()
    }

    /// Whether a tag, or a field of an event, has this value as text.
    pub(super) fn has(&self, wanted: &Wanted<'_>) -> bool {
        let mut body = self.body.clone();
        body.text();
        let in_tags = |body: &mut Reader<'_>| {
            let mut found = false;
            for _ in 0..body.number() {
                if body.is_text(wanted.name, wanted.number) {
                    found |= body.value().is_text(wanted.value);
                } else {
                    body.skip_value();
                }
            }
            found
        };
        if in_tags(&mut body) {
            return true;
        }
        (0..body.number()).any(|_| {
            body.number();
            in_tags(&mut body)
        })
    }

    /// As it came.
    pub(super) fn unpack(&self, trace: u128, process: Arc<Process>) -> Span {
        let mut body = self.body.clone();
        Span {
            trace,
            id: self.id,
            parent: self.parent,
            process,
            name: body.text().to_owned(),
            start: self.start,
            duration: self.duration,
            tags: body.tags(),
            events: (0..body.number()).map(|_| Event { time: body.number(), fields: body.tags() }).collect(),
            warnings: (0..body.number()).map(|_| body.text().to_owned()).collect(),
        }
    }
}

/// A value as it is written: the kind is in the lowest bits of the number it begins with.
enum Written<'a> {
    Text(&'a str),
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// A text that is a UUID, as requests' ids are.
    Uuid(u128),
    /// Anything else, as JSON.
    Json(&'a str),
}

const NUMBERED: u64 = 0;
const INLINE: u64 = 1;
const FALSE: u64 = 2;
const TRUE: u64 = 3;
const INTEGER: u64 = 4;
const FLOAT: u64 = 5;
const JSON: u64 = 6;
const UUID: u64 = 7;
const KIND_BITS: u32 = 3;

impl Written<'_> {
    fn is_text(&self, text: &str) -> bool {
        match self {
            Self::Text(there) | Self::Json(there) => *there == text,
            Self::Uuid(there) => uuid(text) == Some(*there),
            Self::Bool(there) => text == if *there { "true" } else { "false" },
            Self::Integer(there) => text.parse() == Ok(*there) && there.to_string() == text,
            Self::Float(there) => Number::from_f64(*there).is_some_and(|number| number.to_string() == text),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.to_owned()),
            Self::Uuid(uuid) => Value::String(uuid_text(uuid)),
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(value) => Value::from(value),
            Self::Float(value) => Value::from(value),
            Self::Json(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }
}

struct Writer<'a> {
    bytes: Vec<u8>,
    dictionary: &'a mut Dictionary,
}

impl Writer<'_> {
    fn number(&mut self, value: u64) {
        write_number(&mut self.bytes, value);
    }

    /// Yields the text's number.
    fn text(&mut self, text: &str) -> Option<u32> {
        let number = self.dictionary.number(text);
        self.numbered_or_inline(number, text, 1);
        number
    }

    fn numbered_or_inline(&mut self, number: Option<u32>, text: &str, bits: u32) {
        match number {
            Some(number) => self.number(u64::from(number) << bits | NUMBERED),
            None => {
                self.number((text.len() as u64) << bits | INLINE);
                self.bytes.extend(text.as_bytes());
            }
        }
    }

    fn tags(&mut self, tags: &[Tag]) {
        self.number(tags.len() as u64);
        for (name, value) in tags {
            let name = self.text(name);
            match value {
                Value::String(text) => match uuid(text) {
                    Some(uuid) => {
                        self.number(UUID);
                        self.bytes.extend(uuid.to_le_bytes());
                    }
                    None => {
                        let number = self.dictionary.value(name, text);
                        self.numbered_or_inline(number, text, KIND_BITS);
                    }
                },
                Value::Bool(value) => self.number(if *value { TRUE } else { FALSE }),
                Value::Number(number) if number.is_i64() => {
                    self.number(INTEGER);
                    self.bytes.extend(number.as_i64().unwrap_or_default().to_le_bytes());
                }
                Value::Number(number) if number.is_f64() => {
                    self.number(FLOAT);
                    self.bytes.extend(number.as_f64().unwrap_or_default().to_le_bytes());
                }
                other => {
                    let json = other.to_string();
                    self.number((json.len() as u64) << KIND_BITS | JSON);
                    self.bytes.extend(json.as_bytes());
                }
            }
        }
    }
}

/// Where a UUID's hyphens are.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The number of a UUID, if it is written as [`uuid_text`] writes it.
fn uuid(text: &str) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    text.bytes().enumerate().try_fold(0, |number: u128, (place, byte)| match byte {
        b'-' if HYPHENS.contains(&place) => Some(number),
        b'0'..=b'9' if !HYPHENS.contains(&place) => Some(number << 4 | u128::from(byte - b'0')),
        b'a'..=b'f' if !HYPHENS.contains(&place) => Some(number << 4 | u128::from(byte - b'a' + 10)),
        _ => None,
    })
}

fn uuid_text(uuid: u128) -> String {
    let mut text = format!("{uuid:032x}");
    HYPHENS.into_iter().for_each(|place| text.insert(place, '-'));
    text
}

fn write_number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads what [`Writer`] wrote.
#[derive(Clone)]
struct Reader<'a> {
    bytes: &'a [u8],
    dictionary: &'a Dictionary,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    fn number(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        while let [byte, rest @ ..] = self.bytes {
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                break;
            }
            shift += 7;
        }
        value
    }

    fn length(&mut self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX)
    }

    fn fixed(&mut self) -> u64 {
        self.take(8).try_into().map(u64::from_le_bytes).unwrap_or_default()
    }

    fn inline(&mut self, length: u64) -> &'a str {
        std::str::from_utf8(self.take(usize::try_from(length).unwrap_or(usize::MAX))).unwrap_or_default()
    }

    fn text(&mut self) -> &'a str {
        let number = self.number();
        if number & 1 == NUMBERED { self.dictionary.text(number >> 1) } else { self.inline(number >> 1) }
    }

    /// Whether the next text is this one, whose number is known. Nothing is looked up for a text that has a number.
    fn is_text(&mut self, text: &str, number: Option<u32>) -> bool {
        let next = self.number();
        if next & 1 == NUMBERED {
            number.is_some_and(|number| u64::from(number) == next >> 1)
        } else {
            self.inline(next >> 1) == text
        }
    }

    fn skip_value(&mut self) {
        let number = self.number();
        let length = match number & ((1 << KIND_BITS) - 1) {
            INLINE | JSON => usize::try_from(number >> KIND_BITS).unwrap_or(usize::MAX),
            INTEGER | FLOAT => 8,
            UUID => 16,
            _ => 0,
        };
        self.take(length);
    }

    fn value(&mut self) -> Written<'a> {
        let number = self.number();
        let rest = number >> KIND_BITS;
        match number & ((1 << KIND_BITS) - 1) {
            NUMBERED => Written::Text(self.dictionary.text(rest)),
            INLINE => Written::Text(self.inline(rest)),
            INTEGER => Written::Integer(self.fixed().cast_signed()),
            FLOAT => Written::Float(f64::from_bits(self.fixed())),
            JSON => Written::Json(self.inline(rest)),
            UUID => Written::Uuid(self.take(16).try_into().map(u128::from_le_bytes).unwrap_or_default()),
            kind => Written::Bool(kind == TRUE),
        }
    }

    fn tags(&mut self) -> Vec<Tag> {
        (0..self.number()).map(|_| (self.text().to_owned(), self.value().into_value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[a-c]{0,3}".prop_map(Value::String),
            ".{0,40}".prop_map(Value::String),
            any::<u128>().prop_map(|uuid| Value::String(uuid_text(uuid))),
            "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f-]{4}-[0-9a-f]{12}".prop_map(Value::String),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300_f64).prop_map(Value::from),
            Just(Value::Null),
        ]
    }

    fn span() -> impl Strategy<Value = Span> {
        let tags = || prop::collection::vec(("[a-e]{0,2}", value()), 0..6);
        let events = prop::collection::vec((any::<u64>(), tags()).prop_map(|(time, fields)| Event { time, fields }), 0..3);
        let times = (any::<u64>(), any::<Option<u64>>(), any::<u64>(), any::<u64>());
        (times, "[a-z/*.é]{0,10}", tags(), events, prop::collection::vec(".{0,9}", 0..2)).prop_map(
            |((id, parent, start, duration), name, tags, events, warnings)| {
                let process = Arc::new(Process { service: "s".to_owned(), tags: Vec::new() });
                Span { trace: 7, id, parent, process, name, start, duration, tags, events, warnings }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(all in prop::collection::vec(span(), 0..5)) {
            let (mut trace, mut dictionary) = (Vec::new(), Dictionary::default());
            for (number, span) in all.iter().enumerate() {
                append(&mut trace, span, number as u32, &mut dictionary);
            }
            let packed: Vec<_> = spans(&trace, &dictionary).collect();
            prop_assert_eq!(packed.len(), all.len());
            for (number, (packed, span)) in packed.iter().zip(&all).enumerate() {
                prop_assert_eq!(packed.process as usize, number);
                prop_assert_eq!(&packed.unpack(7, span.process.clone()), span);
                prop_assert_eq!(packed.name(), &span.name);
                for (name, value) in span.tags.iter().chain(span.events.iter().flat_map(|event| &event.fields)) {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    prop_assert!(packed.has(&Wanted::new(name, &text, &dictionary)), "{name} {text}");
                }
                for (name, value) in [("zzz", ""), ("a", "never")] {
                    prop_assert!(!packed.has(&Wanted::new(name, value, &dictionary)));
                }
            }
        }
    }

    #[test]
    fn values_that_differ_by_request_are_not_numbered() {
        let (mut trace, mut dictionary) = (Vec::new(), Dictionary::default());
        let process = Arc::new(Process { service: "s".to_owned(), tags: Vec::new() });
        for id in 1..=10_000 {
            let tags = vec![("id".to_owned(), json!(format!("request {id}"))), ("zone".to_owned(), json!("here"))];
            let (name, process) = ("op".to_owned(), process.clone());
            let (events, warnings) = (Vec::new(), Vec::new());
            let span = Span { trace: 1, id, parent: None, process, name, start: 1, duration: 1, tags, events, warnings };
            append(&mut trace, &span, 0, &mut dictionary);
        }
        assert_eq!(dictionary.texts.len(), 260, "two names, a zone, an operation, and so many values of the other");
        let wanted = [("id", "request 9000"), ("zone", "here")].map(|(name, value)| Wanted::new(name, value, &dictionary));
        assert_eq!(spans(&trace, &dictionary).filter(|span| wanted.iter().all(|wanted| span.has(wanted))).count(), 1);
    }
}

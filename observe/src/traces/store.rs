//! Traces in memory: the newest ones, bounded by spans and bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use parking_lot::RwLock;

use super::model::{Process, Span};
use super::packed::{self, Dictionary, Packed, Wanted};

/// How much is kept.
#[derive(Debug, Clone)]
pub struct TraceLimits {
    /// Most spans of all traces; the trace that began to arrive first is forgotten first.
    pub spans: usize,
    /// Most bytes of all traces, about.
    pub bytes: usize,
    /// Most spans of one trace.
    pub spans_per_trace: usize,
    /// Most operations known of one service, and most services.
    pub names: usize,
}

impl Default for TraceLimits {
    fn default() -> Self {
        Self { spans: 100_000, bytes: 32 << 20, spans_per_trace: 5000, names: 1000 }
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    limits: TraceLimits,
    inner: RwLock<Inner>,
    received: AtomicU64,
    /// Spans that were not kept: of traces that are too long, or malformed.
    refused: AtomicU64,
    /// Spans that were forgotten for newer ones.
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    traces: AHashMap<u128, Trace>,
    /// In the order in which they began to arrive, which numbers them.
    order: VecDeque<u128>,
    /// The number of the first one there.
    oldest: u32,
    services: BTreeMap<Arc<str>, Service>,
    processes: Processes,
    dictionary: Dictionary,
    spans: usize,
    /// Of traces and processes; those of the dictionary come on top.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Trace {
    /// Its spans, packed.
    bytes: Vec<u8>,
    spans: usize,
    /// By service: the earliest start, which is its place in the service's index.
    services: Vec<(Arc<str>, u64)>,
    /// By process: how many of the spans are its own.
    processes: Vec<(u32, u32)>,
    /// Its number.
    number: u32,
}

/// A trace takes so much beside its bytes: its place in the maps and lists.
const PER_TRACE: usize = 2 * size_of::<(u128, Trace)>();
/// And so much for each of its services, with the place in the service's index.
const PER_SERVICE: usize = size_of::<(Arc<str>, u64)>() + 2 * size_of::<(u64, u32)>();
const PER_PROCESS: usize = size_of::<(u32, u32)>();

#[derive(Debug, Default)]
struct Service {
    /// Name, and kind of span.
    operations: BTreeSet<(String, String)>,
    /// Their numbers, by start.
    traces: BTreeSet<(u64, u32)>,
}

/// What is looked for: traces with a span that fulfils all of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Search {
    pub(crate) service: String,
    pub(crate) operation: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
    /// Microseconds since 1970.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Microseconds.
    pub(crate) min_duration: Option<u64>,
    pub(crate) max_duration: Option<u64>,
    pub(crate) limit: usize,
}

impl Search {
    fn matches(&self, span: &Packed<'_>, process: &Process, tags: &[Wanted<'_>]) -> bool {
        process.service == self.service
            && (self.start..=self.end).contains(&span.start)
            && self.min_duration.is_none_or(|least| span.duration >= least)
            && self.max_duration.is_none_or(|most| span.duration <= most)
            && self.operation.as_ref().is_none_or(|operation| *operation == span.name())
            && self.tags.iter().zip(tags).all(|((name, value), wanted)| process.has(name, value) || span.has(wanted))
    }
}

/// Numbers about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) traces: usize,
    pub(crate) spans: usize,
    pub(crate) bytes: usize,
    pub(crate) received: u64,
    pub(crate) refused: u64,
    pub(crate) forgotten: u64,
}

impl Store {
    pub(crate) fn new(limits: TraceLimits) -> Self {
        let zero = AtomicU64::default;
        Self { limits, inner: RwLock::default(), received: zero(), refused: zero(), forgotten: zero() }
    }

    /// Keeps spans, and forgets the oldest traces for them.
    pub(crate) fn add(&self, spans: Vec<Span>) {
        self.received.fetch_add(spans.len() as u64, Ordering::Relaxed);
        let mut inner = self.inner.write();
        for span in spans {
            if !inner.add(&span.bounded(), &self.limits) {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        while inner.spans > self.limits.spans || inner.size() > self.limits.bytes {
            let forgotten = inner.forget_oldest();
            self.forgotten.fetch_add(forgotten, Ordering::Relaxed);
        }
    }

    /// Counts spans that could not be read.
    pub(crate) fn refuse(&self, spans: u64) {
        self.refused.fetch_add(spans, Ordering::Relaxed);
    }

    /// All spans of a trace, by start.
    pub(crate) fn trace(&self, id: u128) -> Option<Vec<Span>> {
        let inner = self.inner.read();
        inner.traces.get(&id).map(|trace| inner.sorted(id, trace))
    }

    /// The newest traces that match, newest first.
    pub(crate) fn search(&self, search: &Search) -> Vec<Vec<Span>> {
        let inner = self.inner.read();
        let Some(service) = inner.services.get(search.service.as_str()) else { return Vec::new() };
        let until = service.traces.range(..=(search.end, u32::MAX)).rev();
        let traces = until.filter_map(|(_, number)| {
            let id = *inner.order.get(number.wrapping_sub(inner.oldest) as usize)?;
            Some((id, inner.traces.get(&id)?))
        });
        let tags: Vec<_> = search.tags.iter().map(|(name, value)| Wanted::new(name, value, &inner.dictionary)).collect();
        let matches =
            |span: Packed<'_>| inner.processes.get(span.process).is_some_and(|process| search.matches(&span, process, &tags));
        let matching = traces.filter(|(_, trace)| inner.packed(trace).any(matches));
        matching.take(search.limit).map(|(id, trace)| inner.sorted(id, trace)).collect()
    }

    pub(crate) fn services(&self) -> Vec<String> {
        self.inner.read().services.keys().map(|name| (**name).to_owned()).collect()
    }

    /// Names and kinds of a service's spans.
    pub(crate) fn operations(&self, service: &str) -> Vec<(String, String)> {
        self.inner.read().services.get(service).map(|service| service.operations.iter().cloned().collect()).unwrap_or_default()
    }

    /// How often a service called another, by the spans that began in `start..=end` (microseconds).
    pub(crate) fn dependencies(&self, start: u64, end: u64) -> BTreeMap<(String, String), u64> {
        let inner = self.inner.read();
        let mut calls = BTreeMap::new();
        for trace in inner.traces.values() {
            let service = |span: &Packed<'_>| inner.processes.get(span.process).map_or("", |process| process.service.as_str());
            let owners: HashMap<u64, &str> = inner.packed(trace).map(|span| (span.id, service(&span))).collect();
            for span in inner.packed(trace).filter(|span| (start..=end).contains(&span.start)) {
                let caller = span.parent.and_then(|parent| owners.get(&parent));
                let called = service(&span);
                if let Some(caller) = caller.filter(|caller| **caller != called) {
                    *calls.entry(((*caller).to_owned(), called.to_owned())).or_default() += 1;
                }
            }
        }
        calls
    }

    pub(crate) fn counts(&self) -> Counts {
        let inner = self.inner.read();
        Counts {
            traces: inner.traces.len(),
            spans: inner.spans,
            bytes: inner.size(),
            received: self.received.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            forgotten: self.forgotten.load(Ordering::Relaxed),
        }
    }
}

impl Trace {
    fn size(&self) -> usize {
        PER_TRACE + self.bytes.capacity() + self.services.len() * PER_SERVICE + self.processes.len() * PER_PROCESS
    }
}

impl Inner {
    fn size(&self) -> usize {
        self.bytes + self.dictionary.size()
    }

    fn packed<'a>(&'a self, trace: &'a Trace) -> impl Iterator<Item = Packed<'a>> + 'a {
        packed::spans(&trace.bytes, &self.dictionary)
    }

    fn sorted(&self, id: u128, trace: &Trace) -> Vec<Span> {
        let unpack = |span: Packed<'_>| Some(span.unpack(id, self.processes.get(span.process)?.clone()));
        let mut spans: Vec<Span> = self.packed(trace).filter_map(unpack).collect();
        // A caller's span begins before the called one's, or in the same microsecond.
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.duration), span.id));
        spans
    }

    /// `false` if there is no room for it.
    fn add(&mut self, span: &Span, limits: &TraceLimits) -> bool {
        let full = self.traces.get(&span.trace).is_some_and(|trace| trace.spans >= limits.spans_per_trace);
        let name = match self.services.get_key_value(span.process.service.as_str()) {
            _ if full => return false,
            Some((name, _)) => name.clone(),
            None if self.services.len() >= limits.names => return false,
            None => Arc::from(span.process.service.as_str()),
        };
        let service = self.services.entry(name.clone()).or_default();
        if service.operations.len() < limits.names {
            let kind = span.tag("span.kind").and_then(|kind| kind.as_str()).unwrap_or_default();
            service.operations.insert((span.name.clone(), kind.to_owned()));
        }
        let trace = self.traces.entry(span.trace).or_insert_with(|| {
            let number = self.oldest.wrapping_add(self.order.len() as u32);
            self.order.push_back(span.trace);
            self.bytes += Trace::default().size();
            Trace { number, ..Trace::default() }
        });
        self.bytes -= trace.size() + self.processes.bytes;
        match trace.services.iter_mut().find(|(known, _)| *known == name) {
            Some((_, first)) if *first <= span.start => {}
            Some((_, first)) => {
                service.traces.remove(&(*first, trace.number));
                service.traces.insert((span.start, trace.number));
                *first = span.start;
            }
            None => {
                service.traces.insert((span.start, trace.number));
                trace.services.push((name, span.start));
            }
        }
        let process = self.processes.number(&span.process);
        match trace.processes.iter_mut().find(|(known, _)| *known == process) {
            Some((_, spans)) => *spans += 1,
            None => trace.processes.push((process, 1)),
        }
        packed::append(&mut trace.bytes, span, process, &mut self.dictionary);
        trace.spans += 1;
        self.spans += 1;
        self.bytes += trace.size() + self.processes.bytes;
        true
    }

    fn forget_oldest(&mut self) -> u64 {
        let Some(id) = self.order.pop_front() else { return 0 };
        self.oldest = self.oldest.wrapping_add(1);
        let Some(trace) = self.traces.remove(&id) else { return 0 };
        self.bytes -= trace.size() + self.processes.bytes;
        for (name, first) in &trace.services {
            if let Some(service) = self.services.get_mut(name) {
                service.traces.remove(&(*first, trace.number));
                if service.traces.is_empty() {
                    self.services.remove(name);
                }
            }
        }
        trace.processes.iter().for_each(|(process, spans)| self.processes.release(*process, *spans as usize));
        self.bytes += self.processes.bytes;
        self.spans -= trace.spans;
        trace.spans as u64
    }
}

/// Every process once, however often it says who it is, as long as there are spans of it.
#[derive(Debug, Default)]
struct Processes {
    slots: Vec<Option<Known>>,
    free: Vec<u32>,
    /// By what it says of itself, as JSON.
    numbers: AHashMap<Arc<[u8]>, u32>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    process: Arc<Process>,
    key: Arc<[u8]>,
    spans: usize,
}

impl Known {
    fn size(&self) -> usize {
        // As it is written, and about twice that as it is.
        size_of::<Self>() + 3 * self.key.len()
    }
}

impl Processes {
    fn get(&self, number: u32) -> Option<&Arc<Process>> {
        self.slots.get(number as usize)?.as_ref().map(|known| &known.process)
    }

    /// The number of a process, for one more of its spans.
    fn number(&mut self, process: &Arc<Process>) -> u32 {
        let key: Arc<[u8]> = serde_json::to_vec(&(&process.service, &process.tags)).unwrap_or_default().into();
        let number = *self.numbers.entry(key.clone()).or_insert_with(|| {
            let known = Known { process: process.clone(), key, spans: 0 };
            self.bytes += known.size();
            match self.free.pop() {
                Some(number) => {
                    self.slots[number as usize] = Some(known);
                    number
                }
                None => {
                    self.slots.push(Some(known));
                    (self.slots.len() - 1) as u32
                }
            }
        });
        if let Some(known) = &mut self.slots[number as usize] {
            known.spans += 1;
        }
        number
    }

    /// So many of its spans are gone.
    fn release(&mut self, number: u32, spans: usize) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(known) = slot else { return };
        known.spans = known.spans.saturating_sub(spans);
        if known.spans == 0 {
            self.bytes -= known.size();
            self.numbers.remove(&known.key);
            *slot = None;
            self.free.push(number);
        }
    }
}

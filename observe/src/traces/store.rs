//! Traces in memory: the newest ones, bounded by spans and bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use parking_lot::RwLock;

use super::model::Span;

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
        Self { spans: 100_000, bytes: 64 << 20, spans_per_trace: 5000, names: 1000 }
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
    /// In the order in which they began to arrive.
    order: VecDeque<u128>,
    services: BTreeMap<String, Service>,
    spans: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Trace {
    spans: Vec<Span>,
    /// By service: the earliest start, which is its place in the service's index.
    services: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Service {
    /// Name, and kind of span.
    operations: BTreeSet<(String, String)>,
    /// By start.
    traces: BTreeSet<(u64, u128)>,
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
    fn matches(&self, span: &Span) -> bool {
        span.process.service == self.service
            && (self.start..=self.end).contains(&span.start)
            && self.operation.as_ref().is_none_or(|operation| *operation == span.name)
            && self.min_duration.is_none_or(|least| span.duration >= least)
            && self.max_duration.is_none_or(|most| span.duration <= most)
            && self.tags.iter().all(|(name, value)| span.has(name, value))
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
            if !inner.add(span.bounded(), &self.limits) {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        while inner.spans > self.limits.spans || inner.bytes > self.limits.bytes {
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
        inner.traces.get(&id).map(Trace::sorted)
    }

    /// The newest traces that match, newest first.
    pub(crate) fn search(&self, search: &Search) -> Vec<Vec<Span>> {
        let inner = self.inner.read();
        let Some(service) = inner.services.get(&search.service) else { return Vec::new() };
        let until = service.traces.range(..=(search.end, u128::MAX)).rev();
        let traces = until.filter_map(|(_, id)| inner.traces.get(id));
        let matching = traces.filter(|trace| trace.spans.iter().any(|span| search.matches(span)));
        matching.take(search.limit).map(Trace::sorted).collect()
    }

    pub(crate) fn services(&self) -> Vec<String> {
        self.inner.read().services.keys().cloned().collect()
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
            let owners: HashMap<u64, &str> = trace.spans.iter().map(|span| (span.id, span.process.service.as_str())).collect();
            for span in trace.spans.iter().filter(|span| (start..=end).contains(&span.start)) {
                let caller = span.parent.and_then(|parent| owners.get(&parent));
                if let Some(caller) = caller.filter(|caller| **caller != span.process.service) {
                    *calls.entry(((*caller).to_owned(), span.process.service.clone())).or_default() += 1;
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
            bytes: inner.bytes,
            received: self.received.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            forgotten: self.forgotten.load(Ordering::Relaxed),
        }
    }
}

impl Trace {
    fn sorted(&self) -> Vec<Span> {
        let mut spans = self.spans.clone();
        // A caller's span begins before the called one's, or in the same microsecond.
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.duration), span.id));
        spans
    }
}

impl Inner {
    /// `false` if there is no room for it.
    fn add(&mut self, span: Span, limits: &TraceLimits) -> bool {
        let name = &span.process.service;
        if !self.services.contains_key(name) {
            if self.services.len() >= limits.names {
                return false;
            }
            self.services.insert(name.clone(), Service::default());
        }
        let trace = self.traces.entry(span.trace).or_insert_with(|| {
            self.order.push_back(span.trace);
            Trace::default()
        });
        if trace.spans.len() >= limits.spans_per_trace {
            return false;
        }
        let Some(service) = self.services.get_mut(name) else { return false };
        if service.operations.len() < limits.names {
            let kind = span.tag("span.kind").and_then(|kind| kind.as_str()).unwrap_or_default();
            service.operations.insert((span.name.clone(), kind.to_owned()));
        }
        match trace.services.get_mut(name) {
            Some(first) if *first <= span.start => {}
            Some(first) => {
                service.traces.remove(&(*first, span.trace));
                service.traces.insert((span.start, span.trace));
                *first = span.start;
            }
            None => {
                service.traces.insert((span.start, span.trace));
                trace.services.insert(name.clone(), span.start);
            }
        }
        self.spans += 1;
        self.bytes += span.size();
        trace.spans.push(span);
        true
    }

    fn forget_oldest(&mut self) -> u64 {
        let Some(id) = self.order.pop_front() else {
            (self.spans, self.bytes) = (0, 0);
            return 0;
        };
        let Some(trace) = self.traces.remove(&id) else { return 0 };
        for (name, start) in &trace.services {
            if let Some(service) = self.services.get_mut(name) {
                service.traces.remove(&(*start, id));
                if service.traces.is_empty() {
                    self.services.remove(name);
                }
            }
        }
        self.spans -= trace.spans.len();
        self.bytes -= trace.spans.iter().map(Span::size).sum::<usize>();
        trace.spans.len() as u64
    }
}

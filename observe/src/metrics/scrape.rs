//! Scraping: one task for each target, so that one that hangs holds up no other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ahash::{AHashMap, AHashSet, RandomState};
use indexmap::IndexMap;
use jiff::Timestamp;
use meshlab_net::Net;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::chunk::{Millis, stale};
use super::exposition::{self, Exposition, Metadata, Written};
use super::labels::{Labels, NAME};
use super::target::{Target, Targets};
use super::times::Timeline;
use super::tsdb::{SeriesRef, Tsdb};
use crate::client::Fetch;

/// Longest body of a scrape.
const MAX_BODY: usize = 16 << 20;
/// A target that never answered yet is asked again after this: it has just been started.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A sample that claims to be from further ahead is dropped, as Prometheus does: its series would take no other until then.
const MAX_AHEAD: Millis = 600_000;
/// Most targets at a time.
const MAX_TARGETS: usize = 2000;

/// How a target fares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// `None` before the first scrape.
    pub(crate) up: Option<bool>,
    pub(crate) error: String,
    pub(crate) last: Option<Timestamp>,
    pub(crate) duration: Duration,
    pub(crate) samples: usize,
    pub(crate) metadata: IndexMap<String, Metadata>,
}

/// Every target with its status.
pub(crate) type Pool = Mutex<BTreeMap<Target, Arc<Mutex<Status>>>>;

/// How often, and whither.
#[derive(Clone)]
pub(crate) struct Scraper<N> {
    pub(crate) net: N,
    pub(crate) tsdb: Arc<Tsdb>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) interval: Duration,
}

impl<N: Net> Scraper<N> {
    /// Scrapes whatever `targets` has, until dropped.
    pub(crate) async fn run(self, fixed: Vec<Target>, mut targets: watch::Receiver<Targets>) {
        let mut running: BTreeMap<Target, CancellationToken> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let wanted: Vec<Target> = {
                let current = targets.borrow_and_update();
                fixed.iter().chain(current.values().flatten()).take(MAX_TARGETS).cloned().collect()
            };
            running.retain(|target, stop| {
                let keep = wanted.contains(target);
                if !keep {
                    stop.cancel();
                    self.pool.lock().remove(target);
                }
                keep
            });
            for target in wanted {
                if running.contains_key(&target) {
                    continue;
                }
                let (stop, status) = (CancellationToken::new(), Arc::new(Mutex::new(Status::default())));
                self.pool.lock().insert(target.clone(), status.clone());
                running.insert(target.clone(), stop.clone());
                let scraper = self.clone();
                tasks.spawn(async move { scraper.follow(&target, &status, stop).await });
            }
            loop {
                tokio::select! {
                    changed = targets.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => std::future::pending().await,
                    },
                    Some(ended) = tasks.join_next() => {
                        if let Err(error) = ended {
                            tracing::error!(%error, "a scrape loop has ended");
                        }
                    }
                }
            }
        }
    }

    async fn follow(&self, target: &Target, status: &Mutex<Status>, stop: CancellationToken) {
        let mut series = Known::new(target);
        let (mut ever_up, mut phase) = (false, Some(phase(target, self.interval)));
        let mut due = tokio::time::Instant::now();
        let mut time = now();
        loop {
            let up = tokio::select! {
                up = self.scrape(target, status, &mut series, time) => up,
                () = stop.cancelled() => break,
            };
            ever_up |= up;
            let wait = if ever_up { phase.take().unwrap_or(self.interval) } else { FIRST_RETRY.min(self.interval) };
            due = (due + wait).max(tokio::time::Instant::now());
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = stop.cancelled() => break,
            }
            time = aligned(time + self.interval.as_millis() as Millis, now(), self.interval);
        }
        series.end(&self.tsdb, now());
    }

    async fn scrape(&self, target: &Target, status: &Mutex<Status>, series: &mut Known, time: Millis) -> bool {
        let started = Instant::now();
        let host = target.address.to_string();
        let fetch = Fetch {
            address: target.address,
            host: &host,
            path: &target.path,
            accept: "text/plain;version=0.0.4;q=0.9,*/*;q=0.1",
            timeout: self.interval.min(Duration::from_secs(10)).max(Duration::from_secs(1)),
            max_bytes: MAX_BODY,
        };
        let body = if target.scheme == "http" {
            fetch.get(&self.net).await.map_err(|error| error.to_string())
        } else {
            Err(format!("scheme {:?} is not supported: only http can be scraped", target.scheme))
        };
        let duration = started.elapsed();
        let outcome = body.and_then(|body| {
            let text = std::str::from_utf8(&body).map_err(|_| "the body is not UTF-8".to_owned())?;
            let exposition = Exposition::parse(text).map_err(|error| error.to_string())?;
            let limit = self.tsdb.limits.samples_per_scrape;
            if exposition.lines.len() > limit {
                return Err(format!("sample limit exceeded: {} samples, at most {limit} are taken", exposition.lines.len()));
            }
            let count = exposition.lines.len();
            let added = series.append(&self.tsdb, &exposition, time)?;
            let metadata = exposition.metadata.into_iter().map(|(name, metadata)| (name.to_owned(), metadata)).collect();
            Ok((count, added, metadata))
        });
        let (up, samples, added, error) = match &outcome {
            Ok((count, added, _)) => (true, *count, *added, String::new()),
            Err(error) => {
                series.end(&self.tsdb, time);
                (false, 0, 0, error.clone())
            }
        };
        series.report(
            &self.tsdb,
            time,
            [f64::from(u8::from(up)), duration.as_secs_f64(), samples as f64, samples as f64, added as f64],
        );
        let mut status = status.lock();
        *status = Status {
            up: Some(up),
            error,
            last: Some(Timestamp::now()),
            duration,
            samples,
            metadata: outcome.map(|(_, _, metadata)| metadata).unwrap_or_else(|_| std::mem::take(&mut status.metadata)),
        };
        up
    }
}

const REPORTS: [&str; 5] =
    ["up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added"];

/// The series of one target, in the order of the last body: the next one mostly has the same.
struct Known {
    hashers: [RandomState; 2],
    series: Vec<Entry>,
    /// Of the target.
    labels: BTreeMap<String, String>,
    /// When the target was scraped.
    scrapes: Timeline,
    /// The times that its samples bring along.
    brought: Timeline,
}

/// Two hashes of a series' text: that both are those of another text does not happen.
type Key = u128;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    reference: SeriesRef,
    /// Whether its samples bring their own times; then its end is not marked.
    timed: bool,
}

/// Finds what a body has among what the one before had.
struct Places<'a> {
    before: &'a [Entry],
    /// What should come next.
    next: usize,
    /// All of them, once one was not where it should be.
    by_key: Option<AHashMap<Key, usize>>,
}

impl Places<'_> {
    fn find(&mut self, key: Key) -> Option<usize> {
        let place = if self.before.get(self.next).is_some_and(|entry| entry.key == key) {
            self.next
        } else {
            let all = || self.before.iter().enumerate().map(|(place, entry)| (entry.key, place)).collect();
            *self.by_key.get_or_insert_with(all).get(&key)?
        };
        self.next = place + 1;
        Some(place)
    }
}

impl Known {
    fn new(target: &Target) -> Self {
        let labels = target.labels.clone();
        let hashers = [RandomState::new(), RandomState::new()];
        Self { hashers, series: Vec::new(), labels, scrapes: Timeline::default(), brought: Timeline::default() }
    }

    /// Appends a whole scrape, and marks as ended what was in the one before and is not in this. Yields how many series are new.
    fn append(&mut self, tsdb: &Tsdb, exposition: &Exposition<'_>, time: Millis) -> Result<usize, String> {
        // All labels are read before anything is written, so that a scrape is taken as a whole or not at all.
        let mut places = Places { before: &self.series, next: 0, by_key: None };
        let mut new = AHashSet::new();
        let mut lines = Vec::with_capacity(exposition.lines.len());
        for line in &exposition.lines {
            let key = self.key(line.series);
            let place = places.find(key);
            if place.is_none() && new.insert(key) {
                self.labels_of(line.series)?;
            }
            lines.push((key, place));
        }
        let scrape = self.scrapes.at(time);
        let (mut added, mut seen) = (0, vec![false; self.series.len()]);
        let mut series = Vec::with_capacity(lines.len());
        let mut appender = tsdb.appender();
        for (line, (key, place)) in exposition.lines.iter().zip(lines) {
            if line.time.is_some_and(|brought| brought > time + MAX_AHEAD) {
                tsdb.dropped.out_of_bounds.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let brought = line.time.map(|time| self.brought.at(time));
            let moment = brought.as_ref().unwrap_or(&scrape);
            if let Some(place) = place {
                let entry = self.series[place];
                if appender.append_at(entry.reference, moment, line.value) {
                    // A body may have a series twice.
                    if !std::mem::replace(&mut seen[place], true) {
                        series.push(entry);
                    }
                    continue;
                }
                seen[place] = true;
            }
            // New, or forgotten by the store meanwhile.
            let labels = self.labels_of(line.series)?;
            let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
            if let Some(reference) = appender.place(&labels) {
                appender.append_at(reference, moment, line.value);
                if place.is_some() || new.remove(&key) {
                    added += 1;
                    series.push(Entry { key, reference, timed: line.time.is_some() });
                }
            }
        }
        for (entry, _) in self.series.iter().zip(seen).filter(|(entry, seen)| !seen && !entry.timed) {
            appender.append_at(entry.reference, &scrape, stale());
        }
        self.series = series;
        Ok(added)
    }

    /// Marks all series as ended.
    fn end(&mut self, tsdb: &Tsdb, time: Millis) {
        let (mut appender, scrape) = (tsdb.appender(), self.scrapes.at(time));
        for entry in std::mem::take(&mut self.series).into_iter().filter(|entry| !entry.timed) {
            appender.append_at(entry.reference, &scrape, stale());
        }
    }

    /// Appends what is known about the scrape itself, in the order of [`REPORTS`].
    fn report(&mut self, tsdb: &Tsdb, time: Millis, values: [f64; REPORTS.len()]) {
        let (mut appender, scrape) = (tsdb.appender(), self.scrapes.at(time));
        for (name, value) in REPORTS.into_iter().zip(values) {
            let own = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            if let Some(reference) = appender.series(Labels::of(std::iter::once((NAME, name)).chain(own))) {
                appender.append_at(reference, &scrape, value);
            }
        }
    }

    fn key(&self, series: &str) -> Key {
        let [a, b] = &self.hashers;
        Key::from(a.hash_one(series)) << 64 | Key::from(b.hash_one(series))
    }

    /// The labels of a series: what the target calls it, and what is known of the target besides.
    fn labels_of<'a>(&'a self, series: &'a str) -> Result<Written<'a>, String> {
        let (name, mut labels) = exposition::labels(series).map_err(|reason| format!("{reason}: {series:?}"))?;
        labels.insert(0, (NAME, Cow::Borrowed(name)));
        labels.extend(self.labels.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str()))));
        // An empty value means that there is no such label. Of two labels with one name the target's own is kept.
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort_by_key(|(name, _)| *name);
        labels.dedup_by_key(|(name, _)| *name);
        Ok(labels)
    }
}

/// When within the interval a target has its turn, after the first scrape, which is at once: all at the same moment would take the
/// memory and the time of all at that moment.
fn phase(target: &Target, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    interval.mul_f64(f64::from(hasher.finish() as u16) / 65536.0)
}

/// The time to write down for a scrape that should have been at `due`. A timer is late by a millisecond or so; samples at equal
/// distances take much less memory, so within Prometheus' own tolerance they are given them.
fn aligned(due: Millis, now: Millis, interval: Duration) -> Millis {
    const TOLERANCE: Millis = 2;
    let tolerance = TOLERANCE.min(interval.as_millis() as Millis / 100);
    if (now - due).abs() <= tolerance { due } else { now }
}

/// The time by the clock.
pub(crate) fn now() -> Millis {
    Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_that_is_hardly_late_is_written_down_as_punctual() {
        let interval = Duration::from_secs(5);
        assert_eq!([aligned(1000, 1002, interval), aligned(1000, 999, interval)], [1000, 1000]);
        assert_eq!([aligned(1000, 1003, interval), aligned(1000, 900, interval)], [1003, 900]);
        assert_eq!(aligned(1000, 1001, Duration::from_millis(20)), 1001, "1 % of the interval at most");
    }
}

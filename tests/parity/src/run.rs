//! Running a subject: both proxies, all its cases, the comparison.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use meshlab_net::OsNet;
use meshlab_proxy::{Proxy, ProxyOptions, WorkloadIdentity};
use meshlab_proxy_config::ProxyConfig;

use crate::case::{Case, OneOrMany, Request, Scenario, ShareBy, Shares, Subject};
use crate::certificates::Authority;
use crate::client::{Answer, Connection, Message, Tls, encode};
use crate::envoy::Envoy;
use crate::observation::{Fields, client_fields, compare, log_fields, upstream_fields};
use crate::place::{Place, Ports, prefix};
use crate::shares;
use crate::tokens::Keys;
use crate::translate::{Bootstrap, bootstrap};
use crate::upstream::Upstreams;
use crate::world::World;

/// Scenarios that run at the same time; most of their time is waiting.
const AT_ONCE: usize = 8;
/// Clients that send the requests of a [`Shares`] case.
const CLIENTS: u32 = 4;
/// A request that is neither seen by an upstream nor answered within this waits in the proxy.
const QUEUED: Duration = Duration::from_millis(150);
/// What is logged after the answer, and copies to mirrors, are there by then.
const SETTLE: Duration = Duration::from_secs(5);

/// What all subjects share.
pub struct Bench {
    /// The pods.
    pub world: World,
    /// Where listeners go.
    pub ports: Ports,
    /// The servers behind them.
    pub upstreams: Upstreams,
    /// Who signs certificates.
    pub authority: Authority,
    /// Who signs tokens.
    pub keys: Keys,
    /// Envoy's binary.
    pub envoy: std::path::PathBuf,
    /// The error rate of a single test of a share.
    pub threshold: f64,
}

/// How a case ended.
#[derive(Debug)]
pub enum Verdict {
    /// Equal in all fields.
    Same,
    /// Equal but for what the case states.
    Stated,
    /// Not equal, or not what was expected.
    Failed(Vec<String>),
}

/// A case and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// `subject/scenario/case`
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
}

/// One proxy as a client sees it.
struct Side {
    name: &'static str,
    /// Where each scenario is served.
    addresses: HashMap<String, SocketAddr>,
}

/// Everything that one case needs.
struct Running<'a> {
    bench: &'a Bench,
    subject: &'a Subject,
    scenario: &'a Scenario,
    case: &'a Case,
    tokens: &'a BTreeMap<String, String>,
}

/// What one side did with a case, before its log is read.
struct Observed {
    /// For each request: its id, its fields, how long it took.
    requests: Vec<(String, Fields, Duration)>,
    counts: BTreeMap<String, u64>,
}

/// Runs a subject.
///
/// # Errors
/// A resource cannot be compiled or translated, or a proxy does not start.
pub async fn run(bench: &Bench, subject: &Subject) -> Result<Vec<Outcome>> {
    let identity = bench.authority.identity("cluster.local/ns/default/sa/server")?;
    let count = subject.scenarios.len();
    let addresses = bench.ports.take(2 * count + 1)?;
    let ours = placed(bench, subject, &addresses[..count]).context("our proxy")?;
    let theirs = placed(bench, subject, &addresses[count..2 * count]).context("Envoy")?;
    let folder = Envoy::folder()?;
    let admin = addresses[2 * count];
    let log = Envoy::access_log(&folder);
    let config = bootstrap(&theirs.0, &Bootstrap { admin, access_log: &log, identity: &identity }).context("translation")?;
    let (proxy, lines) = start_ours(ours.0, identity)?;
    let envoy = Envoy::start(&bench.envoy, folder, &config, admin).await?;
    let tokens = bench.keys.sign(&subject.tokens)?;
    let sides = (Side { name: "ours", addresses: ours.1 }, Side { name: "envoy", addresses: theirs.1 });

    let running = subject.scenarios.iter().map(|scenario| scenario_cases(bench, subject, scenario, &tokens, &sides));
    let observed: Vec<Vec<(Observed, Observed)>> =
        futures::stream::iter(running).buffered(AT_ONCE).collect::<Vec<Result<_>>>().await.into_iter().collect::<Result<_>>()?;

    let (our_log, their_log) = logs(&observed, &lines, &envoy).await;
    let mut outcomes = Vec::new();
    for (scenario, observed) in subject.scenarios.iter().zip(observed) {
        for (case, (mut ours, mut theirs)) in scenario.cases.iter().zip(observed) {
            let context = Running { bench, subject, scenario, case, tokens: &tokens };
            context.complete(&mut ours, &our_log).await;
            context.complete(&mut theirs, &their_log).await;
            let name = format!("{}/{}/{}", subject.name, scenario.name, case.name);
            outcomes.push(Outcome { name, verdict: context.judge(&ours, &theirs) });
        }
    }
    proxy.stop().await;
    envoy.stop().await?;
    Ok(outcomes)
}

/// The subject's scenarios as one configuration, and where each is served.
fn placed(bench: &Bench, subject: &Subject, addresses: &[SocketAddr]) -> Result<(ProxyConfig, HashMap<String, SocketAddr>)> {
    let mut config = ProxyConfig::default();
    let mut served = HashMap::new();
    for (scenario, listen) in subject.scenarios.iter().zip(addresses) {
        let compiled = bench
            .world
            .compile(subject, scenario, &bench.keys, &bench.authority)
            .with_context(|| format!("scenario {}", scenario.name))?;
        let role = scenario.role(subject);
        let place = Place { scenario: &scenario.name, role, world: &bench.world, upstreams: &bench.upstreams, listen: *listen };
        place.add(&compiled, &mut config).with_context(|| format!("scenario {}", scenario.name))?;
        served.insert(scenario.name.clone(), *listen);
    }
    Ok((config, served))
}

type Lines = Arc<Mutex<Vec<String>>>;

fn start_ours(config: ProxyConfig, identity: WorkloadIdentity) -> Result<(Proxy<OsNet>, Lines)> {
    let lines: Lines = Arc::default();
    let sink = lines.clone();
    let options = ProxyOptions {
        admin_address: None,
        access_log: Arc::new(move |line: &str| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim_end_matches('\n').to_owned());
        }),
        ..ProxyOptions::default()
    };
    let proxy = Proxy::start(OsNet, options);
    proxy.set_identity(identity)?;
    proxy.apply(Arc::new(config))?;
    Ok((proxy, lines))
}

async fn scenario_cases(
    bench: &Bench,
    subject: &Subject,
    scenario: &Scenario,
    tokens: &BTreeMap<String, String>,
    (ours, envoy): &(Side, Side),
) -> Result<Vec<(Observed, Observed)>> {
    let mut out = Vec::new();
    for case in &scenario.cases {
        let context = Running { bench, subject, scenario, case, tokens };
        let (ours, envoy) = tokio::join!(context.observe(ours), context.observe(envoy));
        let name = || format!("{}/{}", scenario.name, case.name);
        out.push((ours.with_context(|| format!("{} (ours)", name()))?, envoy.with_context(|| format!("{} (Envoy)", name()))?));
    }
    Ok(out)
}

/// The log lines of both sides by request, once those of every request are there.
async fn logs(
    observed: &[Vec<(Observed, Observed)>],
    lines: &Lines,
    envoy: &Envoy,
) -> (HashMap<String, String>, HashMap<String, String>) {
    let requests = observed.iter().flatten().flat_map(|(ours, theirs)| ours.requests.iter().chain(&theirs.requests));
    // What was refused before its headers were understood is logged without a name.
    let wanted: Vec<&String> = requests.filter(|(_, fields, _)| was_understood(fields)).map(|(id, _, _)| id).collect();
    let by_id = |lines: Vec<String>| -> HashMap<String, String> {
        lines.into_iter().filter_map(|line| Some((line.split('\t').next()?.to_owned(), line))).collect()
    };
    let deadline = tokio::time::Instant::now() + SETTLE;
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    loop {
        poll.tick().await;
        let ours = by_id(lines.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let theirs = by_id(envoy.access_lines());
        let complete = wanted.iter().all(|id| ours.contains_key(*id) || theirs.contains_key(*id));
        // A missing line is a difference like any other.
        if complete || tokio::time::Instant::now() > deadline {
            return (ours, theirs);
        }
    }
}

impl Running<'_> {
    async fn observe(&self, side: &Side) -> Result<Observed> {
        let address = side.addresses[&self.scenario.name];
        let mut observed = Observed { requests: Vec::new(), counts: BTreeMap::new() };
        let id = format!("{}/{}/{}@{}", self.subject.name, self.scenario.name, self.case.name, side.name).replace(' ', "_");
        if let Some(shares) = &self.case.shares {
            observed.counts = self.count(shares, &id, address).await?;
            return Ok(observed);
        }
        let mut number = 0;
        for request in self.case.all_requests() {
            tokio::time::sleep(Duration::from_millis(request.wait_ms)).await;
            for _ in 0..request.times {
                let group: Vec<(String, usize)> =
                    (0..request.together).map(|index| number + index as usize + 1).map(|n| (format!("{id}#{n}"), n)).collect();
                number += group.len();
                observed.requests.extend(self.together(request, address, &group).await?);
            }
        }
        Ok(observed)
    }

    /// Requests that are under way at the same time; each starts when the one before was seen by an upstream or was answered.
    async fn together(
        &self,
        request: &Request,
        address: SocketAddr,
        group: &[(String, usize)],
    ) -> Result<Vec<(String, Fields, Duration)>> {
        let mut tasks = Vec::new();
        for (id, number) in group {
            self.bench.upstreams.script(id, &self.case.upstream);
            let host = self.scenario.default_host(self.subject);
            let message = Message::new(request, host, id, *number, self.tokens)?;
            let tls = self.tls(request)?;
            let (done, answered) = tokio::sync::oneshot::channel::<()>();
            let task = tokio::spawn(async move {
                let _done = done;
                let mut connection = Connection::open(address, tls).await?;
                match message {
                    Message::Http1 { bytes, head_only } => connection.exchange(&bytes, head_only).await,
                    Message::Http2(request) => connection.exchange_http2(*request).await,
                    Message::Tcp(bytes) => connection.exchange_tcp(&bytes).await,
                }
            });
            if group.len() > 1 {
                tokio::select! {
                    () = self.bench.upstreams.wait_for(id, 1, QUEUED) => {}
                    _ = answered => {}
                }
            }
            tasks.push((id.clone(), task));
        }
        let mut out = Vec::new();
        for (id, task) in tasks {
            let answer = match task.await? {
                Ok(answer) => answer,
                Err(error) => {
                    let mut fields = Fields::new();
                    fields.insert("status".into(), "0".into());
                    fields.insert("connection".into(), format!("{error:#}").split(':').next().unwrap_or_default().to_owned());
                    out.push((id, fields, Duration::ZERO));
                    continue;
                }
            };
            let mut fields = Fields::new();
            client_fields(&answer, &mut fields);
            out.push((id, fields, answer.took));
        }
        Ok(out)
    }

    /// What a request's connection is secured with: the server name and the configuration.
    fn tls(&self, request: &Request) -> Result<Option<Tls>> {
        let http2 = request.http2 || request.grpc.is_some();
        if let Some(principal) = &request.identity {
            let config = self.bench.authority.client(principal, http2)?;
            return Ok(Some(Tls { name: "server.default.svc.cluster.local".into(), config }));
        }
        let secured = |name: &String| Ok(Tls { name: name.clone(), config: self.bench.authority.anonymous(http2)? });
        request.sni.as_ref().map(secured).transpose()
    }

    /// Sends many requests and counts what becomes of them.
    async fn count(&self, shares: &Shares, id: &str, address: SocketAddr) -> Result<BTreeMap<String, u64>> {
        self.bench.upstreams.script(id, &self.case.upstream);
        let each = shares.requests / CLIENTS;
        ensure!(each * CLIENTS == shares.requests, "the number of requests is not a multiple of {CLIENTS}");
        let client = |client: u32| async move {
            let mut connection = Connection::open(address, None).await?;
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for index in 0..each {
                let number = (client * each + index) as usize;
                let bytes = encode(&self.case.request, self.scenario.default_host(self.subject), id, number, self.tokens);
                let answer: Answer = connection.exchange(&bytes, false).await?;
                if answer.headers.iter().any(|(name, value)| name == "connection" && value == "close") || answer.status == 0 {
                    connection = Connection::open(address, None).await?;
                }
                let outcome = match shares.by {
                    ShareBy::Upstream => answer.body.text(),
                    ShareBy::Status => answer.status.to_string(),
                    ShareBy::Mirror => continue,
                };
                *counts.entry(outcome).or_default() += 1;
            }
            Ok::<_, anyhow::Error>(counts)
        };
        let clients = futures::future::try_join_all((0..CLIENTS).map(client)).await?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (outcome, count) in clients.into_iter().flatten() {
            *counts.entry(outcome).or_default() += count;
        }
        if shares.by == ShareBy::Mirror {
            self.mirrored(id, &mut counts).await;
        }
        Ok(counts)
    }

    /// Copies arrive after the answers: they are counted when no more come.
    async fn mirrored(&self, id: &str, counts: &mut BTreeMap<String, u64>) {
        let upstreams = &self.bench.upstreams;
        loop {
            let before = upstreams.seen(id).len();
            upstreams.wait_for(id, before + 1, Duration::from_millis(300)).await;
            if upstreams.seen(id).len() == before {
                break;
            }
        }
        for seen in upstreams.seen(id).iter().filter(|seen| seen.upstream.starts_with("mirror")) {
            *counts.entry(seen.upstream.clone()).or_default() += 1;
        }
    }

    /// Adds what upstreams saw and what the log says.
    async fn complete(&self, observed: &mut Observed, log: &HashMap<String, String>) {
        let upstreams = &self.bench.upstreams;
        let mirrored: usize = self.case.expect.mirrored.values().sum();
        let sent: Vec<(String, String)> = self
            .case
            .all_requests()
            .iter()
            .flat_map(|request| &request.headers)
            .flat_map(|(name, lines)| lines.all().iter().map(move |line| (name.clone(), line.clone())))
            .collect();
        for (id, fields, _) in &mut observed.requests {
            if mirrored > 0 {
                upstreams.wait_for(id, mirrored + self.case.expect.attempts.unwrap_or(1), SETTLE).await;
            }
            upstream_fields(&upstreams.seen(id), &sent, fields);
            match log.get(id).filter(|_| was_understood(fields)) {
                Some(line) => log_fields(line, &prefix(&self.scenario.name), upstreams, fields),
                None if was_understood(fields) => drop(fields.insert("log".into(), "no line".into())),
                None => {}
            }
        }
    }

    fn judge(&self, ours: &Observed, envoy: &Observed) -> Verdict {
        if let Some(wanted) = &self.case.shares {
            let n = u64::from(wanted.requests);
            let problems = shares::judge(&ours.counts, &envoy.counts, n, &wanted.expect, self.bench.threshold);
            return if problems.is_empty() { Verdict::Same } else { Verdict::Failed(problems) };
        }
        let mut problems = Vec::new();
        let mut stated: BTreeMap<&str, bool> =
            self.case.differs.iter().map(|difference| (difference.field.as_str(), false)).collect();
        let several = ours.requests.len() > 1;
        for (index, ((_, ours, _), (_, envoy, _))) in ours.requests.iter().zip(&envoy.requests).enumerate() {
            let number = if several { format!("request {}: ", index + 1) } else { String::new() };
            for mismatch in compare(ours, envoy) {
                if self.case.random.iter().any(|field| covers(field, &mismatch.field)) {
                    continue;
                }
                if let Some((_, used)) = stated.iter_mut().find(|(field, _)| covers(field, &mismatch.field)) {
                    *used = true;
                    continue;
                }
                let show = |value: &Option<String>| value.as_ref().map_or("(none)".to_owned(), |value| format!("{value:?}"));
                problems.push(format!(
                    "{number}{}: ours {}, Envoy {}",
                    mismatch.field,
                    show(&mismatch.ours),
                    show(&mismatch.envoy)
                ));
            }
        }
        for (field, _) in stated.iter().filter(|(_, used)| !**used) {
            problems.push(format!("the stated difference in {field:?} is none"));
        }
        problems
            .extend(self.unexpected(envoy).into_iter().map(|problem| format!("Envoy, against what the case expects: {problem}")));
        if let Some((least, most)) = self.case.expect.took_ms {
            for (side, observed) in [("ours", ours), ("Envoy", envoy)] {
                for (_, _, took) in &observed.requests {
                    let took = took.as_millis();
                    if took < u128::from(least) || took > u128::from(most) {
                        problems.push(format!("{side}: took {took} ms, expected {least} to {most}"));
                    }
                }
            }
        }
        match problems {
            problems if !problems.is_empty() => Verdict::Failed(problems),
            _ if self.case.differs.is_empty() => Verdict::Same,
            _ => Verdict::Stated,
        }
    }

    /// Where Envoy does not do what the case says it tests.
    fn unexpected(&self, observed: &Observed) -> Vec<String> {
        let expect = &self.case.expect;
        let mut problems = Vec::new();
        for (index, (_, fields, _)) in observed.requests.iter().enumerate() {
            let mut check = |field: String, wanted: Option<String>| {
                let found = fields.get(&field).cloned();
                if found != wanted {
                    problems.push(format!("request {}: {field} is {found:?}, not {wanted:?}", index + 1));
                }
            };
            match &expect.status {
                Some(OneOrMany::One(status)) => check("status".into(), Some(status.to_string())),
                Some(OneOrMany::Many(list)) => check("status".into(), list.get(index).map(ToString::to_string)),
                None => {}
            }
            if let Some(lines) = &expect.upstream {
                let wanted = lines.all();
                let wanted = if wanted.len() > 1 { wanted.get(index) } else { wanted.first() };
                let last = fields.get("attempts").cloned().unwrap_or_default();
                let wanted = wanted.filter(|name| !name.is_empty()).cloned();
                check(format!("attempt {last} upstream"), wanted);
            }
            if let Some(attempts) = expect.attempts {
                check("attempts".into(), Some(attempts.to_string()));
            }
            if let Some(flags) = &expect.flags {
                check("log flags".into(), Some(flags.clone()));
            }
            if let Some(details) = &expect.details {
                check("log details".into(), Some(details.clone()));
            }
            if let Some(body) = &expect.body {
                check("body".into(), Some(body.clone()));
            }
            for (name, value) in &expect.headers {
                check(format!("response header {name}"), value.clone());
            }
            for (name, value) in &expect.trailers {
                check(format!("response trailer {name}"), value.clone());
            }
            let last = fields.get("attempts").cloned().unwrap_or_default();
            for (name, value) in &expect.sees {
                let field = match name.as_str() {
                    ":path" => format!("attempt {last} path"),
                    ":method" => format!("attempt {last} method"),
                    ":body" => format!("attempt {last} body"),
                    ":version" => format!("attempt {last} version"),
                    ":tls" => format!("attempt {last} tls"),
                    name => format!("attempt {last} header {name}"),
                };
                check(field, value.clone());
            }
            for (mirror, count) in &expect.mirrored {
                check(format!("{mirror} requests"), (*count > 0).then(|| count.to_string()));
            }
        }
        problems
    }
}

/// Whether a stated field means this one; `attempt * x` means every attempt's.
fn covers(stated: &str, field: &str) -> bool {
    match stated.split_once('*') {
        None => stated == field,
        Some((start, end)) => field.len() >= start.len() + end.len() && field.starts_with(start) && field.ends_with(end),
    }
}

/// Whether a request became one: not where the connection ended without a response, nor where the codec refused it, which is told by
/// a body that repeats the status.
fn was_understood(fields: &Fields) -> bool {
    const REFUSALS: [&str; 4] = ["Bad Request", "Forbidden", "Upgrade Required", "Not Implemented"];
    let status = fields.get("status").map_or("0", String::as_str);
    let refused = fields.get("body").is_some_and(|body| REFUSALS.contains(&body.as_str()) || body.is_empty() && status == "400");
    status != "0" && !(refused && fields.get("response header connection").is_some_and(|value| value == "close"))
}

/// The folder of this crate's data.
pub fn data() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How many tests the shares of all subjects make.
pub fn number_of_tests(subjects: &[Subject]) -> usize {
    let cases = subjects.iter().flat_map(|subject| &subject.scenarios).flat_map(|scenario| &scenario.cases);
    cases.filter_map(|case| case.shares.as_ref()).map(|shares| shares::number_of_tests(shares.expect.len())).sum()
}

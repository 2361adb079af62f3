//! The TCP proxy: policies, a cluster by weight, an endpoint, bytes.

use std::sync::Arc;

use meshlab_proxy_config::Direction;
use rand::Rng;

use super::copy::{End, copy_both};
use super::peer_exchange::exchange;
use crate::access::{AccessInput, Denial};
use crate::cluster::breaker::Resource;
use crate::cluster::connect::{self, ClientAddresses, ConnectError};
use crate::cluster::host::Host;
use crate::cluster::members::Choice;
use crate::cluster::outlier::{self, HostOutcome};
use crate::cluster::pool::ConnectionFacts;
use crate::cluster::{Cluster, xxh64};
use crate::drain::DrainState;
use crate::flags::Flags;
use crate::io::BoxIo;
use crate::listener::chain::TcpChain;
use crate::options::milliseconds;
use crate::proxy::Shared;
use crate::stream::{Downstream, StreamInfo};
use crate::telemetry::Telemetry;
use crate::telemetry::format::View;
use crate::telemetry::metrics::Series;
use crate::tls::client::Inner;

/// Envoy's `max_connect_attempts`.
const CONNECT_ATTEMPTS: u32 = 1;

/// A TCP connection that is reported when it ends, however it ends.
struct Session {
    info: StreamInfo,
    proxy: Arc<Shared>,
    telemetry: Arc<Telemetry>,
    series: Option<Arc<Series>>,
}

impl Session {
    /// Counts the connection as open, once it is known where it goes.
    fn opened(&mut self) {
        let view = View { info: &self.info, telemetry: &self.telemetry, request_headers: None, response_headers: None };
        let service = self.info.cluster.as_ref().map(|cluster| &cluster.service);
        self.series = self.proxy.metrics.series(view, service);
        if let Some(series) = &self.series {
            series.tcp_opened();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.series.is_none() {
            self.opened();
        }
        if let Some(series) = &self.series {
            series.tcp_closed();
            series.tcp_received.add(self.info.bytes_received);
            series.tcp_sent.add(self.info.bytes_sent);
        }
        log(&self.proxy, &self.telemetry, &self.info);
    }
}

fn log(proxy: &Shared, telemetry: &Telemetry, info: &StreamInfo) {
    let view = View { info, telemetry, request_headers: None, response_headers: None };
    for log in telemetry.logs_on(info.connection.direction) {
        if let Some(line) = log.line(view) {
            proxy.options.access_log.write(&line);
        }
    }
}

/// Logs a connection that never came to be passed on.
pub(crate) fn log_refused(proxy: &Arc<Shared>, info: StreamInfo) {
    let telemetry = proxy.snapshot.load().telemetry.clone();
    log(proxy, &telemetry, &info);
}

/// Passes one connection on.
pub(crate) async fn serve(proxy: Arc<Shared>, chain: Arc<TcpChain>, connection: Arc<Downstream>, mut client: BoxIo) {
    let snapshot = proxy.snapshot.load_full();
    let mut session = Session {
        info: StreamInfo::new(connection.clone()),
        telemetry: snapshot.telemetry.clone(),
        proxy: proxy.clone(),
        series: None,
    };
    if connection.tls.as_ref().is_some_and(|tls| tls.peer_exchange) {
        let (io, peer) = match exchange(&proxy, &session.telemetry.workload, client).await {
            Ok(exchanged) => exchanged,
            Err(error) => {
                session.info.flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
                session.info.termination_details = Some(error.to_string().into());
                return;
            }
        };
        client = io;
        // A gateway reports as a source: its peer is the upstream's.
        session.info.peer = peer.filter(|_| connection.direction == Direction::Inbound);
    }
    let input = AccessInput { connection: &connection, remote: connection.peer.ip(), http: None, claims: None };
    if let Err(Denial { details }) = chain.access.check(&input) {
        session.info.termination_details = Some(details);
        return;
    }
    let name = choose(&chain);
    let Some(cluster) = snapshot.clusters.get(name).cloned() else {
        session.info.flag(Flags::NO_CLUSTER);
        return;
    };
    drop(snapshot);
    session.info.cluster = Some(cluster.clone());
    cluster.warmed().await;
    let Some(permit) = cluster.breaker.acquire(Resource::Connections) else {
        cluster.stats.upstream_cx_overflow.increment();
        session.info.flag(Flags::UPSTREAM_OVERFLOW);
        return;
    };
    let hash = Some(xxh64(connection.peer.ip().to_string().as_bytes(), 0));
    let addresses = Some(ClientAddresses { source: connection.peer, destination: connection.local });
    for attempt in 1..=CONNECT_ATTEMPTS {
        let choice = Choice { hash, avoid: &[], original_destination: Some(connection.local) };
        let Some(host) = cluster.choose(choice) else {
            session.info.flag(Flags::NO_HEALTHY_UPSTREAM);
            return;
        };
        session.info.attempts = attempt;
        session.info.host = Some(host.clone());
        let opened = connect(&proxy, &mut session, &cluster, &host, addresses).await;
        let (facts, mut upstream) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                outlier::observe(&cluster, &host, HostOutcome::LocalFailure);
                session.info.flag(Flags::UPSTREAM_CONNECTION_FAILURE);
                session.info.transport_failure = Some(error.to_string());
                if attempt == CONNECT_ATTEMPTS {
                    session.info.flag(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                }
                continue;
            }
        };
        outlier::observe(&cluster, &host, HostOutcome::Status(200));
        session.info.upstream = Some(Arc::new(facts));
        session.opened();
        let _active = host.start_request();
        cluster.stats.upstream_cx_active.increment();
        let idle = (chain.config.idle_timeout_ms > 0).then(|| milliseconds(chain.config.idle_timeout_ms));
        let copied = tokio::select! {
            copied = copy_both(&mut client, &mut upstream, idle, End::Both) => copied,
            () = connection.registration.reached(DrainState::Forced) => Default::default(),
        };
        session.info.bytes_received = copied.from_client;
        session.info.bytes_sent = copied.from_upstream;
        if copied.upstream_error {
            session.info.flag(Flags::UPSTREAM_CONNECTION_TERMINATION);
        }
        if copied.client_error {
            session.info.flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
        }
        if copied.idle {
            session.info.termination_details = Some("idle_timeout".into());
        }
        cluster.stats.upstream_cx_active.decrement();
        cluster.stats.upstream_cx_destroy.increment();
        drop(permit);
        return;
    }
}

/// Opens the connection to an endpoint, as far as the application's bytes can follow.
async fn connect(
    proxy: &Shared,
    session: &mut Session,
    cluster: &Cluster,
    host: &Host,
    client: Option<ClientAddresses>,
) -> Result<(ConnectionFacts, BoxIo), ConnectError> {
    let transport = connect::open(cluster, host, Inner::Tcp, client).await?;
    let facts = ConnectionFacts::of(cluster, &transport);
    if !transport.peer_exchange {
        return Ok((facts, transport.io));
    }
    let exchanged = exchange(proxy, &session.telemetry.workload, transport.io).await;
    let (io, peer) = exchanged.map_err(|error| ConnectError::Tcp(error.to_string()))?;
    session.info.peer = peer;
    Ok((facts, io))
}

fn choose(chain: &TcpChain) -> &str {
    let clusters = &chain.config.clusters;
    if clusters.len() > 1 {
        let mut draw = rand::rng().random_range(0..chain.total_weight);
        for cluster in clusters {
            let weight = u64::from(cluster.weight);
            if draw < weight {
                return &cluster.cluster;
            }
            draw -= weight;
        }
    }
    clusters.first().map_or("", |cluster| &cluster.cluster)
}

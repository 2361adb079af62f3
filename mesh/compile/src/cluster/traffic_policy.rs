//! A DestinationRule's policies in the form of a cluster.

use meshlab_istio_api::{
    ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection as ApiOutlierDetection, ProxyProtocol as ApiProxyProtocol,
    ProxyProtocolVersion, SimpleLb, TcpKeepalive as ApiKeepalive,
};
use meshlab_proxy_config::{CircuitBreaker, LoadBalancer, OutlierDetection, ProxyProtocol, TcpKeepalive};

/// Istio's smallest hash ring.
const MINIMUM_RING_SIZE: u64 = 1024;
/// Envoy's Maglev table.
const MAGLEV_TABLE_SIZE: u64 = 65_537;

pub(super) fn load_balancer(settings: Option<&LoadBalancerSettings>) -> LoadBalancer {
    let Some(settings) = settings else { return LoadBalancer::LeastRequest { warmup_ms: 0 } };
    let warmup = settings.warmup.as_ref().and_then(|warmup| warmup.duration).or(settings.warmup_duration_secs);
    let warmup_ms = warmup.map_or(0, |duration| duration.millis());
    if let Some(hash) = &settings.consistent_hash {
        if let Some(maglev) = &hash.maglev {
            return LoadBalancer::Maglev {
                table_size: if maglev.table_size == 0 { MAGLEV_TABLE_SIZE } else { maglev.table_size },
            };
        }
        let size = hash.ring_hash.as_ref().map_or(hash.minimum_ring_size, |ring| ring.minimum_ring_size);
        return LoadBalancer::RingHash { minimum_ring_size: if size == 0 { MINIMUM_RING_SIZE } else { size } };
    }
    match settings.simple.unwrap_or_default() {
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => LoadBalancer::LeastRequest { warmup_ms },
        SimpleLb::RoundRobin => LoadBalancer::RoundRobin { warmup_ms },
        SimpleLb::Random => LoadBalancer::Random,
        SimpleLb::Passthrough => LoadBalancer::Passthrough,
    }
}

/// Zero is no limit, as everywhere in Istio.
pub(super) fn circuit_breaker(pool: Option<&ConnectionPoolSettings>) -> CircuitBreaker {
    let limit =
        |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(u32::MAX);
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    CircuitBreaker {
        max_connections: limit(tcp.map(|tcp| tcp.max_connections)),
        max_pending_requests: limit(http.map(|http| http.http1_max_pending_requests)),
        max_requests: limit(http.map(|http| http.http2_max_requests)),
        max_retries: limit(http.map(|http| http.max_retries)),
    }
}

pub(super) fn outlier_detection(settings: &ApiOutlierDetection) -> OutlierDetection {
    let percent = |value: i32, default: u32| u32::try_from(value).ok().filter(|value| *value > 0).unwrap_or(default);
    OutlierDetection {
        consecutive_5xx: settings.consecutive_5xx_errors.unwrap_or(5),
        consecutive_gateway_errors: settings.consecutive_gateway_errors.unwrap_or(0),
        split_local_errors: settings.split_external_local_origin_errors,
        consecutive_local_origin_failures: settings.consecutive_local_origin_failures.unwrap_or(5),
        interval_ms: settings.interval.map_or(10_000, |interval| interval.millis()),
        base_ejection_ms: settings.base_ejection_time.map_or(30_000, |time| time.millis()),
        max_ejection_percent: percent(settings.max_ejection_percent, 10),
        min_health_percent: percent(settings.min_health_percent, 0),
    }
}

pub(super) fn keepalive(settings: &ApiKeepalive) -> TcpKeepalive {
    let seconds = |duration: meshlab_istio_api::Duration| u32::try_from(duration.seconds()).ok();
    TcpKeepalive {
        probes: Some(settings.probes).filter(|probes| *probes > 0),
        time_s: settings.time.and_then(seconds),
        interval_s: settings.interval.and_then(seconds),
    }
}

pub(super) fn proxy_protocol(settings: &ApiProxyProtocol) -> ProxyProtocol {
    match settings.version {
        ProxyProtocolVersion::V1 => ProxyProtocol::V1,
        ProxyProtocolVersion::V2 => ProxyProtocol::V2,
    }
}

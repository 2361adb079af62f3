//! DestinationRule.

use std::collections::BTreeSet;

use super::check::{Check, is_fqdn, is_wildcard_host};
use crate::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, LocalityLbSetting, Object,
    OutlierDetection, TlsMode, TrafficPolicy,
};

/// Envoy's largest Maglev table.
const MAX_MAGLEV_TABLE: u64 = 5_000_011;

pub(super) fn check(object: &Object<DestinationRule>, check: &mut Check) {
    let spec = &object.spec;
    if spec.host.is_empty() {
        check.error("spec.host", "is required");
    } else if !is_wildcard_host(&spec.host) {
        check.error("spec.host", format!("{:?} is not a host name", spec.host));
    }
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(policy, "spec.trafficPolicy", check);
    }
    let mut names = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        check.required(format!("{path}.name"), &subset.name);
        if !names.insert(&subset.name) {
            check.error(format!("{path}.name"), format!("subset {:?} stands here twice", subset.name));
        }
        check.labels(&subset.labels, &format!("{path}.labels"));
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(policy, &format!("{path}.trafficPolicy"), check);
        }
    }
    check.selector(spec.workload_selector.as_ref(), "spec.workloadSelector");
    check.export_to(&spec.export_to, &object.meta.namespace, false);
    if spec.workload_selector.is_some() && spec.export_to.iter().any(|entry| entry != "." && *entry != object.meta.namespace) {
        check.error("spec.exportTo", "a rule for some workloads cannot be exported beyond its own namespace");
    }
}

fn traffic_policy(policy: &TrafficPolicy, path: &str, check: &mut Check) {
    if *policy == TrafficPolicy::default() {
        check.error(path, "at least one field is needed");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        check.error(path, "tunnel and proxyProtocol exclude each other");
    }
    blocks(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        path,
        check,
    );
    for (index, own) in policy.port_level_settings.iter().enumerate() {
        let place = format!("{path}.portLevelSettings[{index}]");
        match own.port {
            Some(port) => check.port(port.number, format!("{place}.port.number")),
            None => check.error(format!("{place}.port"), "is required"),
        }
        if own.load_balancer.is_none() && own.connection_pool.is_none() && own.outlier_detection.is_none() && own.tls.is_none() {
            check.error(&place, "at least one field beside port is needed");
        }
        blocks(
            own.load_balancer.as_ref(),
            own.connection_pool.as_ref(),
            own.outlier_detection.as_ref(),
            own.tls.as_ref(),
            &place,
            check,
        );
    }
    if let Some(tunnel) = &policy.tunnel {
        if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
            check.error(format!("{path}.tunnel.protocol"), format!("{:?} is not CONNECT or POST", tunnel.protocol));
        }
        if !is_fqdn(&tunnel.target_host) {
            check.error(
                format!("{path}.tunnel.targetHost"),
                format!("{:?} is neither a host name nor an address", tunnel.target_host),
            );
        }
        check.port(tunnel.target_port, format!("{path}.tunnel.targetPort"));
        check.warning(format!("{path}.tunnel"), "tunnelling is not done by the proxy here");
    }
    if policy.retry_budget.is_some() {
        check.warning(
            format!("{path}.retryBudget"),
            "retry budgets are not kept by the proxy here; connectionPool.http.maxRetries is",
        );
    }
}

fn blocks(
    load_balancer: Option<&LoadBalancerSettings>,
    pool: Option<&ConnectionPoolSettings>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTlsSettings>,
    path: &str,
    check: &mut Check,
) {
    if let Some(settings) = load_balancer {
        load_balancing(settings, outlier, &format!("{path}.loadBalancer"), check);
    }
    if let Some(pool) = pool {
        connection_pool(pool, &format!("{path}.connectionPool"), check);
    }
    if let Some(outlier) = outlier {
        outlier_detection(outlier, &format!("{path}.outlierDetection"), check);
    }
    if let Some(tls) = tls {
        client_tls(tls, &format!("{path}.tls"), check);
    }
}

fn outlier_detection(outlier: &OutlierDetection, path: &str, check: &mut Check) {
    if outlier.consecutive_errors != 0 {
        check.warning(
            format!("{path}.consecutiveErrors"),
            "is deprecated and has no effect; use consecutive5xxErrors or consecutiveGatewayErrors",
        );
    }
    if !outlier.split_external_local_origin_errors && outlier.consecutive_local_origin_failures.unwrap_or(0) > 0 {
        check.error(format!("{path}.consecutiveLocalOriginFailures"), "needs splitExternalLocalOriginErrors: true");
    }
    for (field, percent) in
        [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)]
    {
        if !(0..=100).contains(&percent) {
            check.error(format!("{path}.{field}"), format!("a percentage is between 0 and 100, not {percent}"));
        }
    }
    for (index, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(code) {
            check.error(format!("{path}.outlierDetectionHttpErrorCodes[{index}]"), format!("{code} is not an HTTP status"));
        }
    }
}

pub(super) fn connection_pool(pool: &ConnectionPoolSettings, path: &str, check: &mut Check) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(path, "one of tcp and http is needed");
    }
    if let Some(http) = &pool.http {
        let path = format!("{path}.http");
        check.non_negative(format!("{path}.http1MaxPendingRequests"), http.http1_max_pending_requests);
        check.non_negative(format!("{path}.http2MaxRequests"), http.http2_max_requests);
        check.non_negative(format!("{path}.maxRequestsPerConnection"), http.max_requests_per_connection);
        check.non_negative(format!("{path}.maxRetries"), http.max_retries);
        check.non_negative(format!("{path}.maxConcurrentStreams"), http.max_concurrent_streams);
        if http.use_client_protocol && http.h2_upgrade_policy == crate::H2UpgradePolicy::Upgrade {
            check.error(format!("{path}.useClientProtocol"), "excludes h2UpgradePolicy: UPGRADE");
        }
        if let Some(keepalive) = &http.http2_keep_alive {
            for (field, set) in [("interval", keepalive.interval.is_some()), ("timeout", keepalive.timeout.is_some())] {
                if !set {
                    check.error(format!("{path}.http2KeepAlive.{field}"), "is required");
                }
            }
        }
    }
    if let Some(tcp) = &pool.tcp {
        check.non_negative(format!("{path}.tcp.maxConnections"), tcp.max_connections);
    }
}

fn load_balancing(settings: &LoadBalancerSettings, outlier: Option<&OutlierDetection>, path: &str, check: &mut Check) {
    check.at_most_one(path, &[("simple", settings.simple.is_some()), ("consistentHash", settings.consistent_hash.is_some())]);
    if let Some(hash) = &settings.consistent_hash {
        let path = format!("{path}.consistentHash");
        check.at_most_one(
            &path,
            &[
                ("httpHeaderName", hash.http_header_name.is_some()),
                ("httpCookie", hash.http_cookie.is_some()),
                ("useSourceIp", hash.use_source_ip.is_some()),
                ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
            ],
        );
        check.at_most_one(&path, &[("ringHash", hash.ring_hash.is_some()), ("maglev", hash.maglev.is_some())]);
        if let Some(cookie) = &hash.http_cookie {
            check.required(format!("{path}.httpCookie.name"), &cookie.name);
            let mut names = BTreeSet::new();
            for (index, attribute) in cookie.attributes.iter().enumerate() {
                let place = format!("{path}.httpCookie.attributes[{index}].name");
                check.required(&place, &attribute.name);
                if !names.insert(&attribute.name) {
                    check.error(place, format!("attribute {:?} stands here twice", attribute.name));
                }
            }
        }
        if hash.minimum_ring_size != 0 {
            check.warning(format!("{path}.minimumRingSize"), "is deprecated; use ringHash.minimumRingSize");
            if hash.ring_hash.is_some() || hash.maglev.is_some() {
                check.error(format!("{path}.minimumRingSize"), "excludes ringHash and maglev");
            }
        }
        if let Some(maglev) = &hash.maglev
            && (maglev.table_size >= MAX_MAGLEV_TABLE || !is_prime(maglev.table_size))
        {
            check.error(
                format!("{path}.maglev.tableSize"),
                format!("{} is not a prime below {MAX_MAGLEV_TABLE}", maglev.table_size),
            );
        }
    }
    check.at_most_one(
        path,
        &[
            ("localityLbSetting", settings.locality_lb_setting.is_some()),
            ("zoneAwareLbSetting", settings.zone_aware_lb_setting.is_some()),
        ],
    );
    if let Some(locality) = &settings.locality_lb_setting {
        locality_setting(locality, outlier, &format!("{path}.localityLbSetting"), check);
    }
    if settings.zone_aware_lb_setting.is_some() {
        check.warning(
            format!("{path}.zoneAwareLbSetting"),
            "zone-aware routing is not done by the proxy here; localityLbSetting is",
        );
    }
    if let Some(warmup) = &settings.warmup {
        if warmup.duration.is_none() {
            check.error(format!("{path}.warmup.duration"), "is required");
        }
        if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            check.error(format!("{path}.warmup.minimumPercent"), "a percentage is between 0 and 100");
        }
        if warmup.aggression.is_some_and(|aggression| aggression <= 0.0) {
            check.error(format!("{path}.warmup.aggression"), "is greater than 0");
        }
    }
}

fn locality_setting(setting: &LocalityLbSetting, outlier: Option<&OutlierDetection>, path: &str, check: &mut Check) {
    check.at_most_one(path, &[("distribute", !setting.distribute.is_empty()), ("failover", !setting.failover.is_empty())]);
    check.at_most_one(
        path,
        &[("distribute", !setting.distribute.is_empty()), ("failoverPriority", !setting.failover_priority.is_empty())],
    );
    for (index, rule) in setting.distribute.iter().enumerate() {
        let sum: u64 = rule.to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 {
            check.error(format!("{path}.distribute[{index}].to"), format!("the shares add up to {sum}, not 100"));
        }
        if rule.to.values().any(|share| *share == 0) {
            check.error(format!("{path}.distribute[{index}].to"), "a share cannot be 0; leave the locality out");
        }
    }
    for (index, failover) in setting.failover.iter().enumerate() {
        let place = format!("{path}.failover[{index}]");
        if failover.from == failover.to {
            check.error(&place, "a region cannot fail over to itself");
        }
        for (field, region) in [("from", &failover.from), ("to", &failover.to)] {
            if region.contains('*') || region.contains('/') || region.is_empty() {
                check.error(format!("{place}.{field}"), format!("{region:?} is not a region"));
            }
        }
    }
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    if fails_over && outlier.is_none() {
        check.warning(path, "failing over needs outlierDetection to find out what failed");
    }
}

fn client_tls(tls: &ClientTlsSettings, path: &str, check: &mut Check) {
    if tls.insecure_skip_verify == Some(true) && tls.mode == TlsMode::Simple && !tls.ca_certificates.is_empty() {
        check.error(format!("{path}.insecureSkipVerify"), "excludes caCertificates");
    }
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    if !tls.credential_name.is_empty() && files.iter().any(|(_, file)| !file.is_empty()) {
        check.error(format!("{path}.credentialName"), "excludes clientCertificate, privateKey and caCertificates");
    }
    match tls.mode {
        TlsMode::Mutual if tls.credential_name.is_empty() => {
            check.required(format!("{path}.clientCertificate"), &tls.client_certificate);
            check.required(format!("{path}.privateKey"), &tls.private_key);
        }
        TlsMode::IstioMutual => {
            for (field, file) in files {
                if !file.is_empty() {
                    check.error(format!("{path}.{field}"), "ISTIO_MUTUAL uses the mesh's own certificates");
                }
            }
        }
        TlsMode::Disable | TlsMode::Simple | TlsMode::Mutual => {}
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

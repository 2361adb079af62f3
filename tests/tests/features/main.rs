//! The mesh's features from `kubectl apply` to traffic: each is applied to one embedded cluster, seen to work by requests of its pods,
//! and deleted again. `docs/semantics.md` lists them.

mod destinations;
mod external;
mod gateways;
#[expect(dead_code, reason = "what only the tests of the course need")]
#[path = "../phase3/lab.rs"]
mod lab;
mod routing;
mod security;
mod servers;
mod world;

use anyhow::{Result, ensure};
use futures::future::LocalBoxFuture;

use world::World;

type Feature = (&'static str, for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>);

macro_rules! features {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), |world| Box::pin($module::$name(world)))),*),*]
    };
}

const FEATURES: &[Feature] = features! {
    routing: every_match, actions, weights, delegates, retries_timeouts_and_faults, mirroring_and_cors, tcp_routes, protocols,
        protocol_detection, headers_and_flags;
    destinations: round_robin, hash_by_header, hash_by_cookie, hash_by_source_address, hash_by_query, other_load_balancers,
        tls_modes, port_level_settings, connection_pools, outlier_detection, localities;
    gateways: hosts_and_redirects, simple_tls, mutual_tls, passthrough;
    external: registry_only, every_resolution, sidecar_scoping, tls_origination, tls_routes_by_server_name;
    security: certificates_and_identities, peer_authentication, allow_and_deny, audit, custom_over_http, custom_over_grpc,
        request_authentication, keys_by_uri, claims_in_routes;
};

/// One cluster for all: to start it costs more than a feature does. `FEATURE=gateways` tries those whose name has that in it.
#[tokio::test(flavor = "multi_thread")]
async fn every_feature_works_from_kubectl_to_traffic() -> Result<()> {
    let world = World::start().await?;
    let wanted = std::env::var("FEATURE").unwrap_or_default();
    let mut failures = Vec::new();
    for (name, feature) in FEATURES.iter().filter(|(name, _)| name.contains(&wanted)) {
        if let Err(error) = feature(&world).await {
            failures.push(format!("{name}: {error:#}\n{}", world.last_lines().await));
        }
    }
    world.stop().await;
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

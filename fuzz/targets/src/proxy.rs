//! One proxy for all inputs, whose every connection comes from a client that says what the fuzzer likes: sniffing, HTTP/1 heads and
//! bodies, HTTP/2 frames and floods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshlab_net::{HostOptions, Net, VirtualNet, VirtualNetOptions};
use meshlab_proxy::{Proxy, ProxyOptions};
use meshlab_proxy_config::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

struct Fixture {
    runtime: Runtime,
    client: meshlab_net::PodNet,
    address: SocketAddr,
    _proxy: Proxy<meshlab_net::PodNet>,
}

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
}

impl Fixture {
    fn new() -> Self {
        // The clock stands still while anything moves, and jumps to the next timer when nothing does.
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let _inside = runtime.enter();
        let network = VirtualNet::new(VirtualNetOptions::default());
        let host = |address: &str| {
            network.attach(address.parse().expect("an address"), HostOptions::external(address)).expect("the address is free")
        };
        let (server, client) = (host("10.244.0.2"), host("10.244.0.3"));
        let proxy = Proxy::start(server, ProxyOptions { admin_address: None, ..ProxyOptions::default() });
        proxy.apply(Arc::new(config())).expect("the configuration is good");
        let address = proxy.bound_address("l").expect("the listener is bound");
        drop(_inside);
        Self { runtime, client, address, _proxy: proxy }
    }
}

fn config() -> ProxyConfig {
    let origin = Origin { kind: "VirtualService".into(), namespace: "default".into(), name: "fuzz".into(), path: String::new() };
    let route = Route {
        name: "default".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            ignore_path_case: false,
            headers: Vec::new(),
            query: Vec::new(),
            claims: Vec::new(),
        },
        action: RouteAction::DirectResponse { status: 200, body: "fuzz".into() },
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
        fault: None,
        cors: None,
        operation: String::new(),
        origin: Some(origin),
    };
    let http = HttpConnection {
        route_config: "r".into(),
        stat_prefix: "fuzz".into(),
        edge: EdgePolicy::Gateway { trusted_proxies: 1 },
        access: HttpAccess::default(),
        stream_idle_timeout_ms: 1000,
        path_normalization: PathNormalization::DecodeAndMergeSlashes,
    };
    let chain =
        FilterChain { name: "http".into(), matches: FilterChainMatch::default(), tls: None, protocol: ChainProtocol::Http(http) };
    let listener = Listener {
        name: "l".into(),
        address: "10.244.0.2:80".parse().expect("an address"),
        bind: true,
        use_original_destination: false,
        direction: Direction::Gateway,
        filter_chains: vec![chain],
        default_filter_chain: None,
    };
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], routes: vec![route], require_tls: false };
    let routes = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host.into()], ignore_port_in_host: true };
    let log = AccessLog { format: LogFormat::Text("%REQ(:PATH)% %RESPONSE_FLAGS%\n".into()), filter: None, client: None };
    ProxyConfig {
        listeners: BTreeMap::from([("l".to_owned(), Arc::new(listener))]),
        routes: BTreeMap::from([("r".to_owned(), Arc::new(routes))]),
        telemetry: Arc::new(TelemetryConfig { access_logs: vec![log], ..TelemetryConfig::default() }),
        ..ProxyConfig::default()
    }
}

/// Sends `bytes`, then nothing more, and reads what comes back to its end.
pub(crate) fn connection(bytes: &[u8]) {
    FIXTURE.with(|fixture| {
        fixture.runtime.block_on(async {
            let stream = fixture.client.connect(fixture.address).await.expect("the proxy accepts");
            let (mut read, mut write) = tokio::io::split(stream);
            let sending = async {
                // The proxy may hang up before it has read everything.
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            };
            let receiving = async {
                let mut buffer = vec![0; 64 << 10];
                while read.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            };
            let exchange = async { tokio::join!(sending, receiving) };
            let ended = tokio::time::timeout(Duration::from_secs(4000), exchange).await;
            assert!(ended.is_ok(), "the connection outlives every timeout");
        });
    });
}

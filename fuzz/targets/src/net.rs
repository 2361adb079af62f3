//! Names and redirection.

use std::cell::RefCell;
use std::net::IpAddr;

use meshlab_net::{HostOptions, Net, PodNet, Record, Redirect, Selection, VirtualNet, VirtualNetOptions};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static POD: RefCell<(Runtime, VirtualNet, PodNet)> = RefCell::new(pod());
}

/// A pod in a network that knows a service, a headless service without pods and an `ExternalName` that leads to itself.
fn pod() -> (Runtime, VirtualNet, PodNet) {
    let network = VirtualNet::new(VirtualNetOptions::default());
    let pod = network.attach(IpAddr::from([10, 244, 0, 9]), HostOptions::pod("box", "default", "cluster.local"));
    network.upsert_record("web.default.svc.cluster.local", Record::Addresses(vec![IpAddr::from([10, 96, 0, 9])]));
    network.upsert_record("none.default.svc.cluster.local", Record::Addresses(Vec::new()));
    network.upsert_record("loop.default.svc.cluster.local", Record::Cname("loop.default.svc.cluster.local.".to_owned()));
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, network, pod.expect("the address is free"))
}

/// A name that a program in a pod asks for, and one that a Service gives itself: `name` or `name -> target`.
pub(crate) fn host_name(text: &str) {
    POD.with_borrow(|(runtime, network, pod)| {
        let (name, target) = text.split_once("->").unwrap_or((text, "web"));
        network.upsert_record("alias.default.svc.cluster.local", Record::Cname(target.to_owned()));
        for name in [name, "alias"] {
            let _ = runtime.block_on(pod.resolve(name));
        }
    });
}

/// The values of `traffic.sidecar.istio.io/*`.
pub(crate) fn redirect_annotations(text: &str) {
    let _ = (Redirect::ports(text), Redirect::ip_ranges(text));
    let _ = (Selection::ports(text), Selection::ip_ranges(text));
}

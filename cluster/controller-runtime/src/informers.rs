//! The caches that the controllers and the kubelet of one cluster share: one watch per kind, however many look at it.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::Informer;

/// One [`Informer`] for every kind that is read in more than one place.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the informer of the kind it is named after")]
pub struct Informers {
    pub config_maps: Informer<ConfigMap>,
    pub deployments: Informer<Deployment>,
    pub endpoint_slices: Informer<EndpointSlice>,
    pub endpoints: Informer<Endpoints>,
    pub jobs: Informer<Job>,
    pub namespaces: Informer<Namespace>,
    pub nodes: Informer<Node>,
    pub pods: Informer<Pod>,
    pub replica_sets: Informer<ReplicaSet>,
    pub secrets: Informer<Secret>,
    pub service_accounts: Informer<ServiceAccount>,
    pub services: Informer<Service>,
}

impl Informers {
    /// Begins all the watches; they end when `stop` is cancelled.
    pub fn start(client: &Client, stop: &CancellationToken) -> Self {
        let client = || client.clone();
        let stop = || stop.clone();
        Self {
            config_maps: Informer::start(Api::all(client()), stop()),
            deployments: Informer::start(Api::all(client()), stop()),
            endpoint_slices: Informer::start(Api::all(client()), stop()),
            endpoints: Informer::start(Api::all(client()), stop()),
            jobs: Informer::start(Api::all(client()), stop()),
            namespaces: Informer::start(Api::all(client()), stop()),
            nodes: Informer::start(Api::all(client()), stop()),
            pods: Informer::start(Api::all(client()), stop()),
            replica_sets: Informer::start(Api::all(client()), stop()),
            secrets: Informer::start(Api::all(client()), stop()),
            service_accounts: Informer::start(Api::all(client()), stop()),
            services: Informer::start(Api::all(client()), stop()),
        }
    }

    /// Waits until every cache holds its first list.
    pub async fn synced(&self) {
        tokio::join!(
            self.config_maps.synced(),
            self.deployments.synced(),
            self.endpoint_slices.synced(),
            self.endpoints.synced(),
            self.jobs.synced(),
            self.namespaces.synced(),
            self.nodes.synced(),
            self.pods.synced(),
            self.replica_sets.synced(),
            self.secrets.synced(),
            self.service_accounts.synced(),
            self.services.synced(),
        );
    }
}

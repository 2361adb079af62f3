//! `proxy-status`.

use serde::Deserialize;

use super::table::table;

/// One entry of istiod's `/debug/syncz`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// `reviews-v1-abc.default`
    pub proxy: String,
    /// `Kubernetes`
    pub cluster_id: String,
    /// The istiod it is connected to.
    pub istiod: String,
    /// Its version.
    pub istio_version: String,
    /// SYNCED, STALE, NOT SENT or ERROR.
    pub status: String,
    /// What it gets: CDS, LDS, EDS, RDS and, at a gateway, SDS.
    pub types: Vec<String>,
}

/// One line for each proxy.
pub fn proxy_status(proxies: &[SyncStatus]) -> String {
    let rows = proxies.iter().map(|proxy| {
        let types = format!("{} ({})", proxy.types.len(), proxy.types.join(","));
        [proxy.proxy.clone(), proxy.cluster_id.clone(), proxy.istiod.clone(), proxy.istio_version.clone(), types]
    });
    table(["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"], rows)
}

/// One line for each proxy with the state of every type (`-v 1`).
pub fn proxy_status_verbose(proxies: &[SyncStatus]) -> String {
    let rows = proxies.iter().map(|proxy| {
        let state = |kind: &str| {
            let subscribed = proxy.types.iter().any(|had| had == kind);
            if subscribed { proxy.status.clone() } else { "IGNORED".to_owned() }
        };
        [
            proxy.proxy.clone(),
            proxy.cluster_id.clone(),
            state("CDS"),
            state("LDS"),
            state("EDS"),
            state("RDS"),
            state("ECDS"),
            proxy.istiod.clone(),
            proxy.istio_version.clone(),
        ]
    });
    table(["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ECDS", "ISTIOD", "VERSION"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Vec<SyncStatus> {
        let proxy = |name: &str, status: &str, types: &[&str]| SyncStatus {
            proxy: name.into(),
            cluster_id: "Kubernetes".into(),
            istiod: "istiod-5d4f-x".into(),
            istio_version: "0.1.0".into(),
            status: status.into(),
            types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        };
        vec![
            proxy("istio-ingressgateway-7b-a.istio-system", "SYNCED", &["CDS", "LDS"]),
            proxy("sleep-1.default", "STALE", &["CDS", "LDS", "EDS", "RDS"]),
        ]
    }

    #[test]
    fn proxies_are_listed() {
        insta::assert_snapshot!(proxy_status(&proxies()), @r#"
        NAME                                       CLUSTER        ISTIOD            VERSION     SUBSCRIBED TYPES
        istio-ingressgateway-7b-a.istio-system     Kubernetes     istiod-5d4f-x     0.1.0       2 (CDS,LDS)
        sleep-1.default                            Kubernetes     istiod-5d4f-x     0.1.0       4 (CDS,LDS,EDS,RDS)
        "#);
        insta::assert_snapshot!(proxy_status_verbose(&proxies()), @r#"
        NAME                                       CLUSTER        CDS        LDS        EDS         RDS         ECDS        ISTIOD            VERSION
        istio-ingressgateway-7b-a.istio-system     Kubernetes     SYNCED     SYNCED     IGNORED     IGNORED     IGNORED     istiod-5d4f-x     0.1.0
        sleep-1.default                            Kubernetes     STALE      STALE      STALE       STALE       IGNORED     istiod-5d4f-x     0.1.0
        "#);
    }
}

//! `explain`: one request, and who decided what about it: gateway and sidecars along the way tell their decision trail.

mod send;
#[cfg(test)]
mod tests;
pub(crate) mod trail;
mod tree;
mod words;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use meshlab_checks::{Lab, Text};
use meshlab_probe_protocol::{FailureKind, HttpRequest, Outcome};
use serde::Serialize;

pub(crate) use self::send::{Origin, check_url};
use self::trail::Hop;
pub(crate) use self::tree::render;
use crate::error::CommandError;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub method: String,
    pub url: String,
    pub headers: BTreeMap<String, String>,
    /// A client of the lab, or `namespace/pod`.
    pub from: String,
}

/// One request, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub request: Asked,
    pub outcome: Outcome,
    /// The proxies on the way, the client's first.
    pub hops: Vec<Hop>,
    /// Which pod an address is, where it is one of a pod: `webapp/webapp-v1-abc`.
    pub pods: BTreeMap<String, String>,
    /// What cannot be told, and where to look then.
    pub notes: Vec<Text>,
}

impl Explanation {
    /// An address with the pod it belongs to.
    fn who(&self, address: &str) -> String {
        let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
        match self.pods.get(ip) {
            Some(pod) => format!("{address} ({pod})"),
            None => address.to_owned(),
        }
    }
}

/// Sends a request and explains what became of it.
///
/// # Errors
/// It could not be sent. That it was refused or got no answer is an explanation.
pub(crate) async fn explain(client: &Client, lab: &Lab, from: &Origin, asked: Asked) -> Result<Explanation, CommandError> {
    let mut request = HttpRequest {
        url: asked.url.clone(),
        method: asked.method.clone(),
        headers: asked.headers.clone(),
        body: String::new(),
        connect_to: None,
        timeout_ms: 30_000,
    };
    request.headers.insert(trail::HEADER.to_owned(), "1".to_owned());
    let mut outcome = send::send(client, lab, from, request).await?;
    let header = outcome.headers.remove(trail::HEADER);
    let hops = match &header {
        Some(header) => trail::parse(header).map_err(|error| CommandError::unmeasured(format!("the decision trail: {error}")))?,
        None => Vec::new(),
    };
    let pods = pods(client).await?;
    let notes = notes(&outcome, &hops);
    Ok(Explanation { request: asked, outcome, hops, pods, notes })
}

/// Which pod has which address.
async fn pods(client: &Client) -> Result<BTreeMap<String, String>, CommandError> {
    let pods = Api::<Pod>::all(client.clone()).list(&kube::api::ListParams::default()).await?;
    let address = |pod: Pod| {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        Some((pod.status?.pod_ip?, name))
    };
    Ok(pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(address).collect())
}

/// Where no proxy spoke, or not the last one, there is still something to say.
fn notes(outcome: &Outcome, hops: &[Hop]) -> Vec<Text> {
    let mut notes = Vec::new();
    if let (Some(failure), true) = (&outcome.error, hops.is_empty()) {
        let (en, ja) = match failure.kind {
            FailureKind::Dns => (
                "The name is not known where the request was sent from. From the mesh, use the name of a Service; hosts of a Gateway are asked for with `--from outside`.",
                "送信元ではこの名前を解決できません。メッシュ内からは Service の名前を使い、Gateway のホスト名は `--from outside` で指定してください。",
            ),
            FailureKind::Reset => (
                "No proxy answered: the connection was cut before a request was read. A sidecar does so with plaintext when PeerAuthentication says STRICT, and with TCP that no AuthorizationPolicy allows. The server's sidecar has it in its log: kubectl logs POD -c istio-proxy",
                "応答したプロキシはありません。リクエストが読まれる前に接続が切られました。PeerAuthentication が STRICT のときの平文の接続や、AuthorizationPolicy が許可しない TCP 接続で起こります。サーバー側サイドカーのログに記録があります: kubectl logs POD -c istio-proxy",
            ),
            FailureKind::Refused | FailureKind::Connect => (
                "Nobody listens there: no Gateway opens this port, the Service has no endpoint, or the pod is not running.",
                "接続先で待ち受けているものがありません。Gateway がこのポートを開いていない、Service にエンドポイントがない、または Pod が動いていません。",
            ),
            FailureKind::Tls => (
                "The TLS handshake failed: see the Gateway's `tls` and the Secret in `credentialName`.",
                "TLS ハンドシェイクに失敗しました。Gateway の `tls` と、`credentialName` の Secret を確認してください。",
            ),
            FailureKind::Timeout => (
                "No answer in time; the proxies' trail comes with the answer, so there is none.",
                "時間内に応答がありませんでした。判断の記録は応答と一緒に届くため、表示できません。",
            ),
            FailureKind::Protocol => ("What came back was not HTTP.", "返ってきたものは HTTP ではありませんでした。"),
        };
        notes.push(Text { ja: ja.to_owned(), en: en.to_owned() });
    } else if hops.is_empty() {
        notes.push(Text {
            ja: "プロキシを 1 つも通っていません。送信元も宛先もメッシュの外にあります（サイドカーの注入は Pod の作成時に行われます）。".to_owned(),
            en: "No proxy was on the way: neither the sender nor the server is in the mesh (sidecars are injected when a pod is created)."
                .to_owned(),
        });
    } else if hops.last().is_some_and(|hop| hop.direction != "inbound" && hop.details == "via_upstream") {
        notes.push(Text {
            ja: "その先には、判断を伝えるプロキシがありません。宛先がメッシュの外にあるか、サイドカーのない Pod です。"
                .to_owned(),
            en: "Behind that, no proxy tells of itself: the server is outside the mesh, or a pod without sidecar.".to_owned(),
        });
    }
    notes
}

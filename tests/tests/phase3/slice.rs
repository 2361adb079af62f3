//! The thin slice: one request of a kubectl-applied VirtualService through injected sidecars.

use anyhow::{Result, ensure};

use crate::lab::TestLab;

const MIRROR_TO_BETA: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: slice, namespace: webapp}
spec:
  host: webapp-service
  subsets:
  - {name: beta, labels: {version: v2-beta}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: slice, namespace: webapp}
spec:
  hosts: [webapp-service]
  http:
  - match: [{headers: {x-slice: {exact: 'yes'}}}]
    route: [{destination: {host: webapp-service, subset: beta}}]
  - route: [{destination: {host: api-service}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_kubectl_applied_virtual_service_steers_an_injected_sidecar() -> Result<()> {
    let lab = TestLab::start().await?;
    lab.shell("kubectl label namespace webapp istio-injection=enabled").await?;
    lab.shell("kubectl rollout restart deployment -n webapp").await?;
    lab.shell("kubectl rollout status deployment -n webapp --timeout=60s").await?;
    let pods = lab.shell("kubectl get pods -n webapp").await?;
    ensure!(pods.lines().skip(1).all(|line| line.contains("2/2")), "{pods}");

    lab.kubectl_apply(MIRROR_TO_BETA).await?;
    let curl = "kubectl exec -n webapp deploy/client -c client -- curl -s --retry 0";
    let beta = lab.shell(&format!("{curl} -H 'x-slice: yes' http://webapp-service/")).await?;
    ensure!(beta.contains("v2-beta"), "{beta}");
    let elsewhere = lab.shell(&format!("{curl} http://webapp-service/")).await?;
    ensure!(elsewhere.contains("\"api\""), "{elsewhere}");
    lab.cluster.stop().await;
    Ok(())
}

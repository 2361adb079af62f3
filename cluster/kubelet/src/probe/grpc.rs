//! gRPC probes: `grpc.health.v1.Health/Check` says `SERVING`.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::GRPCAction;
use meshlab_net::PodNet;

/// The largest health answer read; a real one has two bytes.
const MAX_ANSWER: usize = 4096;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;

/// The names of `grpc-status` in Go.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

pub(super) async fn check(node: &PodNet, pod_ip: &str, action: &GRPCAction) -> Result<(), String> {
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port {}", action.port))?;
    let stream = super::dial(node, pod_ip, port).await?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let service = action.service.as_deref().unwrap_or_default();
    let request = Request::post(format!("http://{pod_ip}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.33")
        .body(Full::new(encode(service)?))
        .map_err(|error| error.to_string())?;
    let call = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let headers = response.headers().clone();
        let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
        let collected = body.collect().await.map_err(|error| error.to_string())?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        judge(&headers, &trailers, &collected.to_bytes(), service)
    };
    tokio::select! {
        result = call => result,
        Err(error) = connection => Err(error.to_string()),
    }
}

/// A `HealthCheckRequest { string service = 1 }` in a gRPC frame.
fn encode(service: &str) -> Result<Bytes, String> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 0x80);
    let length = length.ok_or_else(|| "service names longer than 127 bytes are not supported".to_owned())?;
    let mut message = Vec::new();
    if length > 0 {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(u8::MAX)];
    frame.extend(message);
    Ok(frame.into())
}

fn judge(headers: &HeaderMap, trailers: &HeaderMap, body: &[u8], service: &str) -> Result<(), String> {
    let of = |name: &str| trailers.get(name).or_else(|| headers.get(name)).and_then(|value| value.to_str().ok());
    match of("grpc-status") {
        Some("0") => {}
        Some("12") => {
            let message = of("grpc-message").unwrap_or_default();
            let unknown = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)";
            return Err(format!("{unknown}: {message}"));
        }
        status => {
            let message = of("grpc-message").unwrap_or_default();
            let code = status.and_then(|status| CODES.get(status.parse::<usize>().ok()?)).unwrap_or(&"Unknown");
            return Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}"));
        }
    }
    // A frame of five bytes, then field 1, a varint.
    match body.get(5..) {
        Some([0x08, SERVING, ..]) => Ok(()),
        Some([0x08, status, ..]) => Err(format!("service unhealthy (responded with {:?})", name(*status))),
        _ => Err(format!("service {service:?} gave no health status")),
    }
}

fn name(status: u8) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_status_and_message() {
        let ok = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let none = HeaderMap::new();
        assert_eq!(judge(&none, &ok, &[0, 0, 0, 0, 2, 8, 1], ""), Ok(()));
        assert_eq!(
            judge(&none, &ok, &[0, 0, 0, 0, 2, 8, 2], ""),
            Err("service unhealthy (responded with \"NOT_SERVING\")".into())
        );
        let not_found = HeaderMap::from_iter([
            ("grpc-status".parse().unwrap(), "5".parse().unwrap()),
            ("grpc-message".parse().unwrap(), "unknown service".parse().unwrap()),
        ]);
        assert_eq!(
            judge(&not_found, &none, &[], "a"),
            Err("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service".into())
        );
        assert!(judge(&none, &none, &[], "").is_err());
        assert_eq!(encode("a").unwrap().as_ref(), [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
    }
}

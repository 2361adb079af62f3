//! Every parser that reads what a client or a peer sends, as a function of the bytes: what the fuzz targets in `fuzz/` run.
//!
//! A target panics where the parser is wrong: a panic of its own, a 500, a reading that depends on how the bytes were cut. Hangs and
//! memory without bound are for the fuzzer to notice. The tests here run every target on its seeds, `fuzz/seeds/<target>/*`, where
//! inputs that once broke something are kept, too.
//!
//! What has no target, and why:
//! - DNS packets: nobody sends any. Programs resolve names by a call, whose argument is `host_name`'s input.
//! - The PROXY protocol: it is only ever written.
//! - TLS records, HTTP/2 frames and header compression, X.509 before a certificate is verified: rustls, h2 and webpki, which have
//!   fuzzers of their own; what we add around them is in `client_hello`, `proxy_connection` and `webapp_connection`.
//! - What admission webhooks answer, exported progress and decision trails: JSON that serde reads into a type, with no parser of ours.

mod api_server;
mod checks;
mod mesh;
mod net;
mod objects;
mod pod;
mod proxy;
mod streams;

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// A target for text passes over what is no UTF-8: such bytes are refused before the parser sees them.
macro_rules! text {
    ($function:path) => {
        |input: &[u8]| {
            if let Ok(text) = std::str::from_utf8(input) {
                $function(text);
            }
        }
    };
}

/// All targets by name, sorted.
pub const TARGETS: &[(&str, Target)] = &[
    ("access_log_entry", text!(meshlab_observe::fuzzing::access_log_entry)),
    ("access_log_format", text!(meshlab_proxy::fuzzing::access_log_format)),
    ("api_headers", api_server::headers),
    ("api_json", objects::json),
    ("api_protobuf", objects::protobuf),
    ("api_request", api_server::request),
    ("api_yaml", objects::yaml),
    ("archive", pod::archive),
    ("bearer_token", text!(api_server::bearer_token)),
    ("cel", text!(objects::cel)),
    ("certificate_request", text!(mesh::certificate_request)),
    ("check_file", text!(checks::check_file)),
    ("client_hello", meshlab_proxy::fuzzing::first_bytes),
    ("continue_token", api_server::continue_token),
    ("crd_schema", objects::crd_schema),
    ("cron_schedule", text!(meshlab_controllers::fuzzing::cron_schedule)),
    ("discovery_message", mesh::discovery_message),
    ("exposition", text!(meshlab_observe::fuzzing::exposition)),
    ("field_selector", text!(objects::field_selector)),
    ("grpc_frames", meshlab_proxy::fuzzing::grpc_frames),
    ("host_name", text!(net::host_name)),
    ("http1_framing", meshlab_proxy::fuzzing::http1_framing),
    ("httpbin_connection", pod::httpbin_connection),
    ("injection", mesh::injection),
    ("istio_objects", mesh::istio_objects),
    ("json_patch", objects::json_patch),
    ("jwks", text!(meshlab_proxy::fuzzing::jwks)),
    ("jwt", text!(meshlab_proxy::fuzzing::jwt)),
    ("label_selector", text!(objects::label_selector)),
    ("merge_patch", objects::merge_patch),
    ("nginx_conf", text!(meshlab_images::fuzzing::nginx_conf)),
    ("nginx_connection", pod::nginx_connection),
    ("otlp_grpc", meshlab_observe::fuzzing::otlp_grpc),
    ("otlp_json", meshlab_observe::fuzzing::otlp_json),
    ("otlp_protobuf", meshlab_observe::fuzzing::otlp_protobuf),
    ("peer_certificate", meshlab_proxy::fuzzing::peer_certificate),
    ("peer_metadata", meshlab_proxy::fuzzing::peer_metadata),
    ("printer_column", text!(objects::printer_column)),
    ("promql", text!(meshlab_observe::fuzzing::promql)),
    ("proxy_connection", proxy::connection),
    ("quantity", text!(objects::quantity)),
    ("query_parameters", text!(meshlab_observe::fuzzing::query_parameters)),
    ("redirect_annotations", text!(net::redirect_annotations)),
    ("request_path", text!(meshlab_proxy::fuzzing::request_path)),
    ("series_selector", text!(meshlab_observe::fuzzing::series_selector)),
    ("server_side_apply", objects::server_side_apply),
    ("shell", text!(meshlab_images::fuzzing::shell)),
    ("spdy", streams::spdy),
    ("spdy_session", streams::spdy_session),
    ("strategic_merge_patch", objects::strategic_merge_patch),
    ("terminal", pod::terminal),
    ("tool_arguments", pod::tool_arguments),
    ("trace_context", meshlab_proxy::fuzzing::trace_context),
    ("webapp_connection", pod::webapp_connection),
    ("websocket", streams::websocket),
    ("zipkin", meshlab_observe::fuzzing::zipkin),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    let place = TARGETS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some(TARGETS[place].1)
}

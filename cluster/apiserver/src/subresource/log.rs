//! `pods/log`.

use futures::TryStreamExt;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meshlab_objects::Status;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::http::{BoxError, Response};
use crate::node::{LogOptions, PodRef};
use crate::rest::Call;

pub(super) async fn read(call: &Call) -> Result<Response, Status> {
    let pod = call.stored()?;
    let query = &call.query;
    let since_time = query.get("sinceTime");
    let options = LogOptions {
        container: choose_container(&pod.value(), query.get("container"))?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since_seconds: query.number("sinceSeconds")?,
        since_time: (!since_time.is_empty()).then(|| since_time.to_owned()),
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
    };
    let pod = PodRef { namespace: call.namespace().to_owned(), name: call.path.name.clone() };
    let reader = call.api.node_agent()?.logs(&pod, options).await?;
    let frames = ReaderStream::with_capacity(reader, 16 << 10).map_ok(Frame::data).map_err(BoxError::from);
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn names<'a>(pod: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    pod["spec"][field].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
}

/// The container that is meant.
///
/// # Errors
/// 400 in Kubernetes' words where there are several, or none of this name.
pub(super) fn choose_container(pod: &Value, wanted: &str) -> Result<String, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let all = || ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(|field| names(pod, field));
    if !wanted.is_empty() {
        let known = all().any(|container| container == wanted);
        let unknown = || Status::bad_request(format!("container {wanted} is not valid for pod {name}"));
        return known.then(|| wanted.to_owned()).ok_or_else(unknown);
    }
    let main: Vec<&str> = names(pod, "containers").collect();
    match main.as_slice() {
        [one] => Ok((*one).to_owned()),
        _ => {
            let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
            if let Some(annotated) = annotated.filter(|annotated| main.contains(annotated)) {
                return Ok(annotated.to_owned());
            }
            let listed = main.join(" ");
            let init: Vec<&str> = names(pod, "initContainers").collect();
            let init =
                if init.is_empty() { String::new() } else { format!(" or one of the init containers: [{}]", init.join(" ")) };
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{listed}]{init}"
            )))
        }
    }
}

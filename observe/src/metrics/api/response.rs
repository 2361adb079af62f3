//! Answers in Prometheus' form.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::json;

use super::{Answer, Labels, QueryError, StatusCode};
use crate::metrics::chunk::{Millis, Sample};
use crate::metrics::promql::format_number;

pub(crate) type ApiResult = Result<Response, ApiError>;

/// An error as Prometheus reports it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn bad_data(message: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "bad_data", message: message.to_owned() }
    }

    pub(crate) fn not_found(message: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: "not_found", message: message.to_owned() }
    }

    pub(crate) fn internal(message: &str) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "internal", message: message.to_owned() }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let (status, kind) = match &error {
            QueryError::Bad(_) => (StatusCode::BAD_REQUEST, "bad_data"),
            QueryError::Execution(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
            QueryError::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
        };
        Self { status, kind, message: error.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"status": "error", "errorType": self.kind, "error": self.message}))).into_response()
    }
}

#[derive(Serialize)]
struct Success<T> {
    status: &'static str,
    data: T,
}

pub(crate) fn ok(data: impl Serialize) -> Response {
    Json(Success { status: "success", data }).into_response()
}

/// The result of a query.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<T> {
    result_type: &'static str,
    result: T,
}

#[derive(Serialize)]
struct Element {
    metric: Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<(Time, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<(Time, String)>>,
}

/// Seconds, with thousandths only where there are some.
struct Time(Millis);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            serializer.serialize_i64(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

fn point(sample: Sample) -> (Time, String) {
    (Time(sample.time), format_number(sample.value))
}

/// Series with their samples.
pub(crate) fn matrix(series: Vec<(Labels, Vec<Sample>)>) -> Response {
    let element = |(metric, samples): (Labels, Vec<Sample>)| Element {
        metric,
        value: None,
        values: Some(samples.into_iter().map(point).collect()),
    };
    ok(Data { result_type: "matrix", result: series.into_iter().map(element).collect::<Vec<_>>() })
}

/// The answer to an instant query.
pub(crate) fn instant(answer: Answer, time: Millis) -> Response {
    match answer {
        Answer::Scalar(value) => ok(Data { result_type: "scalar", result: point(Sample { time, value }) }),
        Answer::Text(text) => ok(Data { result_type: "string", result: (Time(time), text) }),
        Answer::Vector(samples) => {
            let element = |(metric, sample)| Element { metric, value: Some(point(sample)), values: None };
            ok(Data { result_type: "vector", result: samples.into_iter().map(element).collect::<Vec<_>>() })
        }
        Answer::Matrix(series) => matrix(series),
    }
}

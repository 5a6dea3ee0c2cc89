//! Builds the fake's HTTP responses.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};
use url::Url;

/// Returns the response of a call that fails with this error code.
pub(super) fn refuse(error: &str) -> Response<Bytes> {
    json_response(Map::from_iter([
        ("ok".to_owned(), false.into()),
        ("error".to_owned(), error.into()),
    ]))
}

pub(super) fn json_response(body: Map<String, Value>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(Value::from(body).to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the fields of a JSON object.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Returns an empty response with this status.
pub(super) fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

pub(super) fn redirect(url: &Url) -> Response<Bytes> {
    let location = HeaderValue::from_str(url.as_str());
    let mut response = status(StatusCode::FOUND);
    let location = location.expect("a URL is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

pub(super) fn html(status: StatusCode, page: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // No `form-action`, because browsers apply it to the redirect after the form too.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

const JSON: &str = "application/json; charset=utf-8";

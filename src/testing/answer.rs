//! The form of the API's answers.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Map, Value};

/// The answer of a call that fails with this code, whatever it was.
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

const JSON: &str = "application/json; charset=utf-8";

//! The Web API: parses a call, finds its caller, and responds as Slack does.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Response};
use serde_json::{Map, Value, json};

use crate::installation::Scopes;

use super::app::App;
use super::response::json_response;
use super::state::State;

mod auth;
mod call;
mod oauth;
mod people;

pub(super) use call::Incoming;

/// Applies a call. Returns the response, and the error code in it.
pub(super) fn answer(
    state: &mut State,
    app: &App,
    call: &Incoming,
    now: SystemTime,
) -> (Response<Bytes>, Option<String>) {
    // Read before the call is applied, because the call may revoke the token.
    let caller = call.caller(state, now);
    let scopes = caller.as_ref().ok().map(|caller| caller.scopes.clone());
    let outcome = match (call.method.as_str(), caller) {
        ("oauth.v2.access", _) => oauth::access(state, app, call, now),
        ("oauth.v2.exchange", _) => oauth::exchange(state, app, call, now),
        ("auth.revoke", _) if call.is_for_one_token(state) => Ok(auth::revoke_one(state, call)),
        (method, _) if !METHODS.contains(&method) => Err("unknown_method".into()),
        (_, Err(error)) => Err(error.into()),
        ("apps.uninstall", Ok(caller)) => auth::uninstall(state, app, call, &caller, now),
        ("auth.revoke", Ok(caller)) => Ok(auth::revoke(state, call, &caller, now)),
        ("auth.test", Ok(caller)) => Ok(auth::test(state, &caller)),
        ("team.info", Ok(caller)) => people::team_info(state, call, &caller),
        ("users.info", Ok(caller)) => people::users_info(state, call, &caller, now),
        _ => unreachable!("each method in METHODS has a match arm"),
    };
    match outcome {
        Ok(body) => respond(call, scopes.as_ref(), body),
        Err(refusal) => {
            let mut body = refusal.more;
            body.insert("error".to_owned(), refusal.error.into());
            respond(call, scopes.as_ref(), body)
        }
    }
}

/// Checks the token of a call whose response a test has set. Returns the token's scopes.
///
/// # Errors
///
/// Returns Slack's error code if the method needs a token, and the call has no valid one.
pub(super) fn admit(
    state: &State,
    call: &Incoming,
    now: SystemTime,
) -> Result<Option<Scopes>, &'static str> {
    match call.caller(state, now) {
        Ok(caller) => Ok(Some(caller.scopes)),
        Err(_) if is_open(&call.method) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the response with these fields, and the error code in it. Adds `ok` if it is absent.
pub(super) fn respond(
    call: &Incoming,
    scopes: Option<&Scopes>,
    mut body: Map<String, Value>,
) -> (Response<Bytes>, Option<String>) {
    let succeeds = !body.contains_key("error");
    let ok = body.entry("ok").or_insert_with(|| succeeds.into());
    let error = (*ok == Value::Bool(false)).then(|| {
        let code = body.get("error").and_then(Value::as_str);
        code.unwrap_or_default().to_owned()
    });
    if call.superfluous_charset {
        let warning = "superfluous_charset";
        body.insert("warning".to_owned(), warning.into());
        body.insert(
            "response_metadata".to_owned(),
            json!({ "warnings": [warning] }),
        );
    }
    let mut response = json_response(body);
    let scopes = scopes.map(|scopes| HeaderValue::try_from(scopes.to_string()));
    if let Some(Ok(scopes)) = scopes {
        response.headers_mut().insert("x-oauth-scopes", scopes);
    }
    (response, error)
}

/// Returns whether a method needs no installation's token.
fn is_open(method: &str) -> bool {
    let prefixes = ["oauth.", "openid.", "tooling."];
    ["api.test", "apps.connections.open"].contains(&method)
        || prefixes.iter().any(|prefix| method.starts_with(prefix))
}

/// The methods that the fake serves, and that require a token.
const METHODS: [&str; 5] = [
    "apps.uninstall",
    "auth.revoke",
    "auth.test",
    "team.info",
    "users.info",
];

//! The Web API: parses a call, finds its caller, and responds as Slack does.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Response};
use serde_json::json;

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
    let scopes = caller.as_ref().ok().map(|caller| caller.scopes.to_string());
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
    let error = outcome
        .as_ref()
        .err()
        .map(|refusal| refusal.error.to_owned());
    let mut body = match outcome {
        Ok(body) => body,
        Err(refusal) => {
            let mut body = refusal.more;
            body.insert("error".to_owned(), refusal.error.into());
            body
        }
    };
    body.insert("ok".to_owned(), error.is_none().into());
    if call.superfluous_charset {
        let warning = "superfluous_charset";
        body.insert("warning".to_owned(), warning.into());
        body.insert(
            "response_metadata".to_owned(),
            json!({ "warnings": [warning] }),
        );
    }
    let mut response = json_response(body);
    if let Some(scopes) = scopes.and_then(|scopes| HeaderValue::try_from(scopes).ok()) {
        response.headers_mut().insert("x-oauth-scopes", scopes);
    }
    (response, error)
}

/// The methods that require a token.
const METHODS: [&str; 5] = [
    "apps.uninstall",
    "auth.revoke",
    "auth.test",
    "team.info",
    "users.info",
];

//! `oauth.v2.access` and `oauth.v2.exchange`.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::call::{Incoming, Refusal};
use crate::testing::app::App;
use crate::testing::state::State;

/// Handles `oauth.v2.access`. A spent code is `invalid_code`, because `code_already_used` is
/// documented only for the older `oauth.access`.
pub(super) fn access(
    state: &mut State,
    app: &App,
    call: &Incoming,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    call.check_client(app)?;
    match call.arg("grant_type").as_deref() {
        None | Some("authorization_code") => {}
        Some("refresh_token") => {
            let token = call.arg("refresh_token").ok_or("invalid_refresh_token")?;
            return Ok(state.refresh(&app.id, &token, now)?);
        }
        Some(_) => return Err("invalid_grant_type".into()),
    }
    let code = call.arg("code").ok_or("invalid_code")?;
    let redirect_uri = call.arg("redirect_uri");
    Ok(state.exchange(&app.id, &code, redirect_uri.as_deref(), now)?)
}

/// Handles `oauth.v2.exchange`, which succeeds once per token.
pub(super) fn exchange(
    state: &mut State,
    app: &App,
    call: &Incoming,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    call.check_client(app)?;
    let token = call.token.as_deref().ok_or("invalid_token")?;
    Ok(state.exchange_token(&app.id, token, now)?)
}

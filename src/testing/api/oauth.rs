//! `oauth.v2.access` and `oauth.v2.exchange`.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{Incoming, Refusal};
use crate::testing::app::App;
use crate::testing::state::State;

/// A spent code answers `invalid_code`: `code_already_used` is documented for the older
/// `oauth.access` only.
pub(super) fn access(
    state: &mut State,
    app: &App,
    call: &Incoming,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    call.check_client(app)?;
    match call.arg("grant_type") {
        None | Some("authorization_code") => {}
        Some("refresh_token") => {
            let token = call.arg("refresh_token").ok_or("invalid_refresh_token")?;
            return Ok(state.refresh(&app.id, token, now)?);
        }
        Some(_) => return Err("invalid_grant_type".into()),
    }
    let code = call.arg("code").ok_or("invalid_code")?;
    Ok(state.exchange(&app.id, code, call.arg("redirect_uri"), now)?)
}

/// Once per token.
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

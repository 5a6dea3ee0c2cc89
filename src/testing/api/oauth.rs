//! `oauth.v2.access`.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{Incoming, Refusal};
use crate::testing::core::App;
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
        // This app has no token rotation, so there is no refresh token that could be right.
        Some("refresh_token") => return Err("invalid_refresh_token".into()),
        Some(_) => return Err("invalid_grant_type".into()),
    }
    let code = call.arg("code").ok_or("invalid_code")?;
    Ok(state.exchange(&app.id, code, call.arg("redirect_uri"), now)?)
}

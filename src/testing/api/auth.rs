//! `auth.test`, `auth.revoke` and `apps.uninstall`.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::call::{Caller, Incoming, Refusal};
use crate::testing::app::App;
use crate::testing::state::State;

pub(super) fn test(state: &mut State, caller: &Caller) -> Map<String, Value> {
    let key = &caller.tenant;
    let mut answer = Map::new();
    if let Some(place) = state.world.named(key) {
        let enterprise = if key.is_org() { ".enterprise" } else { "" };
        let url = format!("https://{}{enterprise}.slack.com/", place.domain);
        answer.insert("url".to_owned(), url.into());
        answer.insert("team".to_owned(), place.name.clone().into());
    }
    if let Some((org, _)) = state.world.org_of(key) {
        answer.insert("enterprise_id".to_owned(), json!(org));
    }
    // For an org-wide token this is the organisation's id. No source confirms this for the real
    // Slack, so an app should not rely on it.
    answer.insert("team_id".to_owned(), key.id().into());
    answer.insert("is_enterprise_install".to_owned(), key.is_org().into());
    match &caller.user {
        Some(user) => {
            let name = state
                .world
                .resident(user)
                .map(|resident| &resident.person.name);
            answer.insert("user".to_owned(), json!(name));
            answer.insert("user_id".to_owned(), json!(user));
        }
        None => {
            let bot = state.bot_user(key);
            answer.insert("user".to_owned(), "fake_app".into());
            answer.insert("user_id".to_owned(), json!(bot.user));
            answer.insert("bot_id".to_owned(), json!(bot.id));
        }
    }
    answer
}

/// Revokes the authorization of a long-lived token. If it was the last one, uninstalls the app.
pub(super) fn revoke(
    state: &mut State,
    call: &Incoming,
    caller: &Caller,
    now: SystemTime,
) -> Map<String, Value> {
    let is_test = matches!(call.arg("test").as_deref(), Some("1" | "true"));
    let revoked = !is_test && state.revoke(&caller.tenant, caller.user.as_ref(), now);
    Map::from_iter([("revoked".to_owned(), revoked.into())])
}

/// Revokes only the call's token, which belongs to a rotating pair.
pub(super) fn revoke_one(state: &mut State, call: &Incoming) -> Map<String, Value> {
    let is_test = matches!(call.arg("test").as_deref(), Some("1" | "true"));
    let token = call.token.as_deref().filter(|_| !is_test);
    let revoked = token.and_then(|token| state.revoke_one(token));
    Map::from_iter([("revoked".to_owned(), revoked.unwrap_or_default().into())])
}

pub(super) fn uninstall(
    state: &mut State,
    app: &App,
    call: &Incoming,
    caller: &Caller,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    call.check_client(app)?;
    let uninstalled = state.uninstall(&caller.tenant, now);
    Ok(Map::from_iter([(
        "uninstalled".to_owned(),
        uninstalled.into(),
    )]))
}

//! `users.info` and `team.info`.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::call::{Caller, Incoming, Refusal};
use crate::clock::to_epoch;
use crate::tenant::{InstallationKey, UserId};
use crate::testing::response::object;
use crate::testing::state::State;
use crate::testing::world::Resident;

pub(super) fn users_info(
    state: &State,
    call: &Incoming,
    caller: &Caller,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    caller.needs("users:read")?;
    let user = call.arg("user").and_then(|id| UserId::new(id).ok());
    let resident = user.and_then(|user| state.world.resident(&user));
    let resident = resident.filter(|resident| state.world.sees(&caller.tenant, resident));
    let user = describe(state, resident.ok_or("user_not_found")?, now);
    Ok(Map::from_iter([("user".to_owned(), user.into())]))
}

pub(super) fn team_info(
    state: &State,
    call: &Incoming,
    caller: &Caller,
) -> Result<Map<String, Value>, Refusal> {
    caller.needs("team:read")?;
    let asked = call.arg("team").filter(|_| caller.tenant.is_org());
    let asked = asked.map(|team| team.try_into().map(InstallationKey::workspace));
    let key = asked
        .transpose()
        .map_err(|_| "team_not_found")?
        .unwrap_or_else(|| caller.tenant.clone());
    let org = state.world.org_of(&key);
    if caller.tenant.is_org() && org.as_ref().map(|org| &org.0) != caller.tenant.enterprise() {
        return Err("team_not_found".into());
    }
    let place = state.world.named(&key).ok_or("team_not_found")?;
    let mut team = object(json!({
        "id": key.id(),
        "name": place.name,
        "url": format!("https://{}.slack.com/", place.domain),
        "domain": place.domain,
        "email_domain": "",
        "icon": { "image_default": true },
    }));
    if let Some((id, org)) = org {
        team.insert("enterprise_id".to_owned(), json!(id));
        team.insert("enterprise_name".to_owned(), json!(org.name));
        team.insert("enterprise_domain".to_owned(), json!(org.domain));
    }
    Ok(Map::from_iter([("team".to_owned(), team.into())]))
}

/// Returns a person as `users.info` shows them. For a deactivated person, most flags are absent.
fn describe(state: &State, resident: &Resident, now: SystemTime) -> Map<String, Value> {
    let person = &resident.person;
    let team = person.home.as_ref().or_else(|| resident.teams.first());
    let mut user = object(json!({
        "id": person.id,
        "team_id": team,
        "name": person.name,
        "deleted": person.deleted,
        "profile": { "real_name": person.name, "display_name": person.name, "team": team },
        "is_bot": false,
        "is_app_user": false,
        "updated": to_epoch(now),
    }));
    if !person.deleted {
        user.extend(object(json!({
            "real_name": person.name,
            "is_admin": person.is_admin,
            "is_owner": person.is_owner,
            "is_primary_owner": person.is_primary_owner,
            "is_restricted": person.is_restricted,
            "is_ultra_restricted": person.is_ultra_restricted,
            "is_email_confirmed": true,
        })));
    }
    if person.home.is_some() {
        user.insert("is_stranger".to_owned(), true.into());
        return user;
    }
    let home = team.cloned().map(InstallationKey::workspace);
    if let Some((id, org)) = home.and_then(|home| state.world.org_of(&home)) {
        let enterprise_user = json!({
            "id": person.id,
            "enterprise_id": id,
            "enterprise_name": org.name,
            "is_admin": person.is_org_admin,
            "is_owner": person.is_org_owner,
            "is_primary_owner": false,
            "teams": resident.teams,
        });
        user.insert("enterprise_user".to_owned(), enterprise_user);
    }
    user
}

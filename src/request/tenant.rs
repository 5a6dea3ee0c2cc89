//! Finds the tenant and the actor of a request. Only this file knows the rules, for every kind.
//!
//! | kind | tenant: the first id that exists | its enterprise | org-wide flag | actor |
//! |---|---|---|---|---|
//! | event | `auth.team_id` | `auth.enterprise_id` | `auth` | `event.user` |
//! | | `context_team_id` | `context_enterprise_id` | | |
//! | | `team_id`, unless `is_ext_shared_channel` | `enterprise_id` | | |
//! | lifecycle event | as event | as event | as event | none |
//! | | none of these: the org `enterprise_id` | | true | |
//! | team access event | the org `auth.enterprise_id`, `enterprise_id` | | true | none |
//! | function_executed | as event | as event | as event | none |
//! | app_rate_limited | `team_id` | `enterprise_id` | none | none |
//! | slash command | `team_id` | `enterprise_id` | top level | `user_id` |
//! | with a `view` | `view.app_installed_team_id` | if certain | top level | `user.id` |
//! | other interactive | flagged, no `team`: the org `enterprise.id` | | true | `user.id` |
//! | | clicked message, if this app posted it: `message.team` | if certain | top level | |
//! | | `team.id` | if certain | | |
//! | | `user.team_id` | none | | |
//! | ssl_check, url_verification, unknown | none | | | none |
//!
//! * `auth` is `authorizations[0]`. Slack sends at most one.
//! * Lifecycle events are `app_uninstalled`, `tokens_revoked` and `grid_migration_*`. Team access
//!   events are `team_access_*`.
//! * An org-wide tenant keeps the id of the workspace in use, if that workspace certainly belongs
//!   to the org. For an event, it is the team of the context or of the outer fields; for an
//!   interaction, `user.team_id`. Lifecycle events do not keep it, because a different installation
//!   would then be deleted.
//!
//! Socket Mode carries the same payloads as JSON.
//!
//! The first letter decides what an id names: `E…` in a `team` field names the org itself. Only the
//! flag decides whether an installation is org-wide, never the presence of an enterprise id. An
//! enterprise id without a flag and without a team names no tenant.
//!
//! # When a tenant has both an enterprise id and a team id
//!
//! An org-wide installation may serve a workspace of its organisation that has no installation of
//! its own. In a channel shared by two companies, one payload holds ids of both. So an enterprise
//! id and a team id are combined only if both come from the same object. Otherwise company A's
//! workspace could be served with company B's token. If it is not certain, the enterprise id is
//! omitted, and only the workspace's own installation can serve the request.
//!
//! In interactive payloads, `enterprise` may be the other company's. The enterprise id is certain
//! in these cases:
//!
//! * `team.enterprise_id` gives the enterprise of `team.id`.
//! * `team` gives no enterprise, but the user belongs to that team (`user.team_id`).
//! * `team` gives no enterprise, but the request is a message shortcut. Slack does not offer those
//!   to the other company.
//! * `team` is null and the payload is flagged: the documented form of an org-wide installation.
//!   `enterprise` is then its organisation.
//!
//! # Sources
//!
//! Slack's pages on the Events API, Slack Connect and Enterprise organisations. These issues give
//! the rules that the pages omit:
//!
//! * bolt-js#687 and #935, java-slack-sdk#629: the outer ids of an event can be another company's.
//! * bolt-js#1614: in a shared channel, only `app_installed_team_id` is certainly our team.
//! * bolt-js#737: the flag can be a text.
//! * bolt-js#1778: `team_access_*` events are flagged false.
//! * bolt-js#1510: an enterprise id was treated as the flag.
//! * bolt-python#1408: an org flag where only the workspace has an installation.
//!
//! The users and bots that lifecycle events list are not actors. The creator of a channel, and a
//! user whom `event.user` describes as an object, are not actors either.

use super::error::Malformed;
use super::kind::Kind;
use super::lifecycle::LifecycleEvent;
use super::payload::{Event, Field, Payload, Team, Text, TextOrObject, User};
use crate::tenant::{EnterpriseId, TeamId, Tenant, UserId};

/// Returns the tenant that a request names, if it names one.
pub(super) fn tenant(kind: &Kind, payload: &Payload<'_>) -> Result<Option<Tenant>, Malformed> {
    match kind {
        Kind::AppRateLimited => outer(payload, false),
        Kind::Event { event_type } => match LifecycleEvent::of(event_type) {
            None => event(payload),
            Some(LifecycleEvent::AccessGranted | LifecycleEvent::AccessRevoked) => {
                team_access(payload)
            }
            Some(_) => lifecycle(payload),
        },
        Kind::FunctionExecuted => event(payload),
        Kind::SlashCommand => outer(
            payload,
            payload
                .is_enterprise_install
                .flag("is_enterprise_install")?,
        ),
        kind if kind.is_interactive() => interactive(kind, payload),
        _ => Ok(None),
    }
}

/// Returns the user who acts, if the request names one.
pub(super) fn actor(kind: &Kind, payload: &Payload<'_>) -> Result<Option<UserId>, Malformed> {
    match kind {
        Kind::Event { event_type } if LifecycleEvent::of(event_type).is_none() => {
            event_actor(payload)
        }
        Kind::SlashCommand => user(payload.user_id.text("user_id")?, "user_id"),
        kind if kind.is_interactive() => match payload.user.read("user")? {
            None => Ok(None),
            Some(User { id, .. }) => user(id.text("user.id")?, "user.id"),
        },
        _ => Ok(None),
    }
}

fn event(payload: &Payload<'_>) -> Result<Option<Tenant>, Malformed> {
    let (enterprise, place, org_wide) = match payload.authorizations.read("authorizations")? {
        None => (None, None, false),
        Some(first) => (
            enterprise(&first.0.enterprise_id, "authorizations.enterprise_id")?,
            place(&first.0.team_id, "authorizations.team_id")?,
            first
                .0
                .is_enterprise_install
                .flag("authorizations.is_enterprise_install")?,
        ),
    };
    if place.is_some() {
        return Ok(named(enterprise, place, org_wide));
    }
    let around = match context(payload, org_wide)? {
        None if shared(payload)? => None,
        None => outer(payload, org_wide)?,
        context => context,
    };
    let Some(enterprise) = enterprise else {
        return Ok(around);
    };
    // The context ids and the outer ids may be another company's, unless they name the organisation
    // of the authorization. Then they say which workspace of that organisation is meant.
    match around.filter(|around| around.enterprise() == Some(&enterprise)) {
        Some(around) => Ok(Some(around)),
        None => Ok(named(Some(enterprise), None, org_wide)),
    }
}

fn shared(payload: &Payload<'_>) -> Result<bool, Malformed> {
    payload.is_ext_shared_channel.flag("is_ext_shared_channel")
}

/// Returns the tenant of a lifecycle event. An event of an org-wide installation names the org and
/// no team. If it also names a team, that team is not what was uninstalled.
fn lifecycle(payload: &Payload<'_>) -> Result<Option<Tenant>, Malformed> {
    Ok(match event(payload)? {
        Some(tenant) if tenant.is_enterprise_install() && tenant.enterprise().is_some() => {
            named(tenant.enterprise().cloned(), None, true)
        }
        Some(tenant) => Some(tenant),
        None => outer_org(payload)?,
    })
}

/// Returns the org of a team access event, even if the event's flag is false. The teams in the
/// event are the ones that were granted or revoked.
fn team_access(payload: &Payload<'_>) -> Result<Option<Tenant>, Malformed> {
    let authorized = match payload.authorizations.read("authorizations")? {
        None => None,
        Some(first) => enterprise(&first.0.enterprise_id, "authorizations.enterprise_id")?,
    };
    Ok(match authorized {
        Some(authorized) => named(Some(authorized), None, true),
        None => outer_org(payload)?,
    })
}

fn context(payload: &Payload<'_>, org_wide: bool) -> Result<Option<Tenant>, Malformed> {
    Ok(named(
        enterprise(&payload.context_enterprise_id, "context_enterprise_id")?,
        place(&payload.context_team_id, "context_team_id")?,
        org_wide,
    ))
}

fn outer(payload: &Payload<'_>, org_wide: bool) -> Result<Option<Tenant>, Malformed> {
    Ok(named(
        enterprise(&payload.enterprise_id, "enterprise_id")?,
        place(&payload.team_id, "team_id")?,
        org_wide,
    ))
}

/// Returns the whole organisation that the outer enterprise id of an event names.
fn outer_org(payload: &Payload<'_>) -> Result<Option<Tenant>, Malformed> {
    let org = enterprise(&payload.enterprise_id, "enterprise_id")?;
    Ok(named(org, None, true))
}

fn interactive(kind: &Kind, payload: &Payload<'_>) -> Result<Option<Tenant>, Malformed> {
    let org_wide = payload
        .is_enterprise_install
        .flag("is_enterprise_install")?;
    let org = match payload.enterprise.read("enterprise")? {
        None => None,
        Some(org) => enterprise(&org.id, "enterprise.id")?,
    };
    let (team, orgs_team) = match payload.team.read("team")? {
        None => (None, None),
        Some(Team { enterprise_id, id }) => (
            place(id, "team.id")?,
            enterprise(enterprise_id, "team.enterprise_id")?,
        ),
    };
    let users_team = match payload.user.read("user")? {
        None => None,
        Some(User { team_id, .. }) => place(team_id, "user.team_id")?,
    };
    let installed = match payload.view.read("view")? {
        None => None,
        Some(view) => place(&view.app_installed_team_id, "view.app_installed_team_id")?,
    };

    // The documented form of an org-wide installation.
    let whole_org = team.is_none() && org_wide;
    let home = match installed {
        None if whole_org && org.is_some() => None,
        None => own_message(kind, payload)?.or_else(|| team.clone()),
        installed => installed,
    };
    Ok(match home {
        // The workspace in use is kept only if it belongs to that org. `Authorizer::resolve` later
        // checks whether a workspace's installation belongs to the org.
        Some(Place::Org(id)) => {
            let in_use = if org.as_ref() == Some(&id) {
                team.and_then(Place::team)
                    .or_else(|| users_team.and_then(Place::team))
            } else {
                None
            };
            Tenant::new(Some(id), in_use, true).ok()
        }
        Some(home) => {
            let insider = users_team == team || matches!(kind, Kind::MessageAction);
            let certain = match orgs_team {
                _ if whole_org => org,
                _ if team.as_ref() != Some(&home) => None,
                None if insider => org,
                orgs_team => orgs_team,
            };
            named(certain, Some(home), org_wide)
        }
        None if whole_org && org.is_some() => {
            Tenant::new(org, users_team.and_then(Place::team), true).ok()
        }
        None => users_team
            .and_then(Place::team)
            .and_then(|team| Tenant::new(None, Some(team), org_wide).ok()),
    })
}

/// Returns where the clicked message was posted from, if this app posted it. In a shared channel,
/// the person who clicks, and their `team`, can be of the other company.
fn own_message(kind: &Kind, payload: &Payload<'_>) -> Result<Option<Place>, Malformed> {
    if !matches!(kind, Kind::BlockActions | Kind::BlockSuggestion) {
        return Ok(None);
    }
    let Some(message) = payload.message.read("message")? else {
        return Ok(None);
    };
    let ours = payload.api_app_id.text("api_app_id")?;
    if ours.is_some() && message.app_id.text("message.app_id")? == ours {
        place(&message.team, "message.team")
    } else {
        Ok(None)
    }
}

fn event_actor(payload: &Payload<'_>) -> Result<Option<UserId>, Malformed> {
    match payload.event.read("event")? {
        None => Ok(None),
        Some(Event { user: field, .. }) => match field.read("event.user")? {
            None | Some(TextOrObject::Object) => Ok(None),
            Some(TextOrObject::Text(id)) if id.is_empty() => Ok(None),
            Some(TextOrObject::Text(id)) => user(Some(id), "event.user"),
        },
    }
}

fn user(id: Option<&str>, path: &'static str) -> Result<Option<UserId>, Malformed> {
    id.map(|id| UserId::new(id).map_err(|_| Malformed::Field(path)))
        .transpose()
}

/// What an id in a `team` field names. The field can also have an organisation's id.
#[derive(Clone, Eq, PartialEq)]
enum Place {
    Org(EnterpriseId),
    Workspace(TeamId),
}

impl Place {
    fn team(self) -> Option<TeamId> {
        match self {
            Self::Org(_) => None,
            Self::Workspace(team) => Some(team),
        }
    }
}

fn place(field: &Field<Text<'_>>, path: &'static str) -> Result<Option<Place>, Malformed> {
    let Some(id) = field.text(path)? else {
        return Ok(None);
    };
    let place = if id.starts_with('E') {
        EnterpriseId::new(id).map(Place::Org)
    } else {
        TeamId::new(id).map(Place::Workspace)
    };
    place.map(Some).map_err(|_| Malformed::Field(path))
}

fn enterprise(
    field: &Field<Text<'_>>,
    path: &'static str,
) -> Result<Option<EnterpriseId>, Malformed> {
    let id = field.text(path)?;
    id.map(|id| EnterpriseId::new(id).map_err(|_| Malformed::Field(path)))
        .transpose()
}

/// Returns the tenant that an enterprise id and a place, from the same object, name together.
fn named(enterprise: Option<EnterpriseId>, place: Option<Place>, org_wide: bool) -> Option<Tenant> {
    match place {
        Some(Place::Org(org)) => match enterprise {
            Some(other) if other != org => None,
            _ => Tenant::new(Some(org), None, true).ok(),
        },
        Some(Place::Workspace(team)) => Tenant::new(enterprise, Some(team), org_wide).ok(),
        None if org_wide => Tenant::new(enterprise, None, true).ok(),
        None => None,
    }
}

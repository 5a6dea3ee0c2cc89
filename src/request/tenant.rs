//! Finds the tenant of a request. Only this file knows the rules, for every kind.
//!
//! | kind | tenant: the first id that exists | its enterprise | org-wide flag |
//! |---|---|---|---|
//! | event | `auth.team_id` | `auth.enterprise_id` | `auth` |
//! | | `context_team_id` | `context_enterprise_id` | |
//! | | `team_id`, unless `is_ext_shared_channel` | `enterprise_id` | |
//! | lifecycle event | as event | as event | as event |
//! | | none of these: the org `enterprise_id` | | true |
//! | team access event | the org `auth.enterprise_id`, `enterprise_id` | | true |
//! | function_executed | as event | as event | as event |
//! | app_rate_limited | `team_id` | `enterprise_id` | none |
//! | slash command | `team_id` | `enterprise_id` | top level |
//! | with a `view` | `view.app_installed_team_id` | if certain | top level |
//! | other interactive | flagged, no `team`: the org `enterprise.id` | | true |
//! | | clicked message of this app: `message.team` | if certain | top level |
//! | | `team.id` | if certain | |
//! | | `user.team_id` | none | |
//! | interactive of an unknown type | as above, if all ids agree | as above | as above |
//! | ssl_check, url_verification, unknown | none | | |
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
//! # Clicks
//!
//! In a shared channel, people of the other company can click on this app's messages. Their `team`
//! can be the other company's. So the message decides:
//!
//! * The message is this app's if `message.app_id` says so. It is also this app's if a bot posted
//!   it, it names no app, and the click is not on the preview of a link: Slack sends a click to the
//!   app that posted the element. The tenant is then `message.team`.
//! * For any other message, `message.team` must be `team.id`. Otherwise the click has no tenant.
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

use super::error::Malformed;
use super::kind::Kind;
use super::lifecycle::LifecycleEvent;
use super::payload::{Field, Message, Payload, Team, Text};
use crate::tenant::{EnterpriseId, TeamId, Tenant};

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
    let installed = match payload.view.read("view")? {
        None => None,
        Some(view) => place(&view.app_installed_team_id, "view.app_installed_team_id")?,
    };
    let users_team = match users_team(payload) {
        Ok(users_team) => users_team,
        // The user's team names the tenant only if nothing else does.
        Err(_) if installed.is_some() || team.is_some() || (org_wide && org.is_some()) => None,
        Err(error) => return Err(error),
    };
    let named_by = [&installed, &team, &users_team].map(Option::as_ref);
    if matches!(kind, Kind::Interaction { .. }) && !agree(named_by, payload) {
        return Ok(None);
    }

    // The documented form of an org-wide installation.
    let whole_org = team.is_none() && org_wide;
    let home = match installed {
        None if whole_org && org.is_some() => None,
        None => match clicked(kind, payload) {
            None => team.clone(),
            Some(clicked) => match owner(clicked, payload) {
                Owner::Known(owner) => Some(owner),
                Owner::Unknown(at) if at.can_be(team.as_ref().or(users_team.as_ref())) => {
                    team.clone()
                }
                Owner::Unknown(_) => return Ok(None),
            },
        },
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

fn users_team(payload: &Payload<'_>) -> Result<Option<Place>, Malformed> {
    match payload.user.read("user")? {
        None => Ok(None),
        Some(user) => place(&user.team_id, "user.team_id"),
    }
}

/// Returns whether everything that can name the tenant of an unknown type of interaction names the
/// same one.
fn agree(named_by: [Option<&Place>; 3], payload: &Payload<'_>) -> bool {
    let mut places: Vec<Place> = named_by.into_iter().flatten().cloned().collect();
    for message in [&payload.message, &payload.original_message] {
        match (message, PostedFrom::of(message)) {
            (Field::Absent, _) => {}
            (_, PostedFrom::Place(place)) => places.push(place),
            // Anybody may have posted it from anywhere.
            (_, PostedFrom::Unreadable | PostedFrom::Unsaid) => return false,
        }
    }
    places.iter().all(|place| Some(place) == places.first())
}

/// Where a message was posted from.
enum PostedFrom {
    Place(Place),
    /// The payload says it in an unexpected form.
    Unreadable,
    Unsaid,
}

impl PostedFrom {
    fn of(message: &Field<Message<'_>>) -> Self {
        match message {
            Field::Absent => Self::Unsaid,
            Field::Is(message) => match place(&message.team, "message.team") {
                Ok(Some(place)) => Self::Place(place),
                Ok(None) => Self::Unsaid,
                Err(_) => Self::Unreadable,
            },
            Field::Wrong => Self::Unreadable,
        }
    }

    /// Returns whether the message may have been posted from here.
    fn can_be(&self, here: Option<&Place>) -> bool {
        match self {
            Self::Place(place) => Some(place) == here,
            Self::Unreadable => false,
            Self::Unsaid => true,
        }
    }
}

/// The owner of a clicked message.
enum Owner {
    /// This app posted the message from this place.
    Known(Place),
    /// It is not certain that this app posted the message.
    Unknown(PostedFrom),
}

/// Returns the clicked message, if the payload has one.
fn clicked<'p, 'a>(kind: &Kind, payload: &'p Payload<'a>) -> Option<&'p Field<Message<'a>>> {
    let message = match kind {
        Kind::BlockActions | Kind::BlockSuggestion => &payload.message,
        Kind::InteractiveMessage => &payload.original_message,
        _ => return None,
    };
    (!matches!(message, Field::Absent)).then_some(message)
}

/// Returns the owner of the clicked message. In a shared channel, the person who clicks, and their
/// `team`, can be of the other company.
fn owner(clicked: &Field<Message<'_>>, payload: &Payload<'_>) -> Owner {
    match (PostedFrom::of(clicked), clicked) {
        (PostedFrom::Place(place), Field::Is(message)) if is_ours(message, payload) => {
            Owner::Known(place)
        }
        (at, _) => Owner::Unknown(at),
    }
}

fn is_ours(message: &Message<'_>, payload: &Payload<'_>) -> bool {
    match &message.app_id {
        Field::Absent => {
            let container = payload.container.lenient();
            let container = container.and_then(|container| container.type_.lenient_text());
            let is_preview = container == Some("message_attachment")
                || payload.is_app_unfurl.lenient_flag() == Some(true);
            message.bot_id.lenient_text().is_some() && !is_preview
        }
        app_id => {
            let ours = payload.api_app_id.lenient_text();
            ours.is_some() && app_id.lenient_text() == ours
        }
    }
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

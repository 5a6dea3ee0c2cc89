//! Finds the person who acted, and the user for whom Slack delivers an event. They can differ, and
//! neither names the tenant.
//!
//! | kind | actor |
//! |---|---|
//! | event | the field that [`ACTORS`] names for the event's type |
//! | message with a subtype | none, unless [`WRITTEN`] has the subtype |
//! | slash command | `user_id` |
//! | interactive | `user.id` |
//! | everything else | none |
//!
//! A user's own token is offered only for the actor. So an event type that is not in the list has
//! no actor: its `user` can be a person to whom something was done. A member who joined a channel
//! may have been invited, and a profile may have been changed by an admin.
//!
//! The authorizing user is `authorizations[0].user_id`, if `is_bot` is false.
//!
//! A field of an unexpected form leaves the request without an actor. It never refuses the request.

use super::kind::Kind;
use super::lifecycle::LifecycleEvent;
use super::payload::{Event, Field, Payload, Text};
use crate::tenant::{EnterpriseId, TeamId, Tenant, UserId};

/// The person who acted, and where that person comes from.
///
/// In a channel that is shared with another company, the actor can be of that company. Check
/// [`is_insider`](Self::is_insider) before your app grants a permission.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    enterprise: Option<EnterpriseId>,
    is_insider: bool,
    team: Option<TeamId>,
    user: UserId,
}

impl Actor {
    /// Returns the organisation that the actor belongs to, if the request names it.
    #[must_use]
    pub fn enterprise(&self) -> Option<&EnterpriseId> {
        self.enterprise.as_ref()
    }

    /// Returns whether the actor certainly belongs to the company of the request's tenant: to its
    /// workspace, or to a workspace of the same organisation.
    ///
    /// `false` if the actor is of another company, and also if the request does not say.
    #[must_use]
    pub fn is_insider(&self) -> bool {
        self.is_insider
    }

    /// Returns the actor's own workspace, if the request names it. It is not the request's tenant.
    #[must_use]
    pub fn team(&self) -> Option<&TeamId> {
        self.team.as_ref()
    }

    /// Returns the actor's user id.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }
}

/// Returns the person who acted, if the request names one.
pub(super) fn actor(kind: &Kind, payload: &Payload<'_>, tenant: Option<&Tenant>) -> Option<Actor> {
    let user = UserId::new(actor_id(kind, payload)?).ok()?;
    let Home {
        enterprise,
        is_inside,
        team,
    } = home(kind, payload);
    let is_insider = tenant.is_some_and(|tenant| {
        let same = |ours: Option<&str>, theirs: Option<&str>| ours.is_some() && ours == theirs;
        is_inside
            || same(
                tenant.team().map(TeamId::as_str),
                team.as_ref().map(TeamId::as_str),
            )
            || same(
                tenant.enterprise().map(EnterpriseId::as_str),
                enterprise.as_ref().map(EnterpriseId::as_str),
            )
    });
    Some(Actor {
        enterprise,
        is_insider,
        team,
        user,
    })
}

/// Returns the user whose authorisation made Slack deliver this event.
pub(super) fn authorizing_user(kind: &Kind, payload: &Payload<'_>) -> Option<UserId> {
    if !matches!(kind, Kind::Event { .. } | Kind::FunctionExecuted) {
        return None;
    }
    let first = &payload.authorizations.lenient()?.0;
    if first.is_bot.lenient_flag() != Some(false) {
        return None;
    }
    UserId::new(first.user_id.lenient_text()?).ok()
}

fn actor_id<'a>(kind: &Kind, payload: &'a Payload<'_>) -> Option<&'a str> {
    match kind {
        Kind::Event { event_type } if LifecycleEvent::of(event_type).is_none() => {
            event_actor(event_type, payload.event.lenient()?)
        }
        Kind::SlashCommand => payload.user_id.lenient_text(),
        kind if kind.is_interactive() => payload.user.lenient()?.id.lenient_text(),
        _ => None,
    }
}

fn event_actor<'a>(event_type: &str, event: &'a Event<'_>) -> Option<&'a str> {
    let is_written = match &event.subtype {
        Field::Absent => true,
        subtype => subtype
            .lenient_text()
            .is_some_and(|subtype| WRITTEN.contains(&subtype)),
    };
    if event_type == "message" && !is_written {
        return None;
    }
    let (_, named_in) = ACTORS.iter().find(|(name, _)| *name == event_type)?;
    match named_in {
        NamedIn::AssistantThread => event.assistant_thread.lenient()?.user_id.lenient_text(),
        NamedIn::Inviter => event.inviter.lenient_text(),
        NamedIn::User => event.user.lenient_text(),
        NamedIn::UserId => event.user_id.lenient_text(),
    }
}

/// Where the actor comes from.
#[derive(Default)]
struct Home {
    enterprise: Option<EnterpriseId>,
    /// Whether Slack offers this request only to people of the tenant's company.
    is_inside: bool,
    team: Option<TeamId>,
}

impl Home {
    /// Creates it of a field that has a workspace's or an organisation's id.
    fn of(place: &Field<Text<'_>>) -> Self {
        let Some(id) = place.lenient_text() else {
            return Self::default();
        };
        Self {
            enterprise: EnterpriseId::new(id).ok(),
            is_inside: false,
            team: TeamId::new(id).ok(),
        }
    }

    fn is_unknown(&self) -> bool {
        self.enterprise.is_none() && self.team.is_none()
    }
}

fn home(kind: &Kind, payload: &Payload<'_>) -> Home {
    match kind {
        Kind::Event { .. } => event_home(payload),
        // Slack offers commands only in workspaces that have the app.
        Kind::SlashCommand => Home {
            enterprise: enterprise(&payload.enterprise_id),
            is_inside: true,
            team: Home::of(&payload.team_id).team,
        },
        kind => Home {
            // Slack does not offer shortcuts to the other company.
            is_inside: matches!(kind, Kind::MessageAction | Kind::Shortcut),
            ..interactive_home(payload)
        },
    }
}

fn event_home(payload: &Payload<'_>) -> Home {
    let Some(event) = payload.event.lenient() else {
        return Home::default();
    };
    let named = [&event.user_team, &event.source_team].map(Home::of);
    let named = named.into_iter().find(|home| !home.is_unknown());
    Home {
        // Everybody in a channel that is not shared with another company is of the same company.
        is_inside: payload.is_ext_shared_channel.lenient_flag() == Some(false),
        ..named.unwrap_or_default()
    }
}

fn interactive_home(payload: &Payload<'_>) -> Home {
    let Some(user) = payload.user.lenient() else {
        return Home::default();
    };
    let mut home = Home::of(&user.team_id);
    // The enterprise of `team` is the actor's only if `team` is the actor's.
    if home.enterprise.is_none()
        && home.team.is_some()
        && let Some(team) = payload.team.lenient()
        && Home::of(&team.id).team == home.team
    {
        home.enterprise = enterprise(&team.enterprise_id);
    }
    home
}

fn enterprise(field: &Field<Text<'_>>) -> Option<EnterpriseId> {
    EnterpriseId::new(field.lenient_text()?).ok()
}

/// The field of an event that names the actor.
#[derive(Clone, Copy)]
enum NamedIn {
    AssistantThread,
    Inviter,
    User,
    UserId,
}

/// The types of events that have an actor, and the field that names the actor
/// (<https://docs.slack.dev/reference/events>).
const ACTORS: [(&str, NamedIn); 19] = [
    ("app_home_opened", NamedIn::User),
    ("app_mention", NamedIn::User),
    ("assistant_thread_context_changed", NamedIn::AssistantThread),
    ("assistant_thread_started", NamedIn::AssistantThread),
    ("channel_archive", NamedIn::User),
    ("channel_unarchive", NamedIn::User),
    ("file_created", NamedIn::UserId),
    ("file_public", NamedIn::UserId),
    ("file_shared", NamedIn::UserId),
    ("group_archive", NamedIn::User),
    ("group_unarchive", NamedIn::User),
    ("link_shared", NamedIn::User),
    // The field `user` names the person who joined. Without an inviter, that person joined, or
    // Slack added them to a default channel.
    ("member_joined_channel", NamedIn::Inviter),
    ("message", NamedIn::User),
    ("pin_added", NamedIn::User),
    ("pin_removed", NamedIn::User),
    ("reaction_added", NamedIn::User),
    ("reaction_removed", NamedIn::User),
    ("star_added", NamedIn::User),
];

/// The subtypes of messages that `event.user` wrote. Other subtypes report something that was done
/// to a person or to another message.
const WRITTEN: [&str; 3] = ["file_share", "me_message", "thread_broadcast"];

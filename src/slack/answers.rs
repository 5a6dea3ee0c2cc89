//! Parses Slack's responses. Checks only the fields that are stored.
//!
//! Slack calls most fields optional. An optional field that is absent, `null`, empty or of an
//! unknown form counts as absent. A response with tokens is refused only if the tokens cannot be
//! used, and the error names the field.
//!
//! Errors of the JSON parser contain parts of the input, such as tokens. So they never leave this
//! file.

use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::member::Member;
use crate::clock::{from_epoch, to_epoch};
use crate::installation::{Bot, Enterprise, Grant, Home, IncomingWebhook, Scopes, Team, User};
use crate::secret::{AccessToken, RefreshToken, WebhookUrl};
use crate::tenant::{AppId, BotId, EnterpriseId, TeamId, UserId};

/// The tokens that `oauth.v2.access` issued for a code.
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// The installed app.
    pub app_id: AppId,
    /// The workspace or organisation in which the app was installed.
    pub home: Home,
    /// The user who installed the app.
    pub authed_user: Option<UserId>,
    /// The bot; `None` if only user scopes were granted.
    pub bot: Option<Bot>,
    /// The installer's own authorisation, if user scopes were granted.
    pub user: Option<User>,
    /// The webhook, if `incoming-webhook` was granted.
    pub incoming_webhook: Option<IncomingWebhook>,
    /// The time of the response on Slack's clock (its `Date` header).
    pub at: SystemTime,
}

/// A pair that `oauth.v2.access` issued for a refresh token, or `oauth.v2.exchange` for a
/// long-lived one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Renewed {
    /// The app that the token belongs to.
    pub app_id: AppId,
    /// The organisation, if the response names it.
    pub enterprise_id: Option<EnterpriseId>,
    /// The workspace, if the response names it.
    pub team_id: Option<TeamId>,
    /// The owner of a user token; `None` for a bot's.
    pub user_id: Option<UserId>,
    /// Whether the token acts as a user; otherwise it acts as the bot.
    pub is_user: bool,
    /// The pair. Its scopes are empty if the response does not name them.
    pub grant: Grant,
    /// The time of the response on Slack's clock (its `Date` header).
    pub at: SystemTime,
}

/// The owner of a token, from `auth.test`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuthTest {
    /// The bot, for a bot token.
    pub bot_id: Option<BotId>,
    /// The organisation; `None` if there is none.
    pub enterprise_id: Option<EnterpriseId>,
    /// The workspace. Slack does not document this field for an org-wide token.
    pub team_id: Option<TeamId>,
    /// The workspace's or the organisation's URL.
    pub url: Option<String>,
    /// The user that the token acts as.
    pub user_id: Option<UserId>,
}

/// The properties of a user that an install policy can check.
///
/// An absent flag is `false`. Slack leaves out most flags of a deactivated user. A flag of an
/// unknown form never makes the user an admin, and counts as set if it denies something.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UserInfo {
    /// The user's own workspace. For a user of another company (Slack Connect), it is that
    /// company's workspace.
    pub team_id: Option<TeamId>,
    /// Whether the user is deactivated.
    pub is_deleted: bool,
    /// Whether the user is an admin or owner of the workspace.
    pub is_admin: bool,
    /// Whether the user is an admin or owner of the organisation.
    pub is_org_admin: bool,
    /// Whether the user is a guest, or belongs to another company.
    pub is_outsider: bool,
    /// The organisation to which `is_org_admin` applies.
    pub enterprise_id: Option<EnterpriseId>,
    /// The user's workspaces in that organisation.
    pub teams: Vec<TeamId>,
}

/// The tokens of a code exchange, before the owners of the tokens are known.
pub(super) struct Exchanged {
    app_id: Option<AppId>,
    home: Option<Home>,
    authed_user: Option<UserId>,
    bot_user: Option<UserId>,
    tokens: Tokens,
    incoming_webhook: Option<IncomingWebhook>,
    at: SystemTime,
}

/// Issued tokens that may have no known owner.
#[derive(Debug, Default)]
struct Tokens {
    bot: Option<Grant>,
    user: Option<Grant>,
}

/// Tokens that Slack issued for a code, and that cannot be stored as an installation.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// Why they cannot be stored. Names the field.
    pub(crate) what: &'static str,
    /// The app that they were issued for, if known.
    pub(crate) app_id: Option<AppId>,
    /// Where they were issued, if known.
    pub(crate) home: Option<Home>,
    /// The owner of the user's token, if known.
    pub(crate) user_id: Option<UserId>,
    /// The bot's token and the user's.
    pub(crate) grants: [Option<Grant>; 2],
}

impl Unusable {
    pub(crate) fn error(&self) -> Error {
        malformed(self.what)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccessAnswer {
    app_id: Member,
    team: Member<Named>,
    enterprise: Member<Named>,
    is_enterprise_install: Member,
    authed_user: Member<AuthedUser>,
    access_token: Member,
    token_type: Member,
    scope: Member,
    bot_user_id: Member,
    refresh_token: Member,
    expires_in: Member,
    incoming_webhook: Member<WebhookAnswer>,
}

/// The token fields are normally at the top level, both for a bot and for a user. Some responses
/// have a user's in `authed_user`, as a code exchange has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RenewedAnswer {
    app_id: Member,
    team: Member<Named>,
    enterprise: Member<Named>,
    authed_user: Member<AuthedUser>,
    access_token: Member,
    token_type: Member,
    scope: Member,
    user_id: Member,
    refresh_token: Member,
    expires_in: Member,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    id: Member,
    name: Member,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthedUser {
    id: Member,
    access_token: Member,
    token_type: Member,
    scope: Member,
    refresh_token: Member,
    expires_in: Member,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WebhookAnswer {
    channel: Member,
    channel_id: Member,
    configuration_url: Member,
    url: Member,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthTestAnswer {
    bot_id: Member,
    enterprise_id: Member,
    team_id: Member,
    url: Member,
    user_id: Member,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TeamsAnswer {
    teams: Member<Named>,
    response_metadata: Member<ResponseMetadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseMetadata {
    next_cursor: Member,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PersonAnswer {
    user: Member<PersonFields>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PersonFields {
    team_id: Member,
    deleted: Member,
    is_admin: Member,
    is_owner: Member,
    is_primary_owner: Member,
    is_restricted: Member,
    is_ultra_restricted: Member,
    is_stranger: Member,
    enterprise_user: Member<OrgFlags>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OrgFlags {
    enterprise_id: Member,
    is_admin: Member,
    is_owner: Member,
    is_primary_owner: Member,
    teams: Member,
}

/// Parses the response to a code exchange. The bot's token is at the top level, and the user's
/// token is in `authed_user`.
///
/// The inner error has the tokens of a response that cannot be stored.
pub(super) fn exchanged(
    body: &[u8],
    at: SystemTime,
) -> Result<Result<Exchanged, Box<Unusable>>, Error> {
    let answer: AccessAnswer = read(body)?;
    let is_org = answer.is_enterprise_install.flag().is_set();
    let user = answer.authed_user.object();
    let mut exchanged = Exchanged {
        app_id: known("app_id", AppId::new, answer.app_id),
        home: home(answer.team.object(), answer.enterprise.object(), is_org),
        authed_user: known("authed_user.id", UserId::new, user.id),
        bot_user: known("bot_user_id", UserId::new, answer.bot_user_id),
        tokens: Tokens::default(),
        incoming_webhook: webhook(answer.incoming_webhook.object()),
        at,
    };
    let user = TokenFields {
        access_token: user.access_token,
        token_type: user.token_type,
        scope: user.scope,
        refresh_token: user.refresh_token,
        expires_in: user.expires_in,
    };
    let bot = TokenFields {
        access_token: answer.access_token,
        token_type: answer.token_type,
        scope: answer.scope,
        refresh_token: answer.refresh_token,
        expires_in: answer.expires_in,
    };
    // Both are read before the first error, so that each usable token can be revoked.
    let (is_user, is_bot) = (user.is_user(true), !bot.is_user(false));
    let (user, bot) = (user.grant(at), bot.grant(at));
    let what = match (&bot, &user) {
        (Err(()), _) => Some("`access_token` has a wrong form"),
        (_, Err(())) => Some("`authed_user.access_token` has a wrong form"),
        (Ok(Some(_)), _) if !is_bot => Some("`token_type` is not a bot's"),
        (_, Ok(Some(_))) if !is_user => Some("`authed_user.token_type` is not a user's"),
        _ => None,
    };
    exchanged.tokens = Tokens {
        bot: bot.unwrap_or_default(),
        user: user.unwrap_or_default(),
    };
    Ok(match what {
        Some(what) => Err(exchanged.unusable(what)),
        None => Ok(exchanged),
    })
}

impl Exchanged {
    /// Returns the token whose owner `auth.test` must name, because the response does not.
    pub(super) fn ownerless(&self) -> Option<&AccessToken> {
        let bot = self.tokens.bot.as_ref().filter(|_| self.bot_user.is_none());
        let user = self.tokens.user.as_ref();
        let user = user.filter(|_| self.authed_user.is_none());
        bot.or(user).map(|grant| &grant.access_token)
    }

    /// Sets the owner of the token from [`ownerless`](Self::ownerless).
    pub(super) fn set_owner(&mut self, owner: UserId) {
        if self.tokens.bot.is_some() && self.bot_user.is_none() {
            self.bot_user = Some(owner);
        } else {
            self.authed_user = Some(owner);
        }
    }

    /// Returns the tokens with their owners.
    pub(super) fn issued(self) -> Result<Issued, Box<Unusable>> {
        let has_owners = self.ownerless().is_none();
        let (app_id, home) = match (&self.app_id, &self.home) {
            (None, _) => return Err(self.unusable("`app_id` is missing or has a wrong form")),
            (_, None) => {
                let what = "`team.id`, or for an org-wide installation `enterprise.id`, is \
                            missing or has a wrong form";
                return Err(self.unusable(what));
            }
            (Some(app_id), Some(home)) if has_owners => (app_id.clone(), home.clone()),
            _ => {
                let what = "`bot_user_id` or `authed_user.id` is missing, and `auth.test` did \
                            not name the token's owner";
                return Err(self.unusable(what));
            }
        };
        Ok(Issued {
            app_id,
            home,
            bot: self
                .bot_user
                .zip(self.tokens.bot)
                .map(|(user_id, grant)| Bot {
                    user_id,
                    id: None,
                    grant,
                }),
            user: self
                .authed_user
                .clone()
                .zip(self.tokens.user)
                .map(|(id, grant)| User { id, grant }),
            authed_user: self.authed_user,
            incoming_webhook: self.incoming_webhook,
            at: self.at,
        })
    }

    fn unusable(self, what: &'static str) -> Box<Unusable> {
        Box::new(Unusable {
            what,
            app_id: self.app_id,
            home: self.home,
            user_id: self.authed_user,
            grants: [self.tokens.bot, self.tokens.user],
        })
    }
}

/// Parses the response to a refresh or to the exchange of a long-lived token.
pub(super) fn renewed(body: &[u8], at: SystemTime) -> Result<Renewed, Error> {
    let answer: RenewedAnswer = read(body)?;
    let nested = answer.authed_user.object();
    let authed_user = known("authed_user.id", UserId::new, nested.id);
    let top = TokenFields {
        access_token: answer.access_token,
        token_type: answer.token_type,
        scope: answer.scope,
        refresh_token: answer.refresh_token,
        expires_in: answer.expires_in,
    };
    let is_nested = top.access_token.is_absent() && !nested.access_token.is_absent();
    let fields = if is_nested {
        TokenFields {
            access_token: nested.access_token,
            token_type: nested.token_type,
            scope: nested.scope,
            refresh_token: nested.refresh_token,
            expires_in: nested.expires_in,
        }
    } else {
        top
    };
    let user_id = known("user_id", UserId::new, answer.user_id);
    let is_user = fields.is_user(is_nested || user_id.is_some());
    // A bot's response may name the user who installed the app.
    let user_id = user_id.or_else(|| authed_user.filter(|_| is_user));
    let grant = fields
        .grant(at)
        .map_err(|()| malformed("`access_token` has a wrong form"))?
        .ok_or_else(|| malformed("`access_token` is missing"))?;
    if grant.refresh_token.is_none() {
        return Err(malformed("`refresh_token` is missing or has a wrong form"));
    }
    Ok(Renewed {
        app_id: known("app_id", AppId::new, answer.app_id)
            .ok_or_else(|| malformed("`app_id` is missing or has a wrong form"))?,
        enterprise_id: known(
            "enterprise.id",
            EnterpriseId::new,
            answer.enterprise.object().id,
        ),
        team_id: known("team.id", TeamId::new, answer.team.object().id),
        user_id,
        is_user,
        grant,
        at,
    })
}

/// Parses the response of `auth.test`. No field is required, and none selects a tenant. So an id
/// of an unknown form counts as absent.
pub(super) fn auth_test(body: &[u8]) -> Result<AuthTest, Error> {
    let answer: AuthTestAnswer = read(body)?;
    Ok(AuthTest {
        bot_id: id(BotId::new, answer.bot_id),
        enterprise_id: id(EnterpriseId::new, answer.enterprise_id),
        team_id: id(TeamId::new, answer.team_id),
        url: answer.url.text(),
        user_id: id(UserId::new, answer.user_id),
    })
}

/// Parses a page of `auth.teams.list`. Returns the cursor of the next page, if there is one.
pub(super) fn teams(body: &[u8]) -> Result<(Vec<TeamId>, Option<String>), Error> {
    let answer: TeamsAnswer = read(body)?;
    let teams = answer.teams.list().into_iter();
    Ok((
        teams
            .filter_map(|team| id(TeamId::new, team.object().id))
            .collect(),
        answer.response_metadata.object().next_cursor.text(),
    ))
}

/// Parses the response of `users.info`.
pub(super) fn person(body: &[u8]) -> Result<UserInfo, Error> {
    let answer: PersonAnswer = read(body)?;
    let Member::Object(user) = answer.user else {
        return Err(malformed("`user` is missing or is not an object"));
    };
    let org = user.enterprise_user.object();
    let is_set = |flags: [&Member; 3]| flags.iter().any(|flag| flag.flag().is_set());
    let may_be_set = |flags: &[&Member]| flags.iter().any(|flag| flag.flag().may_be_set());
    let teams = org.teams.list().into_iter();
    Ok(UserInfo {
        is_deleted: may_be_set(&[&user.deleted]),
        // In practice an owner is also an admin, but Slack does not document it.
        is_admin: is_set([&user.is_admin, &user.is_owner, &user.is_primary_owner]),
        is_org_admin: is_set([&org.is_admin, &org.is_owner, &org.is_primary_owner]),
        is_outsider: may_be_set(&[
            &user.is_restricted,
            &user.is_ultra_restricted,
            &user.is_stranger,
        ]),
        team_id: id(TeamId::new, user.team_id),
        enterprise_id: id(EnterpriseId::new, org.enterprise_id),
        teams: teams.filter_map(|team| id(TeamId::new, team)).collect(),
    })
}

/// Returns where the app was installed. The organisation of a workspace is for information only,
/// so one without a usable id counts as absent.
fn home(team: Named, enterprise: Named, is_org: bool) -> Option<Home> {
    let name = enterprise.name.text();
    let enterprise = known("enterprise.id", EnterpriseId::new, enterprise.id);
    let enterprise = enterprise.map(|id| Enterprise { id, name });
    let name = team.name.text();
    let team = known("team.id", TeamId::new, team.id).map(|id| Team { id, name });
    Home::new(enterprise, team, is_org).ok()
}

/// Returns the webhook. Only its URL is necessary: without a usable one, there is no webhook.
fn webhook(answer: WebhookAnswer) -> Option<IncomingWebhook> {
    Some(IncomingWebhook {
        url: known("incoming_webhook.url", WebhookUrl::new, answer.url)?,
        channel: answer.channel.text().unwrap_or_default(),
        channel_id: answer.channel_id.text().unwrap_or_default(),
        configuration_url: answer.configuration_url.text().unwrap_or_default(),
    })
}

/// The fields that describe one token.
struct TokenFields {
    access_token: Member,
    token_type: Member,
    scope: Member,
    refresh_token: Member,
    expires_in: Member,
}

impl TokenFields {
    /// Returns whether the token acts as a user: as its type says, else as its prefix says, else
    /// as its place in the response says.
    fn is_user(&self, is_place_for_user: bool) -> bool {
        match self.token_type.as_text() {
            "bot" | "granular_bot" => return false,
            "user" => return true,
            _ => {}
        }
        let token = self.access_token.as_text();
        let token = token.strip_prefix("xoxe.").unwrap_or(token);
        if token.starts_with("xoxb-") {
            false
        } else {
            token.starts_with("xoxp-") || is_place_for_user
        }
    }

    /// Returns the token; `None` if the response has none.
    ///
    /// # Errors
    ///
    /// If there is something that cannot be an access token.
    fn grant(self, at: SystemTime) -> Result<Option<Grant>, ()> {
        if self.access_token.is_absent() {
            return Ok(None);
        }
        let access_token = id(AccessToken::new, self.access_token).ok_or(())?;
        let refresh_token = known("refresh_token", RefreshToken::new, self.refresh_token);
        let unsaid = refresh_token.as_ref().map(|_| LIFETIME);
        let seconds = self.expires_in.number().or(unsaid);
        Ok(Some(Grant {
            access_token,
            refresh_token,
            expires_at: seconds.map(|seconds| from_epoch(to_epoch(at).saturating_add(seconds))),
            scopes: Scopes::from(self.scope.text().as_deref().unwrap_or_default()),
        }))
    }
}

/// Returns a checked id or secret; `None` if the member is absent or has an unknown form.
fn id<I, E>(new: impl Fn(String) -> Result<I, E>, member: Member) -> Option<I> {
    new(member.text()?).ok()
}

/// Does the same, and logs a warning for an unknown form.
fn known<I, E>(field: &str, new: impl Fn(String) -> Result<I, E>, member: Member) -> Option<I> {
    let is_absent = member.is_absent();
    let known = id(new, member);
    if known.is_none() && !is_absent {
        tracing::warn!(
            field,
            "a field of Slack's response has an unknown form; it is ignored"
        );
    }
    known
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| malformed("a field occurs twice"))
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { what }
}

/// The lifetime of a token that rotates, in seconds, if Slack's response does not name it
/// (<https://docs.slack.dev/authentication/using-token-rotation>).
const LIFETIME: u64 = 43_200;

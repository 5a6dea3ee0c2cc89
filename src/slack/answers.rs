//! Slack's answers, read strictly enough to be kept and no more.
//!
//! Errors of the JSON reader repeat what it read, tokens included, so they go no further than
//! this file.

use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::clock::{from_epoch, to_epoch};
use crate::installation::{Bot, Enterprise, Grant, Home, IncomingWebhook, Scopes, Team, User};
use crate::secret::{AccessToken, RefreshToken, WebhookUrl};
use crate::tenant::{AppId, BotId, EnterpriseId, TeamId, UserId};

/// What `oauth.v2.access` issued for a code.
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// The app that the code was for.
    pub app_id: AppId,
    /// Where it was installed.
    pub home: Home,
    /// Who installed it.
    pub authed_user: Option<UserId>,
    /// The bot, unless only user scopes were granted.
    pub bot: Option<Bot>,
    /// The installer's own authorisation, if user scopes were granted.
    pub user: Option<User>,
    /// The webhook, if `incoming-webhook` was granted.
    pub incoming_webhook: Option<IncomingWebhook>,
    /// When, on Slack's clock (its `Date` header).
    pub at: SystemTime,
}

/// A pair that `oauth.v2.access` issued for a refresh token, or `oauth.v2.exchange` for a
/// long-lived one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Renewed {
    /// The app that the token is of.
    pub app_id: AppId,
    /// The organisation, if Slack said.
    pub enterprise_id: Option<EnterpriseId>,
    /// The workspace, if Slack said.
    pub team_id: Option<TeamId>,
    /// The owner of a user token; `None` for a bot's.
    pub user_id: Option<UserId>,
    /// The token acts as a user, not as the bot.
    pub is_user: bool,
    /// The pair; without scopes if Slack did not name them.
    pub grant: Grant,
    /// When, on Slack's clock (its `Date` header).
    pub at: SystemTime,
}

/// Whose a token is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuthTest {
    /// The bot, for a bot token.
    pub bot_id: Option<BotId>,
    /// The organisation, if there is one.
    pub enterprise_id: Option<EnterpriseId>,
    /// The workspace. For an org-wide token Slack does not say what stands here.
    pub team_id: Option<TeamId>,
    /// The workspace's or the organisation's URL.
    pub url: Option<String>,
    /// The user that the token acts as.
    pub user_id: Option<UserId>,
}

/// Who a user is, as far as an install policy asks. An absent flag is false: a deactivated
/// user has few.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UserInfo {
    /// Their own workspace; another than ours for somebody from the other side of Slack Connect.
    pub team_id: Option<TeamId>,
    /// Deactivated.
    pub is_deleted: bool,
    /// An admin or owner of the workspace.
    pub is_admin: bool,
    /// An admin or owner of the organisation.
    pub is_org_admin: bool,
    /// A guest, or from another company.
    pub is_outsider: bool,
    /// The organisation that `is_org_admin` is about.
    pub enterprise_id: Option<EnterpriseId>,
    /// Their workspaces in that organisation.
    pub teams: Vec<TeamId>,
}

#[derive(Deserialize)]
struct AccessAnswer {
    app_id: String,
    team: Option<Named>,
    enterprise: Option<Named>,
    #[serde(default)]
    is_enterprise_install: bool,
    authed_user: Option<AuthedUser>,
    access_token: Option<String>,
    token_type: Option<String>,
    scope: Option<String>,
    bot_user_id: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
    incoming_webhook: Option<WebhookAnswer>,
}

/// The token stands at the top for a bot and for a user.
#[derive(Deserialize)]
struct RenewedAnswer {
    app_id: String,
    team: Option<Named>,
    enterprise: Option<Named>,
    access_token: String,
    token_type: String,
    scope: Option<String>,
    user_id: Option<String>,
    refresh_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct AuthedUser {
    id: String,
    access_token: Option<String>,
    token_type: Option<String>,
    scope: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct WebhookAnswer {
    channel: String,
    channel_id: String,
    configuration_url: String,
    url: String,
}

#[derive(Deserialize)]
struct AuthTestAnswer {
    bot_id: Option<String>,
    enterprise_id: Option<String>,
    team_id: Option<String>,
    url: Option<String>,
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct PersonAnswer {
    user: PersonFields,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PersonFields {
    team_id: Option<String>,
    deleted: bool,
    is_admin: bool,
    is_owner: bool,
    is_primary_owner: bool,
    is_restricted: bool,
    is_ultra_restricted: bool,
    is_stranger: bool,
    enterprise_user: OrgFlags,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OrgFlags {
    enterprise_id: Option<String>,
    is_admin: bool,
    is_owner: bool,
    is_primary_owner: bool,
    teams: Vec<String>,
}

/// Reads the answer to a code exchange: the bot's token stands at the top, the user's inside
/// `authed_user`.
pub(super) fn issued(body: &[u8], at: SystemTime) -> Result<Issued, Error> {
    let answer: AccessAnswer = read(body, "its fields")?;
    let enterprise = answer
        .enterprise
        .map(|named| named.typed(EnterpriseId::new))
        .transpose()?;
    let team = answer
        .team
        .map(|named| named.typed(TeamId::new))
        .transpose()?;
    let home = Home::new(
        enterprise.map(|(id, name)| Enterprise { id, name }),
        team.map(|(id, name)| Team { id, name }),
        answer.is_enterprise_install,
    )
    .map_err(|_| malformed("it names neither a workspace nor an organisation"))?;
    let bot = match answer.access_token {
        Some(token) => {
            token_type(answer.token_type.as_deref(), &["bot", "granular_bot"])?;
            let user_id = answer
                .bot_user_id
                .ok_or_else(|| malformed("no bot_user_id"))?;
            Some(Bot {
                user_id: id(UserId::new, user_id)?,
                id: None,
                grant: grant(
                    token,
                    answer.refresh_token,
                    answer.expires_in,
                    answer.scope.as_deref(),
                    at,
                )?,
            })
        }
        None => None,
    };
    let mut authed_user = None;
    let mut user = None;
    if let Some(answer) = answer.authed_user {
        let id = id(UserId::new, answer.id)?;
        authed_user = Some(id.clone());
        if let Some(token) = answer.access_token {
            token_type(answer.token_type.as_deref(), &["user"])?;
            let grant = grant(
                token,
                answer.refresh_token,
                answer.expires_in,
                answer.scope.as_deref(),
                at,
            )?;
            user = Some(User { id, grant });
        }
    }
    let webhook = |answer: WebhookAnswer| -> Result<_, Error> {
        Ok(IncomingWebhook {
            channel: answer.channel,
            channel_id: answer.channel_id,
            configuration_url: answer.configuration_url,
            url: WebhookUrl::new(answer.url).map_err(|_| malformed("the webhook's url"))?,
        })
    };
    Ok(Issued {
        app_id: id(AppId::new, answer.app_id)?,
        home,
        authed_user,
        bot,
        user,
        incoming_webhook: answer.incoming_webhook.map(webhook).transpose()?,
        at,
    })
}

/// Reads the answer to a refresh or to an exchange.
pub(super) fn renewed(body: &[u8], at: SystemTime) -> Result<Renewed, Error> {
    let answer: RenewedAnswer = read(body, "its fields")?;
    let is_user = match answer.token_type.as_str() {
        "bot" | "granular_bot" => false,
        "user" => true,
        _ => return Err(malformed("a token of an unknown type")),
    };
    let team = answer.team.map(|named| id(TeamId::new, named.id));
    let enterprise = answer
        .enterprise
        .map(|named| id(EnterpriseId::new, named.id));
    let user_id = answer.user_id.map(|user| id(UserId::new, user));
    Ok(Renewed {
        app_id: id(AppId::new, answer.app_id)?,
        enterprise_id: enterprise.transpose()?,
        team_id: team.transpose()?,
        user_id: user_id.transpose()?,
        is_user,
        grant: grant(
            answer.access_token,
            Some(answer.refresh_token),
            Some(answer.expires_in),
            answer.scope.as_deref(),
            at,
        )?,
        at,
    })
}

/// Reads `auth.test`. Nothing in it is required, and nothing in it decides a tenant, so an id
/// of an unknown form counts as absent.
pub(super) fn auth_test(body: &[u8]) -> Result<AuthTest, Error> {
    let answer: AuthTestAnswer = read(body, "its fields")?;
    Ok(AuthTest {
        bot_id: answer.bot_id.and_then(|id| BotId::new(id).ok()),
        enterprise_id: answer
            .enterprise_id
            .and_then(|id| EnterpriseId::new(id).ok()),
        team_id: answer.team_id.and_then(|id| TeamId::new(id).ok()),
        url: answer.url,
        user_id: answer.user_id.and_then(|id| UserId::new(id).ok()),
    })
}

/// Reads `users.info`.
pub(super) fn person(body: &[u8]) -> Result<UserInfo, Error> {
    let PersonAnswer { user } = read(body, "the user's fields")?;
    let org = user.enterprise_user;
    Ok(UserInfo {
        team_id: user.team_id.and_then(|id| TeamId::new(id).ok()),
        is_deleted: user.deleted,
        // An owner is an admin in practice, which no page promises.
        is_admin: user.is_admin || user.is_owner || user.is_primary_owner,
        is_org_admin: org.is_admin || org.is_owner || org.is_primary_owner,
        is_outsider: user.is_restricted || user.is_ultra_restricted || user.is_stranger,
        enterprise_id: org.enterprise_id.and_then(|id| EnterpriseId::new(id).ok()),
        teams: org
            .teams
            .into_iter()
            .filter_map(|id| TeamId::new(id).ok())
            .collect(),
    })
}

impl Named {
    fn typed<I, E>(
        self,
        new: impl Fn(String) -> Result<I, E>,
    ) -> Result<(I, Option<String>), Error> {
        Ok((id(new, self.id)?, self.name))
    }
}

fn grant(
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
    scope: Option<&str>,
    at: SystemTime,
) -> Result<Grant, Error> {
    let refresh_token = refresh_token.map(RefreshToken::new).transpose();
    Ok(Grant {
        access_token: AccessToken::new(access_token).map_err(|_| malformed("a token"))?,
        refresh_token: refresh_token.map_err(|_| malformed("a token"))?,
        expires_at: expires_in.map(|seconds| from_epoch(to_epoch(at).saturating_add(seconds))),
        scopes: Scopes::from(scope.unwrap_or_default()),
    })
}

fn token_type(token_type: Option<&str>, allowed: &[&str]) -> Result<(), Error> {
    if token_type.is_some_and(|token_type| allowed.contains(&token_type)) {
        Ok(())
    } else {
        Err(malformed("a token of another type than its place"))
    }
}

fn id<I, E>(new: impl Fn(String) -> Result<I, E>, id: String) -> Result<I, Error> {
    new(id).map_err(|_| malformed("an id"))
}

fn read<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| malformed(what))
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { what }
}

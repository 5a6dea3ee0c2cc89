//! Parses Slack's responses. Checks only the fields that are stored.
//!
//! Errors of the JSON parser contain parts of the input, such as tokens. So they never leave this
//! file.

use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::Error;
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
/// An absent flag is `false`. Slack leaves out most flags of a deactivated user.
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

#[derive(Deserialize)]
struct AccessAnswer {
    app_id: String,
    team: Option<Named>,
    enterprise: Option<Named>,
    #[serde(default)]
    is_enterprise_install: bool,
    authed_user: Option<AuthedUser>,
    access_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    scope: Option<String>,
    bot_user_id: Option<String>,
    refresh_token: Option<Zeroizing<String>>,
    expires_in: Option<u64>,
    incoming_webhook: Option<WebhookAnswer>,
}

/// The token fields are at the top level, both for a bot and for a user.
#[derive(Deserialize)]
struct RenewedAnswer {
    app_id: String,
    team: Option<Named>,
    enterprise: Option<Named>,
    access_token: Zeroizing<String>,
    token_type: String,
    scope: Option<String>,
    user_id: Option<String>,
    refresh_token: Zeroizing<String>,
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
    access_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    scope: Option<String>,
    refresh_token: Option<Zeroizing<String>>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct WebhookAnswer {
    channel: String,
    channel_id: String,
    configuration_url: String,
    url: Zeroizing<String>,
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

/// Parses the response to a code exchange. The bot's token is at the top level, and the user's
/// token is in `authed_user`.
pub(super) fn issued(body: &[u8], at: SystemTime) -> Result<Issued, Error> {
    let answer: AccessAnswer = read(body, "a field is missing or has the wrong type")?;
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
    .map_err(|_| malformed("it has neither a workspace's id nor an organisation's id"))?;
    let bot = match answer.access_token {
        Some(token) => {
            token_type(answer.token_type.as_deref(), &["bot", "granular_bot"])?;
            let user_id = answer
                .bot_user_id
                .ok_or_else(|| malformed("`bot_user_id` is missing"))?;
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
    let webhook = |mut answer: WebhookAnswer| -> Result<_, Error> {
        Ok(IncomingWebhook {
            channel: answer.channel,
            channel_id: answer.channel_id,
            configuration_url: answer.configuration_url,
            url: WebhookUrl::new(std::mem::take(&mut *answer.url))
                .map_err(|_| malformed("the webhook's URL has a wrong form"))?,
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

/// Parses the response to a refresh or to the exchange of a long-lived token.
pub(super) fn renewed(body: &[u8], at: SystemTime) -> Result<Renewed, Error> {
    let answer: RenewedAnswer = read(body, "a field is missing or has the wrong type")?;
    let is_user = match answer.token_type.as_str() {
        "bot" | "granular_bot" => false,
        "user" => true,
        _ => return Err(malformed("`token_type` is unknown")),
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

/// Parses the response of `auth.test`. No field is required, and none selects a tenant. So an id
/// of an unknown form counts as absent.
pub(super) fn auth_test(body: &[u8]) -> Result<AuthTest, Error> {
    let answer: AuthTestAnswer = read(body, "a field is missing or has the wrong type")?;
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

/// Parses the response of `users.info`.
pub(super) fn person(body: &[u8]) -> Result<UserInfo, Error> {
    let PersonAnswer { user } = read(body, "a field of the user is missing or has the wrong type")?;
    let org = user.enterprise_user;
    Ok(UserInfo {
        team_id: user.team_id.and_then(|id| TeamId::new(id).ok()),
        is_deleted: user.deleted,
        // In practice an owner is also an admin, but Slack does not document it.
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
    mut access_token: Zeroizing<String>,
    refresh_token: Option<Zeroizing<String>>,
    expires_in: Option<u64>,
    scope: Option<&str>,
    at: SystemTime,
) -> Result<Grant, Error> {
    let refresh_token = refresh_token
        .map(|mut token| RefreshToken::new(std::mem::take(&mut *token)))
        .transpose();
    Ok(Grant {
        access_token: AccessToken::new(std::mem::take(&mut *access_token))
            .map_err(|_| malformed("a token has a wrong form"))?,
        refresh_token: refresh_token.map_err(|_| malformed("a token has a wrong form"))?,
        expires_at: expires_in.map(|seconds| from_epoch(to_epoch(at).saturating_add(seconds))),
        scopes: Scopes::from(scope.unwrap_or_default()),
    })
}

fn token_type(token_type: Option<&str>, allowed: &[&str]) -> Result<(), Error> {
    if token_type.is_some_and(|token_type| allowed.contains(&token_type)) {
        Ok(())
    } else {
        Err(malformed(
            "`token_type` is not the type that this field requires",
        ))
    }
}

fn id<I, E>(new: impl Fn(String) -> Result<I, E>, id: String) -> Result<I, Error> {
    new(id).map_err(|_| malformed("an id has a wrong form"))
}

fn read<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| malformed(what))
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { what }
}

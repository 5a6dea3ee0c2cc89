//! Installations to store, and readers for the parts of an installation that was fetched.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slack_installs::secret::{AccessToken, RefreshToken, WebhookUrl};
use slack_installs::{
    AppId, Bot, BotId, Enterprise, EnterpriseId, Grant, Home, IncomingWebhook, Installation,
    InstallationKey, Scopes, Team, TeamId, User, UserId,
};

/// The time at which these tests take place, on Slack's clock.
pub(crate) fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

pub(crate) fn team(id: &str) -> TeamId {
    TeamId::new(id).expect("a team id")
}

pub(crate) fn enterprise(id: &str) -> EnterpriseId {
    EnterpriseId::new(id).expect("an enterprise id")
}

pub(crate) fn user_id(id: &str) -> UserId {
    UserId::new(id).expect("a user id")
}

pub(crate) fn bot_id(id: &str) -> BotId {
    BotId::new(id).expect("a bot id")
}

/// `(None, team)`.
pub(crate) fn workspace_key(id: &str) -> InstallationKey {
    InstallationKey::workspace(team(id))
}

/// `(enterprise, None)`.
pub(crate) fn org_key(id: &str) -> InstallationKey {
    InstallationKey::org(enterprise(id))
}

/// Returns an installation in a workspace outside any organisation.
pub(crate) fn in_workspace(id: &str) -> Installation {
    at(Home::new(None, Some(named_team(id)), false))
}

/// Returns an installation in a workspace, with a bot and this user's token.
pub(crate) fn with_both(id: &str, bot: &str, user: &str, token: &str) -> Installation {
    in_workspace(id).with_bot(bot).with_user(user, token)
}

/// Returns an installation in a workspace of an organisation.
pub(crate) fn in_workspace_of(enterprise: &str, id: &str) -> Installation {
    at(Home::new(
        Some(named_enterprise(enterprise)),
        Some(named_team(id)),
        false,
    ))
}

/// Returns an installation in an organisation as a whole. Slack may also name a team.
pub(crate) fn in_org(id: &str, beside: Option<&str>) -> Installation {
    at(Home::new(
        Some(named_enterprise(id)),
        beside.map(named_team),
        true,
    ))
}

fn at(home: Result<Home, slack_installs::IdError>) -> Installation {
    let app_id = AppId::new("A0GOLDEN001").expect("an app id");
    let mut installation = Installation::new(app_id, home.expect("a tenant"), noon());
    installation.installed_by = Some(user_id("U0ADMIN0001"));
    installation
}

fn named_team(id: &str) -> Team {
    Team {
        id: team(id),
        name: Some(format!("Team {id}")),
    }
}

fn named_enterprise(id: &str) -> Enterprise {
    Enterprise {
        id: enterprise(id),
        name: Some(format!("Organisation {id}")),
    }
}

/// Returns a token without rotation.
pub(crate) fn grant(token: &str) -> Grant {
    Grant {
        access_token: AccessToken::new(token).expect("a token"),
        refresh_token: None,
        expires_at: None,
        scopes: Scopes::from("chat:write,commands"),
    }
}

/// Returns a token with rotation.
pub(crate) fn rotating(access: &str, refresh: &str) -> Grant {
    Grant {
        refresh_token: Some(RefreshToken::new(refresh).expect("a token")),
        expires_at: Some(noon() + Duration::from_secs(43_200)),
        ..grant(access)
    }
}

pub(crate) fn webhook(channel_id: &str, url: &str) -> IncomingWebhook {
    IncomingWebhook {
        channel: format!("#{}", channel_id.to_lowercase()),
        channel_id: channel_id.to_owned(),
        configuration_url: "https://alpha.slack.com/services/B0HOOK00001".to_owned(),
        url: WebhookUrl::new(url).expect("a URL"),
    }
}

/// Adds parts to an installation.
pub(crate) trait With {
    fn with_bot(self, token: &str) -> Self;
    fn with_user(self, id: &str, token: &str) -> Self;
    fn with_webhook(self, channel_id: &str, url: &str) -> Self;
}

impl With for Installation {
    fn with_bot(mut self, token: &str) -> Self {
        self.bot = Some(Bot {
            user_id: user_id("U0BOT000001"),
            id: None,
            grant: grant(token),
        });
        self
    }

    fn with_user(mut self, id: &str, token: &str) -> Self {
        self.user = Some(User {
            id: user_id(id),
            grant: grant(token),
        });
        self
    }

    fn with_webhook(mut self, channel_id: &str, url: &str) -> Self {
        self.incoming_webhooks.push(webhook(channel_id, url));
        self
    }
}

pub(crate) fn bot_token(installation: &Installation) -> Option<&str> {
    Some(installation.bot.as_ref()?.grant.access_token.expose())
}

pub(crate) fn user_token(installation: &Installation) -> Option<(&str, &str)> {
    let user = installation.user.as_ref()?;
    Some((user.id.as_str(), user.grant.access_token.expose()))
}

/// Returns the webhooks' URLs, sorted.
pub(crate) fn webhook_urls(installation: &Installation) -> Vec<&str> {
    let webhooks = installation.incoming_webhooks.iter();
    let mut urls: Vec<_> = webhooks.map(|webhook| webhook.url.expose()).collect();
    urls.sort_unstable();
    urls
}

/// Formats everything in an installation except its revision, secrets included, to compare two
/// installations.
pub(crate) fn whole(installation: &Installation) -> String {
    let secrets = |grant: &Grant| {
        let refresh = grant
            .refresh_token
            .as_ref()
            .map(|token| token.expose().to_owned());
        (grant.access_token.expose().to_owned(), refresh)
    };
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        installation.app_id,
        installation.home,
        installation.url,
        installation.bot,
        installation.bot.as_ref().map(|bot| secrets(&bot.grant)),
        installation.user,
        installation.user.as_ref().map(|user| secrets(&user.grant)),
        installation.installed_by,
        installation.installed_at,
        installation.incoming_webhooks,
        webhook_urls(installation),
        installation.metadata,
        installation
            .user_metadata
            .as_ref()
            .map(|own| (&own.user, &own.text)),
    )
}

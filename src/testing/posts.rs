//! The URLs to which the app posts messages without a token: incoming webhooks and `response_url`s.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use url::Url;

use crate::tenant::{InstallationKey, TeamId, UserId};

use super::FakeSlack;
use super::mint::Mint;

/// A message that the app posted to an incoming webhook.
///
/// ```
/// use slack_installs::testing::{FakeSlack, World};
///
/// let fake = FakeSlack::in_process(World::default());
/// // Your app posts to the webhook's URL in its installation, and then:
/// for post in fake.webhook_posts() {
///     assert_eq!(post.body["text"], "hello");
/// }
/// ```
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct WebhookPost {
    /// The time of arrival, on the fake's clock.
    pub at: SystemTime,
    /// The message.
    pub body: Value,
    /// The channel of the webhook.
    pub channel_id: String,
    /// The tenant in which the webhook was issued.
    pub tenant: InstallationKey,
    /// The person who installed the webhook.
    pub user: UserId,
}

impl fmt::Debug for WebhookPost {
    /// Omits the message, which can hold personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookPost")
            .field("at", &self.at)
            .field("channel_id", &self.channel_id)
            .field("tenant", &self.tenant)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl FakeSlack {
    /// Returns the bodies that the app posted to `response_url`s, in order of arrival.
    ///
    /// As Slack does, the fake accepts five posts to a `response_url` within 30 minutes. It refuses
    /// others with status 404 and `used_url` or `expired_url`.
    #[must_use]
    pub fn replies(&self) -> Vec<Value> {
        self.core.state().posts.replies.clone()
    }

    /// Returns the messages that the app posted to incoming webhooks, in order of arrival.
    ///
    /// The fake issues a webhook for the bot's scope `incoming-webhook`. Its URL is on the fake's
    /// own host, with Slack's path. It works until the bot's tokens are revoked or the app is
    /// uninstalled. Then the response is 404 `no_service`.
    #[must_use]
    pub fn webhook_posts(&self) -> Vec<WebhookPost> {
        self.core.state().posts.webhook_posts.clone()
    }
}

/// The issued URLs by their path, and the accepted posts.
pub(super) struct Posts {
    base: Url,
    replies: Vec<Value>,
    response_urls: HashMap<String, ResponseUrl>,
    webhook_posts: Vec<WebhookPost>,
    webhooks: HashMap<String, Webhook>,
}

struct ResponseUrl {
    expires_at: SystemTime,
    uses: usize,
}

struct Webhook {
    tenant: InstallationKey,
    user: UserId,
}

impl Posts {
    pub(super) fn new(base: &Url) -> Self {
        Self {
            base: base.clone(),
            replies: Vec::new(),
            response_urls: HashMap::new(),
            webhook_posts: Vec::new(),
            webhooks: HashMap::new(),
        }
    }

    /// Issues a `response_url`.
    pub(super) fn response_url(
        &mut self,
        mint: &mut Mint,
        team: &TeamId,
        now: SystemTime,
    ) -> String {
        let path = format!("{REPLIES}{team}/{}", mint.ticket());
        let url = self.url(&path);
        let issued = ResponseUrl {
            expires_at: now + REPLY_LIFE,
            uses: 0,
        };
        self.response_urls.insert(path, issued);
        url.into()
    }

    /// Issues an incoming webhook's URL.
    pub(super) fn webhook(
        &mut self,
        mint: &mut Mint,
        hook: &str,
        tenant: &InstallationKey,
        user: &UserId,
    ) -> String {
        let path = format!("{WEBHOOKS}{}/{hook}/{}", tenant.id(), mint.ticket());
        let url = self.url(&path);
        let webhook = Webhook {
            tenant: tenant.clone(),
            user: user.clone(),
        };
        self.webhooks.insert(path, webhook);
        url.into()
    }

    /// Ends all webhooks of a tenant, because its bot's tokens were revoked.
    pub(super) fn end_webhooks(&mut self, tenant: &InstallationKey) {
        self.webhooks.retain(|_, webhook| webhook.tenant != *tenant);
    }

    /// Stores the body of a post to a `response_url`.
    ///
    /// # Errors
    ///
    /// Returns Slack's error code if the URL is unknown, expired or used up.
    pub(super) fn reply(
        &mut self,
        path: &str,
        body: Value,
        now: SystemTime,
    ) -> Result<(), &'static str> {
        let issued = self.response_urls.get_mut(path).ok_or("expired_url")?;
        if now >= issued.expires_at {
            return Err("expired_url");
        }
        if issued.uses >= REPLY_USES {
            return Err("used_url");
        }
        issued.uses += 1;
        self.replies.push(body);
        Ok(())
    }

    /// Stores a message to an incoming webhook.
    ///
    /// # Errors
    ///
    /// Returns Slack's error code if the webhook is unknown or has ended.
    pub(super) fn hook(
        &mut self,
        path: &str,
        body: Value,
        at: SystemTime,
    ) -> Result<(), &'static str> {
        let webhook = self.webhooks.get(path).ok_or("no_service")?;
        self.webhook_posts.push(WebhookPost {
            at,
            body,
            channel_id: WEBHOOK_CHANNEL.to_owned(),
            tenant: webhook.tenant.clone(),
            user: webhook.user.clone(),
        });
        Ok(())
    }

    fn url(&self, path: &str) -> Url {
        let url = self.base.join(path);
        url.expect("a path of letters can be joined to any base")
    }
}

/// The path of `response_url`s on the fake's host.
pub(super) const REPLIES: &str = "/responses/";

/// The path of incoming webhooks, as on Slack's host.
pub(super) const WEBHOOKS: &str = "/services/";

/// The channel of every webhook.
pub(super) const WEBHOOK_CHANNEL: &str = "C0GENERAL01";

/// How long a `response_url` works, from Slack's documentation.
const REPLY_LIFE: Duration = Duration::from_secs(30 * 60);

/// How often a `response_url` works, from Slack's documentation.
const REPLY_USES: usize = 5;

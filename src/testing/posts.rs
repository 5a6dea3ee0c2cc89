//! The URLs to which the app posts messages without a token: incoming webhooks and `response_url`s.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::Value;
use url::Url;

use crate::tenant::{InstallationKey, TeamId, UserId};

use super::FakeSlack;
use super::consent::{field, pairs};
use super::core::Core;
use super::mint::Mint;
use super::response::{refuse, status};

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

    fn url(&self, path: &str) -> Url {
        let url = self.base.join(path);
        url.expect("a path of letters can be joined to any base")
    }
}

impl Core {
    /// Stores the body that the app posts to a `response_url`.
    pub(super) fn reply(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let mut state = self.state();
        let posts = &mut state.posts;
        let issued = posts.response_urls.get_mut(request.uri().path());
        let error = match &issued {
            Some(issued) if self.clock.now() >= issued.expires_at => Some("expired_url"),
            Some(issued) if issued.uses >= REPLY_USES => Some("used_url"),
            Some(_) => None,
            None => Some("expired_url"),
        };
        if let Some(error) = error {
            let mut response = refuse(error);
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        let Some(body) = message(request) else {
            return status(StatusCode::BAD_REQUEST);
        };
        if let Some(issued) = issued {
            issued.uses += 1;
        }
        posts.replies.push(body);
        text(StatusCode::OK, "ok")
    }

    /// Stores the message that the app posts to an incoming webhook.
    pub(super) fn webhook(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let at = self.clock.now();
        let mut state = self.state();
        let posts = &mut state.posts;
        let Some(webhook) = posts.webhooks.get(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "no_service");
        };
        let Some(body) = message(request) else {
            return text(StatusCode::BAD_REQUEST, "invalid_payload");
        };
        posts.webhook_posts.push(WebhookPost {
            at,
            body,
            channel_id: WEBHOOK_CHANNEL.to_owned(),
            tenant: webhook.tenant.clone(),
            user: webhook.user.clone(),
        });
        text(StatusCode::OK, "ok")
    }
}

/// Returns the posted JSON object: the body, or the form field `payload`.
fn message(request: &Request<Bytes>) -> Option<Value> {
    let body = request.body();
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let in_form = || serde_json::from_str(field(&pairs(body), "payload")?).ok();
    parsed.or_else(in_form).filter(Value::is_object)
}

fn text(code: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = status(code);
    *response.body_mut() = Bytes::from_static(text.as_bytes());
    response
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

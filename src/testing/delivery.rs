//! Signed requests from Slack to the app under test.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ring::hmac;
use serde_json::Value;
use tokio::time::timeout;
use url::{Url, form_urlencoded};

use crate::clock::to_epoch;
use crate::slack::is_loopback;

/// A request from Slack to the app: an event, a slash command or an interaction.
///
/// You can change a delivery before it is signed. To send a wrong signature, change the result of
/// [`request`](Self::request).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use slack_installs::testing::FakeSlack;
///
/// let fake = FakeSlack::start().await?;
/// let url = "http://127.0.0.1:3000/slack/commands".parse()?;
/// let command = fake.slash_command("U0ADMIN0001", "/hello", "world");
/// let request = command.request(&url);
/// assert!(request.headers().contains_key("x-slack-signature"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Delivery {
    pub(super) content: Content,
    pub(super) retry: Option<(u8, &'static str)>,
    sent_at: SystemTime,
    signing_secret: Arc<str>,
}

#[derive(Clone)]
pub(super) enum Content {
    /// A form with plain fields, for a slash command.
    Form(Vec<(String, String)>),
    /// JSON, for an event.
    Json(Value),
    /// JSON in the form field `payload`, for an interaction.
    Payload(Value),
    Raw(HeaderValue, Bytes),
}

impl Delivery {
    pub(super) fn new(content: Content, sent_at: SystemTime, signing_secret: Arc<str>) -> Self {
        Self {
            content,
            retry: None,
            sent_at,
            signing_secret,
        }
    }

    /// Returns the body that is sent.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let form = |fields: &[(&str, &str)]| {
            let mut form = form_urlencoded::Serializer::new(String::new());
            Bytes::from(form.extend_pairs(fields).finish())
        };
        match &self.content {
            Content::Form(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(k, v)| (k.as_str(), v.as_str()))
                    .collect();
                form(&fields)
            }
            Content::Json(body) => Bytes::from(body.to_string()),
            Content::Payload(payload) => form(&[("payload", &payload.to_string())]),
            Content::Raw(_, body) => body.clone(),
        }
    }

    /// Changes the JSON of an event or of an interactive payload.
    ///
    /// # Panics
    ///
    /// Panics if the delivery has no JSON.
    #[must_use]
    pub fn edit(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        match &mut self.content {
            Content::Json(json) | Content::Payload(json) => edit(json),
            Content::Form(_) | Content::Raw(..) => panic!(
                "this delivery has no JSON: `edit` requires an event or an interactive payload"
            ),
        }
        self
    }

    /// Returns the JSON of an event or of an interactive payload.
    #[must_use]
    pub fn json(&self) -> Option<&Value> {
        match &self.content {
            Content::Json(json) | Content::Payload(json) => Some(json),
            Content::Form(_) | Content::Raw(..) => None,
        }
    }

    /// Returns the HTTP request, signed with the app's signing secret (`v0`).
    ///
    /// # Panics
    ///
    /// Panics if the URL is not one for HTTP, such as `data:`.
    #[must_use]
    pub fn request(&self, url: &Url) -> Request<Bytes> {
        let body = self.body();
        let timestamp = to_epoch(self.sent_at).to_string();
        let mut base = format!("v0:{timestamp}:").into_bytes();
        base.extend_from_slice(&body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.signing_secret.as_bytes());
        let hex: String = hmac::sign(&key, &base)
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let content_type = match &self.content {
            Content::Form(_) | Content::Payload(_) => {
                HeaderValue::from_static("application/x-www-form-urlencoded")
            }
            Content::Json(_) => HeaderValue::from_static("application/json"),
            Content::Raw(content_type, _) => content_type.clone(),
        };
        let mut request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, content_type)
            .header(
                header::USER_AGENT,
                "Slackbot 1.0 (+https://api.slack.com/robots)",
            )
            .header("x-slack-request-timestamp", timestamp)
            .header("x-slack-signature", format!("v0={hex}"));
        if let Some((number, reason)) = self.retry {
            request = request.header("x-slack-retry-num", number.to_string());
            request = request.header("x-slack-retry-reason", reason);
        }
        request.body(body).expect("the URL is one for HTTP")
    }

    /// Marks the delivery as Slack's repetition with this number and reason.
    ///
    /// Slack repeats an event up to three times, each time with a new timestamp and signature. The
    /// reason is one of Slack's, such as `http_timeout`.
    #[must_use]
    pub fn retry(mut self, number: u8, reason: &'static str) -> Self {
        self.retry = Some((number, reason));
        self
    }

    /// Sets the timestamp that is signed.
    #[must_use]
    pub fn sent_at(self, sent_at: SystemTime) -> Self {
        Self { sent_at, ..self }
    }

    /// Replaces the body and the content type.
    ///
    /// # Panics
    ///
    /// Panics if the content type is not a valid header value.
    #[must_use]
    pub fn with_body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let content_type = HeaderValue::from_str(content_type);
        let content_type = content_type.expect("a content type is visible ASCII");
        Self {
            content: Content::Raw(content_type, body.into()),
            ..self
        }
    }

    /// Sets a field of a slash command, or adds it.
    ///
    /// # Panics
    ///
    /// Panics if the delivery is not a form with plain fields.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: &str) -> Self {
        let Content::Form(fields) = &mut self.content else {
            panic!("this delivery has no form fields: `with_field` requires a slash command");
        };
        match fields.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => fields.push((name.to_owned(), value.to_owned())),
        }
        self
    }
}

impl fmt::Debug for Delivery {
    /// Omits the body, which can hold secrets such as a `response_url`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Delivery");
        debug
            .field("sent_at", &self.sent_at)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Sends a request once to the app under test.
///
/// Sends to this machine only, so that a test never sends a signed request to another server.
pub(super) async fn send(request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    let url = Url::parse(&request.uri().to_string());
    if !url.is_ok_and(|url| url.scheme() == "http" && is_loopback(&url)) {
        let why = "the URL is not allowed: a delivery is sent only to http on a loopback address";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let exchange = async {
        let response = client.request(request.map(Full::new)).await;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    timeout(PATIENCE, exchange).await?
}

/// The timeout for the app's response. Slack's timeout is 3 s. This one is longer, so that a busy
/// machine does not fail a test.
const PATIENCE: Duration = Duration::from_secs(30);

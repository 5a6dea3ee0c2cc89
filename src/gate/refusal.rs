//! Why a request is refused, and the response that your app, or else this crate, makes for it.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use url::Url;

use super::reply::Reply;
use crate::authorize::AuthorizeError;
use crate::request::{Kind, VerifiedRequest};
use crate::rotation;

/// Makes the responses to requests that your app does not receive. Implement it to show your own
/// texts, in the person's language.
///
/// ```
/// use slack_installs::{Refusal, RefusalReason, Refusals, Reply};
///
/// /// Speaks German, and leaves everything else to the crate.
/// #[derive(Debug)]
/// struct German;
///
/// impl Refusals for German {
///     fn respond(&self, refusal: &Refusal<'_>) -> Reply {
///         match (refusal.reason, &refusal.install_url) {
///             (RefusalReason::NotConnected, Some(url)) => {
///                 refusal.reply_with(&format!("Bitte verbinden Sie Ihr Konto: {url}"))
///             }
///             _ => refusal.reply(),
///         }
///     }
/// }
/// ```
///
/// # Contract
///
/// 1. `respond` is called for each verified request that your app does not receive because it
///    cannot be served, and for each handler that does not run because its token does not exist.
/// 2. The response decides whether Slack repeats an event: it does if the status is 500 or higher.
///    So keep the status of [`Refusal::reply`] if the reason is
///    [`TemporarilyUnavailable`](RefusalReason::TemporarilyUnavailable).
///
/// # Consistency
///
/// None is required.
///
/// # Cancel safety
///
/// The method does not wait. Slack waits 3 s for the response, so look nothing up. To do more,
/// start a task with the ids of the request, or with the `response_url` of its payload.
///
/// # Errors
///
/// None. If it panics, the crate's own response is sent.
pub trait Refusals: fmt::Debug + Send + Sync + 'static {
    /// Returns the response to this request.
    fn respond(&self, refusal: &Refusal<'_>) -> Reply;
}

impl<R: Refusals + ?Sized> Refusals for Arc<R> {
    fn respond(&self, refusal: &Refusal<'_>) -> Reply {
        (**self).respond(refusal)
    }
}

/// A request that your app does not receive, or for which a handler does not run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// Why it is refused.
    pub reason: RefusalReason,
    /// The verified request.
    pub request: &'a VerifiedRequest,
    /// The error of the authorization; `None` if the request has tokens, but not the one that its
    /// handler needs, and if it took too long.
    pub error: Option<&'a AuthorizeError>,
    /// The link with which the person can install the app, or connect their account, in their
    /// workspace: the app's install path with `?team=`. `None` if the request names no tenant, or
    /// for a layer without `SlackLayer::with_install_url`.
    pub install_url: Option<Url>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The app's own configuration is wrong, such as its client secret.
    Misconfigured,
    /// The app is installed in the person's workspace without a bot, and the handler needs one.
    NoBot,
    /// The request does not name a tenant with certainty.
    NoTenant,
    /// The app is installed in the person's workspace, but this person has not connected their own
    /// account, and no other token serves the request.
    NotConnected,
    /// The organisation has not granted the app to this workspace.
    NotGranted,
    /// The app is not installed for the tenant.
    NotInstalled,
    /// An operator put the tenant on hold.
    OnHold,
    /// The tokens have expired, or were revoked, so the app must be installed again.
    ReinstallNeeded,
    /// The database, the key provider or Slack did not respond. The same request may be served
    /// later.
    TemporarilyUnavailable,
}

impl RefusalReason {
    pub(crate) fn of(error: &AuthorizeError) -> Self {
        match error {
            AuthorizeError::Store(_) | AuthorizeError::Refresh(rotation::Error::Store(_)) => {
                Self::TemporarilyUnavailable
            }
            AuthorizeError::Refresh(error) if error.is_transient() => Self::TemporarilyUnavailable,
            AuthorizeError::Refresh(rotation::Error::Configuration { .. }) => Self::Misconfigured,
            AuthorizeError::OnHold | AuthorizeError::Refresh(rotation::Error::OnHold) => {
                Self::OnHold
            }
            AuthorizeError::Expired
            | AuthorizeError::Refresh(rotation::Error::ReinstallNeeded { .. }) => {
                Self::ReinstallNeeded
            }
            AuthorizeError::NotGranted => Self::NotGranted,
            AuthorizeError::NoToken => Self::NotConnected,
            AuthorizeError::NoTenant => Self::NoTenant,
            _ => Self::NotInstalled,
        }
    }

    /// Returns whether the person can change it with the install link.
    #[must_use]
    pub fn is_solved_by_installing(self) -> bool {
        matches!(
            self,
            Self::NoBot | Self::NotConnected | Self::NotInstalled | Self::ReinstallNeeded
        )
    }

    /// Returns the name of the reason, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Misconfigured => "misconfigured",
            Self::NoBot => "no_bot",
            Self::NoTenant => "no_tenant",
            Self::NotConnected => "not_connected",
            Self::NotGranted => "not_granted",
            Self::NotInstalled => "not_installed",
            Self::OnHold => "on_hold",
            Self::ReinstallNeeded => "reinstall_needed",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    /// Returns what happened, what to do with the link, and what to do without a link.
    fn texts(self) -> [&'static str; 3] {
        match self {
            Self::Misconfigured => [
                "This app does not work at the moment.",
                "",
                "Please contact the people who provide it.",
            ],
            Self::NoBot => [
                "This app is installed here without its bot.",
                "Install it again:",
                "Please install it again.",
            ],
            Self::NoTenant => [
                "This app cannot tell which workspace this belongs to.",
                "",
                "Please try it in your own workspace.",
            ],
            Self::NotConnected => [
                "This app is installed here, but you have not connected your account.",
                "Connect it:",
                "Please connect it first.",
            ],
            Self::NotGranted => [
                "Your organisation has not added this app to this workspace.",
                "",
                "Please ask an admin.",
            ],
            Self::NotInstalled => [
                "This app is not installed here.",
                "Install it:",
                "Please install it first.",
            ],
            Self::OnHold => [
                "This app is on hold here.",
                "",
                "Please contact the people who provide it.",
            ],
            Self::ReinstallNeeded => [
                "This app's access has ended.",
                "Install it again:",
                "Please install it again.",
            ],
            Self::TemporarilyUnavailable => {
                ["This app is busy.", "", "Please try again in a moment."]
            }
        }
    }
}

impl Refusal<'_> {
    /// Returns the language of the person, as Slack writes it, such as `en-US`.
    ///
    /// Slack documents it for no request: a command and an event have none. It is read from
    /// `user.locale` of an interaction's payload, for apps in whose payloads Slack has it. For all
    /// other requests, use what your app knows of the [actor](VerifiedRequest::actor), for example
    /// from `users.info` with `include_locale`.
    #[must_use]
    pub fn locale(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Payload {
            user: User,
        }
        #[derive(Deserialize)]
        struct User {
            locale: String,
        }
        let payload: Payload = self.request.payload().ok()?;
        let locale = payload.user.locale;
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_locale = (1..=MAX_LOCALE).contains(&locale.len()) && locale.bytes().all(is_tag);
        is_locale.then_some(locale)
    }

    /// Returns the crate's text for the reason: one line in English, with the link if the person
    /// can use it.
    #[must_use]
    pub fn text(&self) -> String {
        let [what, with_link, without_link] = self.reason.texts();
        match self.link() {
            Some(link) => format!("{what} {with_link} {link}"),
            None => format!("{what} {without_link}"),
        }
    }

    /// Returns the crate's response.
    ///
    /// * A slash command gets [`text`](Self::text), which only the person sees.
    /// * If the person can install the app or connect their account, a submitted modal gets another
    ///   modal on top with that text, and keeps its input. A legacy dialog or message gets the text
    ///   too.
    /// * Slack shows nothing of the response to any other interaction. The status is then 403, so
    ///   that Slack shows its own error.
    /// * An event gets an empty 200, because a repetition would change nothing.
    /// * If the request may be served later, or after your app's configuration is fixed, all but
    ///   commands get 503.
    #[must_use]
    pub fn reply(&self) -> Reply {
        if matches!(self.request.kind(), Kind::SlashCommand) || self.link().is_some() {
            self.reply_with(&self.text())
        } else {
            self.unread()
        }
    }

    /// Returns the response that shows this text to the person. If Slack shows no text for this
    /// kind of request, returns the crate's response. The text can have Slack's mrkdwn.
    #[must_use]
    pub fn reply_with(&self, text: &str) -> Reply {
        let shown = match self.request.kind() {
            Kind::SlashCommand => Some(Reply::text(text)),
            Kind::ViewSubmission => Some(Reply::modal_on_top(self.request, text)),
            Kind::DialogSubmission => Reply::dialog_error(self.request, text),
            Kind::InteractiveMessage => Some(Reply::message_to_the_person(text)),
            _ => None,
        };
        shown.unwrap_or_else(|| self.unread())
    }

    /// Returns the response if nobody reads its text.
    fn unread(&self) -> Reply {
        match (self.request.kind(), self.reason) {
            (_, RefusalReason::TemporarilyUnavailable | RefusalReason::Misconfigured) => {
                Reply::later()
            }
            (Kind::AppRateLimited | Kind::Event { .. } | Kind::FunctionExecuted, _) => {
                // A repetition would change nothing.
                Reply::empty()
            }
            // With this status, Slack shows the person an error. An empty 200 would close a modal.
            _ => Reply::refused(),
        }
    }

    /// Returns the link, if it helps the person.
    fn link(&self) -> Option<&Url> {
        let link = self.install_url.as_ref();
        link.filter(|_| self.reason.is_solved_by_installing())
    }
}

/// The length of the longest language tag that RFC 5646 needs, in bytes.
const MAX_LOCALE: usize = 35;

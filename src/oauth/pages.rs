//! What the person sees at the end of the flow.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use url::Url;

use super::{Error, Installed};
use crate::slack::ErrorClass;

/// Makes the pages that end a flow. Replace it to show the host's own.
///
/// # Contract
///
/// 1. Whatever a page shows of names and reasons is escaped by whoever makes it: a workspace's
///    name is text that a stranger chose.
///
/// # Consistency
///
/// None is needed.
///
/// # Cancel safety
///
/// Nothing waits.
///
/// # Errors
///
/// None.
pub trait Pages: fmt::Debug + Send + Sync + 'static {
    /// Returns the page after an installation was stored. [`DefaultPages`]' by default.
    fn installed(&self, installed: &Installed) -> Page {
        DefaultPages.installed(installed)
    }

    /// Returns the page after a flow failed. [`DefaultPages`]' by default. It is never called with
    /// [`Error::NoState`]: the person is sent through the app's own flow.
    fn failed(&self, error: &Error) -> Page {
        DefaultPages.failed(error)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<P: Pages + ?Sized> Pages for Arc<P> {
    fn installed(&self, installed: &Installed) -> Page {
        (**self).installed(installed)
    }

    fn failed(&self, error: &Error) -> Page {
        (**self).failed(error)
    }
}

/// A page, or another place to go.
#[derive(Clone, Debug)]
pub enum Page {
    /// HTML, sent with a policy that lets it load and run nothing but inline styles.
    Html(String),
    /// A redirect, to a URL of the host's making.
    Redirect(Url),
}

/// Plain pages in English.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultPages;

impl Pages for DefaultPages {
    fn installed(&self, installed: &Installed) -> Page {
        let home = &installed.installation.home;
        let name = match home.team() {
            Some(team) => team.name.as_deref().unwrap_or_else(|| team.id.as_str()),
            None => home.enterprise().map_or("", |org| {
                org.name.as_deref().unwrap_or_else(|| org.id.as_str())
            }),
        };
        page(
            "Installed",
            &format!("The app is installed in {name}. You can close this page."),
        )
    }

    fn failed(&self, error: &Error) -> Page {
        let (title, text) = match error {
            Error::Denied(code) if code.as_str() == "access_denied" => (
                "Not installed",
                "You chose not to install the app. Nothing was changed.".to_owned(),
            ),
            Error::Denied(code) => ("Not installed", format!("Slack did not allow it: {code}.")),
            Error::Refused { reason } => ("Not installed", reason.clone()),
            Error::OtherBrowser => (
                "Please start again",
                "This installation was begun in another browser, or this browser does not keep \
                 cookies. Please start again, and stay in this browser."
                    .to_owned(),
            ),
            Error::UsedState => (
                "Already used",
                "This link was used before. If you have just installed the app, all is well; \
                 otherwise please start again."
                    .to_owned(),
            ),
            Error::StateExpired => (
                "Please start again",
                "This installation took too long. Please start again.".to_owned(),
            ),
            Error::InvalidState | Error::NoCode | Error::NoState => (
                "Please start again",
                "This link is not complete, or not from this app. Please start again.".to_owned(),
            ),
            Error::OtherTeam => (
                "Not installed",
                "The app was to be installed in another workspace. Please start again, and \
                 choose that workspace at Slack."
                    .to_owned(),
            ),
            Error::NothingGranted => (
                "Not installed",
                "Slack granted nothing that the app could use. Please start again.".to_owned(),
            ),
            // A code that was used before, or too late.
            Error::Exchange(error) if error.class() == ErrorClass::UserFlow => (
                "Please start again",
                "Slack did not take this installation any more. Please start again.".to_owned(),
            ),
            Error::Exchange(_)
            | Error::Hook
            | Error::Interrupted
            | Error::OtherApp
            | Error::Store(_) => (
                "Something went wrong",
                "The app could not be installed. Nothing is wrong on your side; please try again \
                 in a few minutes."
                    .to_owned(),
            ),
        };
        page(title, &text)
    }
}

impl Error {
    /// The HTTP status for the page that tells of it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            // The person decided; nothing failed.
            Self::Denied(_) => StatusCode::OK,
            Self::Refused { .. } => StatusCode::FORBIDDEN,
            Self::Exchange(_) => StatusCode::BAD_GATEWAY,
            Self::Hook => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Interrupted | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

fn page(title: &str, text: &str) -> Page {
    let (title, text) = (escape(title), escape(text));
    Page::Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1><p>{text}</p></main></body></html>\n"
    ))
}

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;margin:0;display:grid;\
min-height:100vh;place-items:center}main{max-width:34rem;padding:2rem}";

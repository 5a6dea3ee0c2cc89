//! The pages that a person sees at the end of the flow.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use url::Url;

use super::config::{INSTALL_PATH, Requested};
use super::error::Error;
use super::failed::FailedFlow;
use super::hooks::Installed;
use super::scope_words;
use crate::html::escape;
use crate::installation::Home;
use crate::slack::ErrorClass;

/// Creates the pages before and at the end of a flow. Implement it to show your own pages.
///
/// # Contract
///
/// 1. An implementation escapes the names and reasons that it shows. A workspace's name is text
///    from a stranger.
///
/// # Consistency
///
/// None is required.
///
/// # Cancel safety
///
/// The methods do not wait.
///
/// # Errors
///
/// None.
pub trait Pages: fmt::Debug + Send + Sync + 'static {
    /// Returns the page at the install path, which links to the start of the flow. By default there
    /// is none: the install path redirects to Slack, as Slack's Marketplace requires from a direct
    /// install URL.
    fn install(&self, page: &InstallPage<'_>) -> Option<PageResponse> {
        let _ = page;
        None
    }

    /// Returns the page after an installation was stored. The default is the page of
    /// [`DefaultPages`].
    fn installed(&self, installed: &Installed) -> PageResponse {
        DefaultPages::new().installed(installed)
    }

    /// Returns the page after a flow failed. It is never called with [`Error::NoState`]: that
    /// person is sent through the app's own flow.
    ///
    /// The default is the page of [`DefaultPages`], with a link to `/slack/install`. If you changed
    /// that path, return the page of a [`DefaultPages`] with that
    /// [install path](DefaultPages::with_install_path).
    ///
    /// The person in front of the page is not always the one who started the flow: not for
    /// [`Error::OtherBrowser`] and [`Error::OtherSession`]. The [flow](FailedFlow::flow) has then
    /// nothing of the person who did.
    fn failed(&self, failed: &FailedFlow) -> PageResponse {
        DefaultPages::new().failed(failed)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<P: Pages + ?Sized> Pages for Arc<P> {
    fn install(&self, page: &InstallPage<'_>) -> Option<PageResponse> {
        (**self).install(page)
    }

    fn installed(&self, installed: &Installed) -> PageResponse {
        (**self).installed(installed)
    }

    fn failed(&self, failed: &FailedFlow) -> PageResponse {
        (**self).failed(failed)
    }
}

/// What a page at the install path can show.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct InstallPage<'a> {
    /// The scopes that the flow will request, unless
    /// [`InstallHooks::starting`](super::InstallHooks::starting) changes them.
    pub requested: &'a Requested,
    /// The URL that starts the flow, for the *Add to Slack* link. It is relative to the host.
    pub start: &'a str,
}

/// A page, or a redirect.
#[derive(Clone, Debug)]
pub enum PageResponse {
    /// HTML. Its security policy lets it load and run nothing except inline styles.
    Html(String),
    /// A redirect to a URL of your own.
    Redirect(Url),
}

/// Plain pages in English, without scripts, for phones and desktops, light and dark.
///
/// The success page links to the app in Slack. For an organisation, it links to the page where an
/// admin adds workspaces. A failure page says what to do next, and links to the install path.
///
/// ```
/// # fn example(
/// #     provider: slack_installs::InstallProvider,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::oauth::DefaultPages;
///
/// let pages = DefaultPages::new()
///     .with_app_name("Standup Bot")
///     .with_site("https://standup.example.com/".parse()?);
/// let provider = provider.with_pages(pages);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DefaultPages {
    app_name: Option<String>,
    has_install_page: bool,
    install_path: String,
    site: Option<Url>,
}

impl DefaultPages {
    /// Creates pages that call the app *The app*, and link to `/slack/install`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            app_name: None,
            has_install_page: false,
            install_path: INSTALL_PATH.into(),
            site: None,
        }
    }

    /// Sets the app's name.
    #[must_use]
    pub fn with_app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = Some(name.into());
        self
    }

    /// Shows a page with the requested scopes, and an *Add to Slack* button, before the redirect to
    /// Slack. Leave it out for an app in Slack's Marketplace.
    #[must_use]
    pub fn with_install_page(self) -> Self {
        Self {
            has_install_page: true,
            ..self
        }
    }

    /// Sets the app's own site. Each page then links to it.
    #[must_use]
    pub fn with_site(mut self, site: Url) -> Self {
        self.site = Some(site);
        self
    }

    /// Sets the path where a person starts again. Pass
    /// [`InstallConfig::install_path`](super::InstallConfig::install_path) if you changed it.
    #[must_use]
    pub fn with_install_path(mut self, path: impl Into<String>) -> Self {
        self.install_path = path.into();
        self
    }

    fn site_link(&self) -> String {
        let Some(site) = &self.site else {
            return String::new();
        };
        let name = self.app_name.as_deref().unwrap_or("the app's site");
        format!("<p>{}</p>", link(site.as_str(), &format!("Back to {name}")))
    }
}

impl Default for DefaultPages {
    fn default() -> Self {
        Self::new()
    }
}

impl Pages for DefaultPages {
    fn install(&self, shown: &InstallPage<'_>) -> Option<PageResponse> {
        if !self.has_install_page {
            return None;
        }
        let name = self.app_name.as_deref().unwrap_or("the app");
        let scopes = scope_words::list(shown.requested);
        let add = scopes + &button(shown.start, "Add to Slack");
        let texts = ["Slack will ask you to confirm."];
        Some(page(
            &format!("Install {name}"),
            &texts,
            &add,
            &self.site_link(),
        ))
    }

    fn installed(&self, installed: &Installed) -> PageResponse {
        let app = self.app_name.as_deref().unwrap_or("The app");
        let app_id = installed.installation.app_id.as_str();
        let (place, next, href, text) = match &installed.installation.home {
            Home::Workspace { team, .. } => (
                team.name.as_deref().unwrap_or_else(|| team.id.as_str()),
                "You can use it right away.",
                format!(
                    "https://slack.com/app_redirect?app={app_id}&team={}",
                    team.id
                ),
                "Open in Slack",
            ),
            // No workspace has the app yet.
            Home::Org(org) => (
                org.name.as_deref().unwrap_or_else(|| org.id.as_str()),
                "Next, choose the workspaces that may use it.",
                format!(
                    "https://app.slack.com/manage/{}/integrations/profile/{app_id}/workspaces/add",
                    org.id
                ),
                "Add workspaces",
            ),
        };
        let what = format!("{app} is installed in {place}.");
        let site = self.site_link();
        page("Installed", &[&what, next], &button(&href, text), &site)
    }

    fn failed(&self, failed: &FailedFlow) -> PageResponse {
        let text = failure_text(&failed.error);
        let again = button(&self.install_path, text.button);
        let texts = [&*text.what, text.next];
        page(text.title, &texts, &again, &self.site_link())
    }
}

/// The texts of a failure page.
struct FailureText {
    title: &'static str,
    what: String,
    next: &'static str,
    button: &'static str,
}

fn failure_text(error: &Error) -> FailureText {
    let restart = |title, what: &str, next| FailureText {
        title,
        what: what.to_owned(),
        next,
        button: "Start again",
    };
    match error {
        Error::Denied(code) if code.is_access_denied() => restart(
            "Not installed",
            "You chose not to install the app. Nothing was changed.",
            "If you change your mind, start again.",
        ),
        Error::Denied(code) => restart(
            "Not installed",
            &format!("Slack did not allow it: {code}."),
            "Ask an admin of your workspace whether you may install apps, then start again.",
        ),
        Error::Refused { reason } => restart(
            "Not installed",
            reason,
            "When this has changed, start again.",
        ),
        Error::OtherBrowser => restart(
            "Please start again",
            "This installation was started in another browser, or this browser does not \
             accept cookies.",
            "Allow cookies for this site, start again, and stay in this browser.",
        ),
        Error::OtherSession => restart(
            "Please start again",
            "This installation was started by a person who is signed in with another account.",
            "Sign in with the account that the app should be connected to, and start again.",
        ),
        Error::UsedState => restart(
            "Already used",
            "This link was used before.",
            "If you have just installed the app, it is ready. Otherwise, start again.",
        ),
        Error::StateExpired => restart(
            "Please start again",
            "This installation took too long.",
            "Start again, and finish it within ten minutes.",
        ),
        Error::InvalidState | Error::NoCode | Error::NoState => restart(
            "Please start again",
            "This link is not complete, or not from this app.",
            "Start again from here.",
        ),
        // A fault of your app. Its text is in the log, and not for the person.
        Error::Options(_) => restart(
            "Something went wrong",
            "The installation could not be started. The app did not pass on what it needs.",
            "Start again from here. If it fails again, contact the people who provide the app.",
        ),
        Error::OtherTeam => restart(
            "Not installed",
            "The app should have been installed in another workspace.",
            "Start again, and choose that workspace at Slack.",
        ),
        Error::NothingGranted => restart(
            "Not installed",
            "Slack granted nothing that the app can use.",
            "Start again, and allow what the app requests.",
        ),
        // The code was already used, or has expired.
        Error::Exchange(error) if error.class() == ErrorClass::UserFlow => restart(
            "Please start again",
            "Slack no longer accepts this installation.",
            "Start again from here.",
        ),
        Error::Exchange(_)
        | Error::Hook
        | Error::Interrupted
        | Error::OtherApp
        | Error::Store(_) => FailureText {
            title: "Something went wrong",
            what: "The app could not be installed. Nothing is wrong on your side.".to_owned(),
            next: "Try again in a few minutes. If it fails again, contact the people who \
                   provide the app.",
            button: "Try again",
        },
    }
}

impl Error {
    /// Returns the HTTP status of this error's page.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            // The person decided, so nothing failed.
            Self::Denied(_) => StatusCode::OK,
            Self::Refused { .. } => StatusCode::FORBIDDEN,
            Self::Exchange(_) => StatusCode::BAD_GATEWAY,
            Self::Hook => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Interrupted | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

fn link(href: &str, text: &str) -> String {
    format!("<a href=\"{}\">{}</a>", escape(href), escape(text))
}

fn button(href: &str, text: &str) -> String {
    let (href, text) = (escape(href), escape(text));
    format!("<p><a class=\"button\" href=\"{href}\">{text}</a></p>")
}

/// Escapes the title and the texts. The button and the link are already HTML.
fn page(title: &str, texts: &[&str], button: &str, link: &str) -> PageResponse {
    let title = escape(title);
    let texts: String = texts
        .iter()
        .map(|text| format!("<p>{}</p>", escape(text)))
        .collect();
    PageResponse::Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{texts}{button}{link}</main></body></html>\n"
    ))
}

const STYLE: &str = ":root{color-scheme:light dark;--page:#f4f4f6;--card:#fff;--text:#1d1c1d;\
--link:#0b5cad;--button:#4a154b;--edge:#ddd}\
@media(prefers-color-scheme:dark){:root{--page:#131416;--card:#1e2023;--text:#e8e8e8;\
--link:#7cb7f5;--button:#7c3a7e;--edge:#3a3c40}}\
*{box-sizing:border-box}\
body{font:1.1rem/1.5 system-ui,sans-serif;margin:0;padding:1rem;display:grid;min-height:100vh;\
place-items:center;background:var(--page);color:var(--text)}\
main{width:100%;max-width:34rem;padding:2rem;background:var(--card);border:1px solid var(--edge);\
border-radius:12px;overflow-wrap:anywhere}\
h1{font-size:1.6rem;line-height:1.2;margin:0 0 1rem}p{margin:.75rem 0}a{color:var(--link)}\
.button{display:inline-block;margin:.5rem 0;padding:.7rem 1.4rem;border-radius:8px;\
background:var(--button);color:#fff;font-weight:600;text-decoration:none}\
@media(max-width:30rem){main{padding:1.5rem}.button{display:block;text-align:center}}";

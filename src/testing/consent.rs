//! The app's request on the authorize page: scopes, redirect URL and state.

use url::{Url, form_urlencoded};

use crate::installation::Scopes;
use crate::slack::is_loopback;
use crate::tenant::ClientId;

use super::app::App;
use super::scopes::{self, TokenKind};
use super::world::ConsentError;

/// The app's request on the authorize page.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) bot_scopes: Scopes,
    pub(super) user_scopes: Scopes,
    redirect_to: Url,
    /// The app's text, unchanged. The code exchange must repeat it exactly.
    redirect_uri: Option<String>,
    state: Option<String>,
    pub(super) team: Option<String>,
}

impl Ask {
    /// Parses the query of an authorize URL.
    pub(super) fn read(query: &[(String, String)], app: &App) -> Result<Self, ConsentError> {
        let value = |name: &str| field(query, name);
        if ClientId::new(value("client_id").unwrap_or_default()).as_ref() != Ok(&app.client_id) {
            return Err(ConsentError::Refused("invalid_client_id"));
        }
        let bot_scopes = Scopes::from(value("scope").unwrap_or_default());
        let user_scopes = Scopes::from(value("user_scope").unwrap_or_default());
        let nothing = bot_scopes.is_empty() && user_scopes.is_empty();
        let are_known = scopes::are_known(&bot_scopes, TokenKind::Bot, &app.added_scopes)
            && scopes::are_known(&user_scopes, TokenKind::User, &app.added_scopes);
        if nothing || !are_known {
            return Err(ConsentError::Refused("invalid_scope"));
        }
        let redirect_uri = value("redirect_uri");
        let redirect_to = match redirect_uri {
            Some(uri) => Url::parse(uri)
                .ok()
                .filter(|uri| is_allowed(uri, &app.redirect_urls)),
            None => app.redirect_urls.first().cloned(),
        };
        Ok(Self {
            bot_scopes,
            user_scopes,
            redirect_to: redirect_to.ok_or(ConsentError::Refused("bad_redirect_uri"))?,
            redirect_uri: redirect_uri.map(str::to_owned),
            state: value("state").map(str::to_owned),
            team: value("team").map(str::to_owned),
        })
    }

    /// Returns the callback URL with these parameters, and with the app's state if there is one.
    pub(super) fn callback(&self, pairs: &[(&str, &str)]) -> Url {
        let mut url = self.redirect_to.clone();
        let state = self.state.as_deref().map(|state| ("state", state));
        url.query_pairs_mut()
            .extend_pairs(pairs)
            .extend_pairs(state);
        url
    }

    /// Returns the callback URL for a person who clicks *Cancel*.
    pub(super) fn cancelled(&self) -> Url {
        self.callback(&[("error", "access_denied")])
    }

    /// Returns whether this is the `redirect_uri` of the authorize URL.
    ///
    /// If the authorize URL had none, the exchange may omit it too.
    pub(super) fn is_repeated_by(&self, redirect_uri: Option<&str>) -> bool {
        match (&self.redirect_uri, redirect_uri) {
            (asked, Some(repeated)) => {
                asked.as_deref().unwrap_or(self.redirect_to.as_str()) == repeated
            }
            (asked, None) => asked.is_none(),
        }
    }
}

/// Returns whether a URL equals a configured redirect URL, or is a sub-path of one.
fn is_allowed(uri: &Url, configured: &[Url]) -> bool {
    let secure = uri.scheme() == "https" || (uri.scheme() == "http" && is_loopback(uri));
    let fits = |url: &Url| {
        let below = format!("{}/", url.path().trim_end_matches('/'));
        url.origin() == uri.origin() && (url.path() == uri.path() || uri.path().starts_with(&below))
    };
    secure && uri.fragment().is_none() && (configured.is_empty() || configured.iter().any(fits))
}

pub(super) fn pairs(form: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(form).into_owned().collect()
}

/// Returns the first field of that name.
pub(super) fn field<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let pair = pairs.iter().find(|(key, _)| key == name);
    pair.map(|(_, value)| value.as_str())
}

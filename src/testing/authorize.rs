//! The authorize page: what an app asks for, and what a person answers.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use thiserror::Error;
use url::{Url, form_urlencoded};

use crate::installation::Scopes;
use crate::slack::is_loopback;
use crate::tenant::ClientId;

use super::core::{App, Core};
use super::page;
use super::state::State;
use super::world::Who;

/// Why nobody got to say yes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConsentError {
    /// This person does not exist, is deactivated, is not in that workspace, or is no admin of
    /// that organisation.
    #[error("this person cannot install the app there")]
    NotAllowed,
    /// Slack shows this error code on its own page, and nothing reaches the redirect URL.
    #[error("the authorize page refuses the request: {0}")]
    Refused(&'static str),
}

/// What an app asks for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) bot_scopes: Scopes,
    pub(super) user_scopes: Scopes,
    redirect_to: Url,
    /// As the app wrote it, which is how it must repeat it.
    redirect_uri: Option<String>,
    state: Option<String>,
    pub(super) team: Option<String>,
}

impl Ask {
    /// Reads an authorize URL's query.
    pub(super) fn read(query: &[(String, String)], app: &App) -> Result<Self, ConsentError> {
        let value = |name: &str| field(query, name);
        if ClientId::new(value("client_id").unwrap_or_default()).as_ref() != Ok(&app.client_id) {
            return Err(ConsentError::Refused("invalid_client_id"));
        }
        let bot_scopes = Scopes::from(value("scope").unwrap_or_default());
        let user_scopes = Scopes::from(value("user_scope").unwrap_or_default());
        let nothing = bot_scopes.is_empty() && user_scopes.is_empty();
        if nothing || !bot_scopes.iter().chain(user_scopes.iter()).all(is_scope) {
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

    /// Where the browser goes next, with the state as it came, if it came.
    pub(super) fn callback(&self, pairs: &[(&str, &str)]) -> Url {
        let mut url = self.redirect_to.clone();
        let state = self.state.as_deref().map(|state| ("state", state));
        url.query_pairs_mut()
            .extend_pairs(pairs)
            .extend_pairs(state);
        url
    }

    /// A person says no: the callback URL.
    pub(super) fn cancelled(&self) -> Url {
        self.callback(&[("error", "access_denied")])
    }

    /// Whether this is the `redirect_uri` that the authorize URL had. An exchange may leave out
    /// what the authorize URL left out.
    pub(super) fn is_repeated_by(&self, redirect_uri: Option<&str>) -> bool {
        match (&self.redirect_uri, redirect_uri) {
            (asked, Some(repeated)) => {
                asked.as_deref().unwrap_or(self.redirect_to.as_str()) == repeated
            }
            (asked, None) => asked.is_none(),
        }
    }
}

impl Core {
    /// `GET`: shows the page.
    pub(super) fn authorize_page(&self, query: &str) -> Response<Bytes> {
        let query = pairs(query.as_bytes());
        let ask = match Ask::read(&query, &self.app) {
            Ok(ask) => ask,
            Err(error) => return refusal(error),
        };
        let state = self.state();
        let page = page::consent(&self.app, &ask, &query, &choices(&state, &ask));
        html(StatusCode::OK, page)
    }

    /// `POST`: takes the button that was pressed.
    pub(super) fn authorize_answer(&self, form: &[u8]) -> Response<Bytes> {
        let form = pairs(form);
        let callback = Ask::read(&form, &self.app).and_then(|ask| {
            let who = field(&form, "who").and_then(chosen);
            match (field(&form, "answer"), who) {
                (Some("allow"), Some(who)) => self.state().allow(&ask, &who, self.clock.now()),
                (Some("allow"), None) => Err(ConsentError::NotAllowed),
                _ => Ok(ask.cancelled()),
            }
        });
        match callback {
            Ok(url) => redirect(&url),
            Err(error) => refusal(error),
        }
    }
}

/// One line of the choice that the page offers.
pub(super) struct Choice {
    pub(super) label: String,
    pub(super) preselected: bool,
    /// Comes back as the form's `who`; [`chosen`] reads it.
    pub(super) value: String,
}

fn choices(state: &State, ask: &Ask) -> Vec<Choice> {
    let choices = state.world.choices().map(|(person, key)| {
        let place = state
            .world
            .named(&key)
            .map_or_else(|| key.id(), |place| &place.name);
        let whole = if key.is_org() { "all of " } else { "" };
        Choice {
            label: format!("{} in {whole}{place} ({})", person.name, key.id()),
            preselected: ask.team.as_deref() == Some(key.id()),
            value: format!("{}@{}", person.id, key.id()),
        }
    });
    choices.collect()
}

fn chosen(value: &str) -> Option<Who> {
    let (user, place) = value.split_once('@')?;
    let user = user.to_owned().try_into().ok()?;
    Some(Who {
        user,
        place: Some(place.to_owned()),
    })
}

/// Equal to a configured redirect URL, or a sub-path of one.
fn is_allowed(uri: &Url, configured: &[Url]) -> bool {
    let secure = uri.scheme() == "https" || (uri.scheme() == "http" && is_loopback(uri));
    let fits = |url: &Url| {
        let below = format!("{}/", url.path().trim_end_matches('/'));
        url.origin() == uri.origin() && (url.path() == uri.path() || uri.path().starts_with(&below))
    };
    secure && uri.fragment().is_none() && (configured.is_empty() || configured.iter().any(fits))
}

fn is_scope(scope: &str) -> bool {
    scope
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":._-".contains(&b))
}

pub(super) fn pairs(form: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(form).into_owned().collect()
}

/// The first field of that name.
pub(super) fn field<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let pair = pairs.iter().find(|(key, _)| key == name);
    pair.map(|(_, value)| value.as_str())
}

fn refusal(error: ConsentError) -> Response<Bytes> {
    let code = match error {
        ConsentError::NotAllowed => "not_allowed",
        ConsentError::Refused(code) => code,
    };
    html(StatusCode::BAD_REQUEST, page::refusal(code))
}

fn redirect(url: &Url) -> Response<Bytes> {
    let location = header::HeaderValue::from_str(url.as_str());
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::FOUND;
    let location = location.expect("a serialized URL is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

fn html(status: StatusCode, page: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // No `form-action`: browsers apply it to the redirect that follows the form as well.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ];
    headers.extend(fixed.map(|(name, value)| (name, header::HeaderValue::from_static(value))));
    response
}

//! Reads an app's values from the environment.

use std::ffi::OsString;

use url::Url;
use zeroize::Zeroizing;

use super::error::AppError;
use crate::oauth::RedirectUri;
use crate::seal::MasterKey;
use crate::secret::{ClientSecret, SigningSecret};
use crate::tenant::ClientId;

pub(super) const CLIENT_ID: &str = "SLACK_CLIENT_ID";
pub(super) const CLIENT_SECRET: &str = "SLACK_CLIENT_SECRET";
pub(super) const MASTER_KEY: &str = "SLACK_INSTALLS_MASTER_KEY";
pub(super) const MASTER_KEY_FILE: &str = "SLACK_INSTALLS_MASTER_KEY_FILE";
pub(super) const REDIRECT_URI: &str = "SLACK_REDIRECT_URI";
pub(super) const SIGNING_SECRET: &str = "SLACK_SIGNING_SECRET";
pub(super) const URL: &str = "SLACK_INSTALLS_URL";

/// A value that may be absent or wrong.
pub(super) type Value<T> = Option<Result<T, AppError>>;

/// The values that an app needs. A wrong value is kept as an error until the builder's `build`
/// returns it, because a method of the builder may replace the value first.
#[derive(Default)]
pub(super) struct Values {
    pub(super) client_id: Value<ClientId>,
    pub(super) client_secret: Value<ClientSecret>,
    pub(super) master_key: Value<MasterKey>,
    pub(super) redirect_uris: Vec<Result<RedirectUri, AppError>>,
    pub(super) signing_secret: Value<SigningSecret>,
    pub(super) url: Value<Zeroizing<String>>,
}

/// Reads the variables that are set and not empty.
pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Values {
    let text = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let value = value.into_string().map(Zeroizing::new);
        Some(value.map_err(|_| AppError::value(name, None, "it is not UTF-8")))
    };
    let client_secret = text(CLIENT_SECRET).map(|text| {
        ClientSecret::new(text?.trim())
            .map_err(|source| AppError::value(CLIENT_SECRET, None, source))
    });
    let signing_secret = text(SIGNING_SECRET).map(|text| {
        SigningSecret::new(text?.trim())
            .map_err(|source| AppError::value(SIGNING_SECRET, None, source))
    });
    let redirect_uri = text(REDIRECT_URI).map(|text| redirect_uri(REDIRECT_URI, &text?));
    let master_key = match text(MASTER_KEY) {
        Some(text) => Some(text.and_then(|text| {
            MasterKey::parse(&text).map_err(|source| AppError::value(MASTER_KEY, None, source))
        })),
        None => text(MASTER_KEY_FILE).map(|path| {
            MasterKey::from_file(&*path?)
                .map_err(|source| AppError::value(MASTER_KEY_FILE, None, source))
        }),
    };
    Values {
        client_id: text(CLIENT_ID).map(|text| client_id(&text?)),
        client_secret,
        master_key,
        redirect_uris: redirect_uri.into_iter().collect(),
        signing_secret,
        url: text(URL),
    }
}

/// Reads a client id, which is two numbers joined by a dot. The error shows only the first
/// characters, because a wrong value may be a secret.
fn client_id(text: &str) -> Result<ClientId, AppError> {
    let text = text.trim();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = text
        .split_once('.')
        .is_some_and(|(one, other)| is_number(one) && is_number(other));
    let refused = || {
        let why = "expected two numbers joined by a dot, from the app's page Basic Information";
        AppError::value(CLIENT_ID, Some(beginning(text)), why)
    };
    let id = ClientId::new(text).ok().filter(|_| is_id);
    id.ok_or_else(refused)
}

pub(super) fn redirect_uri(name: &'static str, text: &str) -> Result<RedirectUri, AppError> {
    let text = text.trim();
    RedirectUri::new(text).map_err(|source| {
        let shown = if may_be_secret(text) {
            beginning(text)
        } else {
            format!("{text:?}")
        };
        AppError::value(name, Some(shown), source)
    })
}

/// Reads the URL of the app's website. Accepts `http` and `https` only, because pages link to it.
pub(super) fn site(text: &str) -> Result<Url, AppError> {
    let url = Url::parse(text.trim()).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| {
        let why = "it must be a URL that begins with https:// or http://";
        AppError::value("the app's site", Some(format!("{text:?}")), why)
    })
}

/// Returns whether a text may hold a secret: it is not an `http` URL, or it has credentials, a
/// query or a fragment.
fn may_be_secret(text: &str) -> bool {
    !text.starts_with("http") || text.contains(['@', '?', '#'])
}

/// Returns the first characters of a value.
fn beginning(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).collect();
    format!("`{}…`", shown.escape_debug())
}

/// Enough characters to recognise a value, and too few to use it.
const SHOWN: usize = 4;

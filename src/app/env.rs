//! Reads an app's values from the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;
use zeroize::Zeroizing;

use super::error::AppError;
use crate::keys::{self, MasterKeys, Source};
use crate::oauth::RedirectUri;
use crate::seal::KeyProvider;
use crate::secret::{ClientSecret, SigningSecret};
use crate::slack::Environment;
use crate::tenant::ClientId;
use crate::wording::printable;

pub(super) const CLIENT_ID: &str = "SLACK_CLIENT_ID";
pub(super) const CLIENT_SECRET: &str = "SLACK_CLIENT_SECRET";
pub(super) const OLD_CLIENT_SECRET: &str = "SLACK_OLD_CLIENT_SECRET";
pub(super) const KEYS: &str = "SLACK_INSTALLS_KEYS";
pub(super) const MASTER_KEY: &str = "SLACK_INSTALLS_MASTER_KEY";
pub(super) const MASTER_KEY_FILE: &str = "SLACK_INSTALLS_MASTER_KEY_FILE";
pub(super) const REDIRECT_URI: &str = "SLACK_REDIRECT_URI";
pub(super) const SIGNING_SECRET: &str = "SLACK_SIGNING_SECRET";
pub(super) const SLACK: &str = "SLACK_URL";
pub(super) const URL: &str = "SLACK_INSTALLS_URL";

/// A value that may be absent or wrong.
pub(super) type Value<T> = Option<Result<T, AppError>>;

/// The values that an app needs. A wrong value is kept as an error until the builder's `build`
/// returns it, because a method of the builder may replace the value first.
#[derive(Default)]
pub(super) struct Values {
    pub(super) client_id: Value<ClientId>,
    pub(super) client_secret: Value<ClientSecret>,
    pub(super) environment: Value<Environment>,
    pub(super) keys: Value<Keys>,
    pub(super) old_client_secret: Value<ClientSecret>,
    pub(super) redirect_uris: Vec<Result<RedirectUri, AppError>>,
    pub(super) signing_secret: Value<SigningSecret>,
    pub(super) url: Value<Zeroizing<String>>,
}

/// The provider that wraps the data keys, or where it is. A provider is opened by the builder's
/// `build`.
pub(super) enum Keys {
    File(PathBuf),
    Provider(Arc<dyn KeyProvider>),
    Url {
        /// What has the URL: a variable, or a method of the builder.
        name: &'static str,
        url: Zeroizing<String>,
    },
}

impl Keys {
    pub(super) async fn opened(self) -> Result<Arc<dyn KeyProvider>, AppError> {
        match self {
            Self::File(path) => {
                let keys = MasterKeys::open(Source::File(path)).await;
                let keys = keys.map_err(|source| AppError::value(MASTER_KEY_FILE, None, source));
                Ok(Arc::new(keys?))
            }
            Self::Provider(provider) => Ok(provider),
            Self::Url { name, url } => {
                let provider = keys::connect(&url).await;
                provider.map_err(|source| AppError::value(name, None, source))
            }
        }
    }
}

/// Reads the variables that are set and not empty.
pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Values {
    let text = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let value = value.into_string().map(Zeroizing::new);
        Some(value.map_err(|_| AppError::value(name, None, "it is not UTF-8")))
    };
    let client_secret = |name: &'static str| {
        text(name).map(|text| {
            ClientSecret::new(text?.trim()).map_err(|source| AppError::value(name, None, source))
        })
    };
    let signing_secret = text(SIGNING_SECRET).map(|text| {
        SigningSecret::new(text?.trim())
            .map_err(|source| AppError::value(SIGNING_SECRET, None, source))
    });
    let redirect_uri = text(REDIRECT_URI).map(|text| redirect_uri(REDIRECT_URI, &text?));
    Values {
        client_id: text(CLIENT_ID).map(|text| client_id(&text?)),
        client_secret: client_secret(CLIENT_SECRET),
        environment: text(SLACK).map(|text| environment(&text?)),
        keys: key_provider(text),
        old_client_secret: client_secret(OLD_CLIENT_SECRET),
        redirect_uris: redirect_uri.into_iter().collect(),
        signing_secret,
        url: text(URL),
    }
}

/// Reads the one variable that names the key provider.
fn key_provider(
    text: impl Fn(&'static str) -> Option<Result<Zeroizing<String>, AppError>>,
) -> Value<Keys> {
    let set = [KEYS, MASTER_KEY, MASTER_KEY_FILE].map(|name| text(name).map(|text| (name, text)));
    let mut set = set.into_iter().flatten();
    let (name, text) = set.next()?;
    if let Some((other, _)) = set.next() {
        return Some(Err(AppError::both_set(name, other)));
    }
    Some(text.and_then(|text| match name {
        MASTER_KEY => {
            let keys = keys::master_keys(&text);
            let keys = keys.map_err(|source| AppError::value(MASTER_KEY, None, source))?;
            Ok(Keys::Provider(Arc::new(keys)))
        }
        MASTER_KEY_FILE => Ok(Keys::File(PathBuf::from(&*text))),
        name => Ok(Keys::Url { name, url: text }),
    }))
}

/// Reads the base URL of Slack.
fn environment(text: &str) -> Result<Environment, AppError> {
    let text = text.trim();
    Environment::at(text).map_err(|source| {
        let shown = if may_be_secret(text) {
            beginning(text)
        } else {
            format!("{text:?}")
        };
        AppError::value(SLACK, Some(shown), source)
    })
}

/// Reads a client id. The error shows only the first characters, because a wrong value may be a
/// secret.
fn client_id(text: &str) -> Result<ClientId, AppError> {
    let text = text.trim();
    ClientId::new(text).map_err(|_| {
        let why = "expected two numbers joined by a dot, from the app's page Basic Information";
        AppError::value(CLIENT_ID, Some(beginning(text)), why)
    })
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
    format!("`{}…`", printable(&shown))
}

/// Enough characters to recognise a value, and too few to use it.
const SHOWN: usize = 4;

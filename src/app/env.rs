//! The builder's values from the environment.

use std::ffi::OsString;

use url::Url;
use zeroize::Zeroizing;

use super::builder::SlackAppBuilder;
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

/// Reads what is set. A wrong value is kept as an error, which `build` returns: the builder's
/// method for the same thing may replace it.
pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> SlackAppBuilder {
    let text = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let value = value.into_string().map(Zeroizing::new);
        Some(value.map_err(|_| AppError::value(name, None, "it is not UTF-8")))
    };
    let mut builder = SlackAppBuilder::default();
    builder.client_id = text(CLIENT_ID).map(|text| client_id(&text?));
    builder.client_secret = text(CLIENT_SECRET).map(|text| {
        ClientSecret::new(text?.trim())
            .map_err(|source| AppError::value(CLIENT_SECRET, None, source))
    });
    builder.signing_secret = text(SIGNING_SECRET).map(|text| {
        SigningSecret::new(text?.trim())
            .map_err(|source| AppError::value(SIGNING_SECRET, None, source))
    });
    builder.redirect_uris = text(REDIRECT_URI)
        .map(|text| redirect_uri(REDIRECT_URI, &text?))
        .into_iter()
        .collect();
    builder.url = text(URL);
    builder.master_key = match (text(MASTER_KEY), text(MASTER_KEY_FILE)) {
        (Some(text), _) => Some(text.and_then(|text| {
            MasterKey::parse(&text).map_err(|source| AppError::value(MASTER_KEY, None, source))
        })),
        (None, Some(path)) => Some(path.and_then(|path| {
            MasterKey::from_file(&*path)
                .map_err(|source| AppError::value(MASTER_KEY_FILE, None, source))
        })),
        (None, None) => None,
    };
    builder
}

/// A client id is two numbers. What else is set by mistake may be a secret, so only its beginning
/// is shown.
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

/// The app's own site, for a link: nothing else than the web.
pub(super) fn site(text: &str) -> Result<Url, AppError> {
    let url = Url::parse(text.trim()).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| {
        let why = "it must be a URL that begins with https:// or http://";
        AppError::value("the app's site", Some(format!("{text:?}")), why)
    })
}

/// Whether a text that should be a redirect URL is something else, or carries more than a place.
fn may_be_secret(text: &str) -> bool {
    !text.starts_with("http") || text.contains(['@', '?', '#'])
}

/// The first characters of a value.
fn beginning(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).collect();
    format!("`{}…`", shown.escape_debug())
}

/// Enough to recognise a value by, and too few to use it.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 6] = [
        (CLIENT_ID, "100000000001.200000000002"),
        (CLIENT_SECRET, "8f742231b10e8888abcd99yyyzzz85a5"),
        (SIGNING_SECRET, "5a58zzzyyy99dcba8888e01b132247f8"),
        (REDIRECT_URI, "https://bot.example.com/slack/oauth_redirect"),
        (URL, "memory:"),
        (MASTER_KEY, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];

    fn with(changed: &str, value: Option<&str>) -> SlackAppBuilder {
        read(|name| {
            if name == changed {
                value.map(Into::into)
            } else {
                let set = GOOD.iter().find(|(known, _)| *known == name);
                set.map(|(_, value)| (*value).into())
            }
        })
        .scopes("chat:write")
    }

    #[tokio::test]
    async fn an_app_starts_from_its_variables() {
        with("", None).build().await.expect("all are set");
    }

    #[tokio::test]
    async fn what_is_not_set_is_named_with_the_place_to_find_it() {
        for (name, _) in GOOD {
            for value in [None, Some("")] {
                let error = with(name, value).build().await.expect_err("one is missing");
                let text = format!("{error:?}");
                assert!(text.starts_with(&format!("{name} is not set: ")), "{text}");
                assert_eq!(text, error.to_string());
            }
        }
    }

    #[tokio::test]
    async fn a_wrong_value_is_named_with_the_cause_and_never_shown_if_it_is_secret() {
        for (name, value, expected) in [
            (
                CLIENT_ID,
                "8f742231b10e8888abcd99yyyzzz85a5",
                "SLACK_CLIENT_ID is `8f74…`: expected two numbers joined by a dot",
            ),
            (CLIENT_ID, "1.", "SLACK_CLIENT_ID is `1.…`"),
            (CLIENT_ID, ".1", "SLACK_CLIENT_ID is `.1…`"),
            (CLIENT_ID, "1.a", "SLACK_CLIENT_ID is `1.a…`"),
            (
                CLIENT_SECRET,
                "a canary",
                "SLACK_CLIENT_SECRET has a wrong value: not a client secret",
            ),
            (
                SIGNING_SECRET,
                "a canary",
                "SLACK_SIGNING_SECRET has a wrong value: not a signing secret",
            ),
            (
                REDIRECT_URI,
                "http://bot.example.com/slack/oauth_redirect",
                "SLACK_REDIRECT_URI is \"http://bot.example.com/slack/oauth_redirect\": not a \
                 redirect URL",
            ),
            (
                REDIRECT_URI,
                "https://bot:canary@bot.example.com/callback",
                "SLACK_REDIRECT_URI is `http…`: not a redirect URL",
            ),
            (
                REDIRECT_URI,
                "8f742231b10e8888abcd99yyyzzz85a5",
                "SLACK_REDIRECT_URI is `8f74…`: not a redirect URL",
            ),
            (
                URL,
                "mysql://root:canary@host",
                "the app's database cannot be used: not a database URL",
            ),
            (
                MASTER_KEY,
                "canary",
                "SLACK_INSTALLS_MASTER_KEY has a wrong value: the master key must be 32",
            ),
        ] {
            let error = with(name, Some(value)).build().await.expect_err("wrong");
            let text = format!("{error:?}");
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains("canary") && !text.contains("b10e"), "{text}");
        }
    }

    #[tokio::test]
    async fn the_key_of_a_file_serves_if_the_variable_is_not_set() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), GOOD[5].1).expect("a file");
        let path = file.path().as_os_str();
        let from = |path: OsString| {
            read(move |name| match name {
                MASTER_KEY => None,
                MASTER_KEY_FILE => Some(path.clone()),
                name => {
                    let set = GOOD.iter().find(|(known, _)| *known == name);
                    set.map(|(_, value)| (*value).into())
                }
            })
            .scopes("chat:write")
        };
        from(path.into())
            .build()
            .await
            .expect("the file has the key");
        let error = from("/nowhere".into()).build().await.expect_err("no file");
        let text = format!("{error:?}");
        let expected = "SLACK_INSTALLS_MASTER_KEY_FILE has a wrong value: the master key's file";
        assert!(text.starts_with(expected), "{text}");
    }

    #[tokio::test]
    async fn a_method_of_the_builder_replaces_a_wrong_variable() {
        with(REDIRECT_URI, Some("nonsense"))
            .redirect_uri("https://bot.example.com/callback")
            .build()
            .await
            .expect("the method came later");
    }
}

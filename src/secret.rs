//! Types for secrets. They are never printed or serialised, and are wiped when dropped.
//!
//! Each has one way to read its text, `expose()`, which is easy to search for. What your app copies
//! from there, and what other crates copy, is not wiped. `docs/security.md` in the repository lists
//! which copies are.

use std::sync::Arc;

use ring::digest;
use thiserror::Error;
use zeroize::Zeroizing;

/// Declares a newtype for a secret text.
macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Clones share the text. It is wiped when the last clone is dropped.
        #[derive(Clone)]
        pub struct $name(Arc<Zeroizing<String>>);

        impl $name {
            /// Returns the secret text. The caller is responsible for keeping it secret.
            #[must_use]
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        redacted!($name);
    };
}

secret!(
    /// A token for Slack's Web API: `xoxb-…`, `xoxp-…` or, with token rotation,
    /// `xoxe.xox[bp]-1-…`.
    AccessToken
);
secret!(
    /// The app's client secret, from *Basic Information*.
    ClientSecret
);
secret!(
    /// The single-use code that Slack sends to the redirect URL.
    Code
);
secret!(
    /// A token that Slack exchanges for the next pair: `xoxe-1-…`. Slack accepts each once.
    RefreshToken
);
secret!(
    /// The app's signing secret, from *Basic Information*. It proves that a request is from Slack.
    SigningSecret
);
secret!(
    /// An incoming webhook's URL. It is a secret like a token, because it lets anyone post.
    WebhookUrl
);

impl AccessToken {
    /// Makes an access token from the text that Slack issued.
    ///
    /// # Errors
    ///
    /// [`SecretError`], if the text is empty, longer than 8 KiB or not visible ASCII. Also if it is
    /// a kind of token that must not be stored: `xoxc-`, `xoxd-` and `xoxs-` belong to a person's
    /// Slack client, and `xwfp-` expires when its workflow step ends.
    pub fn new(token: impl Into<String>) -> Result<Self, SecretError> {
        let token = plausible("access token", token.into())?;
        let bare = token.strip_prefix("xoxe.").unwrap_or(&token);
        if ["xoxc-", "xoxd-", "xoxs-", "xwfp-"]
            .iter()
            .any(|kind| bare.starts_with(kind))
        {
            return Err(SecretError {
                what: "token of an installation",
                reason: "it is a session or workflow token",
            });
        }
        Ok(Self(Arc::new(token)))
    }
}

/// Declares the constructor of a secret that has no rule of its own.
macro_rules! new {
    ($name:ident, $what:literal) => {
        impl $name {
            #[doc = concat!("Makes a secret from the text of the ", $what, ".")]
            ///
            /// # Errors
            ///
            /// [`SecretError`], if the text is empty, longer than 8 KiB or not visible ASCII.
            pub fn new(secret: impl Into<String>) -> Result<Self, SecretError> {
                Ok(Self(Arc::new(plausible($what, secret.into())?)))
            }
        }
    };
}

new!(ClientSecret, "client secret");
new!(Code, "code");
new!(RefreshToken, "refresh token");
new!(SigningSecret, "signing secret");
new!(WebhookUrl, "webhook URL");

/// The longest accepted secret, in bytes. Slack documents no length for tokens; its tokens have
/// 50 to 300 characters.
const MAX_SECRET_LEN: usize = 8 * 1024;

fn plausible(what: &'static str, secret: String) -> Result<Zeroizing<String>, SecretError> {
    let secret = Zeroizing::new(secret);
    if (1..=MAX_SECRET_LEN).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic())
    {
        Ok(secret)
    } else {
        Err(SecretError {
            what,
            reason: "expected 1 to 8192 visible ASCII characters without spaces",
        })
    }
}

/// Compares two secrets in a time that does not reveal where they differ.
pub(crate) fn same(one: &str, other: &str) -> bool {
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    hash(one).as_ref() == hash(other).as_ref()
}

/// The text cannot be this kind of secret. The error does not contain the text.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a {what}: {reason}")]
pub struct SecretError {
    what: &'static str,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let token = AccessToken::new("xoxb-canary").expect("token");
        assert_eq!(format!("{token:?}"), "AccessToken([redacted])");
    }

    #[test]
    fn session_and_workflow_tokens_are_refused() {
        for token in ["xoxc-1", "xoxd-1", "xoxs-1", "xwfp-1", "xoxe.xoxc-1"] {
            let error = AccessToken::new(token).expect_err("not storable");
            assert_eq!(error.what, "token of an installation", "{token}");
        }
        for token in ["xoxb-1", "xoxp-1", "xoxe.xoxb-1-1", "xoxe.xoxp-1-1"] {
            assert!(AccessToken::new(token).is_ok(), "{token}");
        }
    }

    #[test]
    fn implausible_secrets_are_refused_without_being_repeated() {
        for secret in [
            "",
            "xoxb-canary with space",
            "xoxb-canary\0",
            "xoxb-canary\r\nX: y",
        ] {
            let error = AccessToken::new(secret).expect_err("implausible");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}

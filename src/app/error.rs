//! The errors that keep an app from starting.

use std::error::Error;
use std::fmt;

use crate::backend::ConnectError;
use crate::encrypted::KeyringError;
use crate::error_chain::error_chain;
use crate::oauth::ConfigError;

type Source = Box<dyn Error + Send + Sync>;

/// Why an app cannot start. Names the value, the cause and the remedy.
///
/// `Debug` prints the `Display` text with all sources, so that you can return it from `main`.
#[derive(thiserror::Error)]
#[error("{what}")]
pub struct AppError {
    what: String,
    source: Option<Source>,
}

impl AppError {
    /// Reports that neither the builder nor the environment has this variable's value.
    pub(super) fn missing(variable: &str, remedy: &str) -> Self {
        Self {
            what: format!("{variable} is not set: {remedy}"),
            source: None,
        }
    }

    /// Reports that two variables are set that name the same thing.
    pub(super) fn both_set(one: &str, other: &str) -> Self {
        Self {
            what: format!(
                "{one} and {other} are both set, but the app has one key provider: unset one of \
                 them; for a change of keys, set only SLACK_INSTALLS_KEYS, to several URLs"
            ),
            source: None,
        }
    }

    /// Reports that a variable, or a value of the builder, is wrong. `shown` is the part of the
    /// value that is safe to print; `None` if the value is a secret.
    pub(super) fn value(name: &str, shown: Option<String>, source: impl Into<Source>) -> Self {
        let shown = shown.map_or_else(|| "has a wrong value".into(), |shown| format!("is {shown}"));
        Self::new(format!("{name} {shown}"), source)
    }

    fn new(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self {
            what: what.into(),
            source: Some(source.into()),
        }
    }
}

impl fmt::Debug for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&error_chain(self))
    }
}

impl From<ConfigError> for AppError {
    fn from(source: ConfigError) -> Self {
        Self::new("the app's configuration is invalid", source)
    }
}

impl From<ConnectError> for AppError {
    fn from(source: ConnectError) -> Self {
        Self::new("the app's database cannot be used", source)
    }
}

impl From<KeyringError> for AppError {
    fn from(source: KeyringError) -> Self {
        Self::new("the app's store cannot be opened", source)
    }
}

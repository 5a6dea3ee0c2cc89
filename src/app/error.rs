//! Why an app cannot start. Read at 3 a.m. by people who did not write the code.

use std::error::Error;
use std::fmt;

use crate::backend::ConnectError;
use crate::encrypted::KeyringError;
use crate::error_chain::error_chain;
use crate::oauth::ConfigError;

type Source = Box<dyn Error + Send + Sync>;

/// The reason why an app cannot start: the thing, the cause and the remedy.
///
/// Its `Debug` is its `Display` with all sources, so that it reads well as the result of `main`.
pub struct AppError {
    what: String,
    source: Option<Source>,
}

impl AppError {
    /// Neither the builder nor the environment has this variable's value.
    pub(super) fn missing(variable: &str, remedy: &str) -> Self {
        Self {
            what: format!("{variable} is not set: {remedy}"),
            source: None,
        }
    }

    /// A variable, or a value of the builder, is not what it must be. `shown` is its beginning, if
    /// it is not a secret.
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

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Debug for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&error_chain(self))
    }
}

impl Error for AppError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<ConfigError> for AppError {
    fn from(source: ConfigError) -> Self {
        Self::new("the app's configuration cannot work", source)
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

//! Why an app cannot start. Read at 3 a.m. by people who did not write the code.

use std::error::Error;
use std::fmt;

use crate::backend::ConnectError;
use crate::encrypted::OpenError;
use crate::error_chain::error_chain;
use crate::oauth::ConfigError;

/// The reason why an app cannot start: the thing, the cause and the remedy.
///
/// Its `Debug` is its `Display` with all causes, so that it reads well as the result of `main`.
#[non_exhaustive]
pub enum AppError {
    /// The configuration of the install flow cannot work.
    Config(ConfigError),
    /// The database cannot be opened.
    Connect(ConnectError),
    /// Something is missing: neither the builder nor the environment has it.
    Missing {
        /// The variable that may have it.
        variable: &'static str,
        /// The meaning of the variable, and the place to find its value.
        remedy: &'static str,
    },
    /// The store's keys cannot be used.
    Open(OpenError),
    /// A value is not what it must be.
    Value {
        /// The variable, or the builder's method.
        name: &'static str,
        /// The beginning of the value, if it is not a secret.
        shown: Option<String>,
        /// The cause and the remedy.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the app's configuration cannot work"),
            Self::Connect(_) => f.write_str("the app's database cannot be used"),
            Self::Missing { variable, remedy } => write!(f, "{variable} is not set: {remedy}"),
            Self::Open(_) => f.write_str("the app's store cannot be opened"),
            Self::Value { name, shown, .. } => match shown {
                Some(shown) => write!(f, "{name} is {shown}"),
                None => write!(f, "{name} has a wrong value"),
            },
        }
    }
}

impl fmt::Debug for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&error_chain(self))
    }
}

impl Error for AppError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(source) => Some(source),
            Self::Connect(source) => Some(source),
            Self::Missing { .. } => None,
            Self::Open(source) => Some(source),
            Self::Value { source, .. } => Some(&**source),
        }
    }
}

impl From<ConfigError> for AppError {
    fn from(source: ConfigError) -> Self {
        Self::Config(source)
    }
}

impl From<ConnectError> for AppError {
    fn from(source: ConnectError) -> Self {
        Self::Connect(source)
    }
}

impl From<OpenError> for AppError {
    fn from(source: OpenError) -> Self {
        Self::Open(source)
    }
}

//! The error of setting up a key provider.

use std::borrow::Cow;

use thiserror::Error;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a key provider cannot be set up.
///
/// The text names the provider, the cause and the remedy. It never has the URL or a key.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct KeySetupError {
    kind: KeySetupErrorKind,
    text: Cow<'static, str>,
    source: Option<BoxError>,
}

/// The cause of a [`KeySetupError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeySetupErrorKind {
    /// This build does not have the provider, because a feature of this crate is off.
    FeatureMissing,
    /// The URL or an option cannot be used, or the source holds no master key.
    Invalid,
    /// The source of the key cannot be read: it does not exist, a permission is missing, or the
    /// command failed.
    Unreadable,
    /// The source did not respond. A later attempt may succeed.
    Unavailable,
}

impl KeySetupError {
    /// Returns the cause of the error.
    #[must_use]
    pub fn kind(&self) -> KeySetupErrorKind {
        self.kind
    }

    pub(super) fn new(kind: KeySetupErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Returns an error for a URL or an option that cannot be used.
pub(super) fn invalid(text: impl Into<Cow<'static, str>>) -> KeySetupError {
    KeySetupError::new(KeySetupErrorKind::Invalid, text)
}

/// Returns an error for a source that cannot be read.
pub(super) fn unreadable(text: impl Into<Cow<'static, str>>) -> KeySetupError {
    KeySetupError::new(KeySetupErrorKind::Unreadable, text)
}

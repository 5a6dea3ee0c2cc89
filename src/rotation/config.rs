//! How tokens are kept current.

use std::time::Duration;

use crate::slack::ClientCredentials;

/// How tokens are kept current.
#[derive(Debug)]
pub struct RotationConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// Wait for the refresh of every token that is due, even while it still serves.
    pub strict: bool,
    /// The app has PKCE enabled, so that its refresh tokens end after 30 days
    /// (`docs.slack.dev/authentication/using-pkce`): the worker refreshes idle chains after 20.
    pub is_pkce_app: bool,
    /// How long a caller waits for a refresh, unless it says so itself
    /// ([`TokenRotator::within`](super::TokenRotator::within)).
    pub patience: Duration,
}

impl RotationConfig {
    /// Lenient, not a PKCE app, and 20 s of patience: more than one lease.
    #[must_use]
    pub fn new(credentials: ClientCredentials) -> Self {
        Self {
            credentials,
            strict: false,
            is_pkce_app: false,
            patience: PATIENCE,
        }
    }
}

/// A lease of 15 s of a process that crashed, and the refresh after it.
const PATIENCE: Duration = Duration::from_secs(20);

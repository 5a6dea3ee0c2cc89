//! Notices: what your app is told, in addition to departures.

use std::fmt;
use std::time::SystemTime;

use super::{Credential, MAX_REASON};
use crate::installation::Revision;
use crate::tenant::{InstallationKey, TeamId, UserId};

/// What ended, although the tenant stays.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Subject {
    /// Slack revoked the authorization of the bot or of a user. Its tokens are deleted.
    Authorization(Credential),
    /// Slack refused every refresh token of the bot or of a user. The app must be installed again.
    Chain(Credential),
    /// A workspace left the organisation's installation.
    Workspace(TeamId),
}

/// Something that ended, as your app is told.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Notice {
    /// The workspace or organisation.
    pub key: InstallationKey,
    /// What ended.
    pub subject: Subject,
    /// The reason: an event's type, an error code, or words of this crate. Stored in plain text.
    pub reason: String,
    /// When it was found to have ended, in whole seconds, rounded down.
    pub at: SystemTime,
    /// The user who installed the app, if known.
    pub installed_by: Option<UserId>,
    /// The metadata that your app passed to the install flow. Sealed like a token.
    pub metadata: Option<String>,
}

impl Notice {
    /// Makes a notice without an installer and without metadata, for implementations of the store.
    #[must_use]
    pub fn new(key: InstallationKey, subject: Subject, ending: &Ending) -> Self {
        Self {
            key,
            subject,
            reason: ending.reason.chars().take(MAX_REASON).collect(),
            at: ending.at,
            installed_by: None,
            metadata: None,
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice")
            .field("key", &self.key)
            .field("subject", &self.subject)
            .field("reason", &self.reason)
            .field("at", &self.at)
            .field("installed_by", &self.installed_by)
            .field("metadata", &self.metadata.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// A notice of which your app has not been told yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingNotice {
    /// The notice.
    pub notice: Notice,
    /// How often it was put off.
    pub attempts: u32,
    /// The revision of the notice.
    pub revision: Revision,
}

impl PendingNotice {
    /// Makes a pending notice, for implementations of the store.
    #[must_use]
    pub fn new(notice: Notice, attempts: u32, revision: Revision) -> Self {
        Self {
            notice,
            attempts,
            revision,
        }
    }
}

/// Why and when something ends, and when your app is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ending {
    /// The reason. At most 500 characters are stored, in plain text.
    pub reason: String,
    /// When it ends.
    pub at: SystemTime,
    /// When the notice is due.
    pub tell_at: SystemTime,
}

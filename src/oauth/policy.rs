//! Who may install: the host's say, after the exchange and before anything is stored.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::config::Requested;
use crate::installation::Installation;
use crate::slack::SlackClient;

/// Judges an installation before it is stored.
///
/// # Contract
///
/// 1. After [`Decision::Refuse`] the tokens just issued are revoked and nothing is stored. A token
///    that an earlier installation of the same tenant uses stays as it is.
///
/// # Consistency
///
/// None is needed.
///
/// # Cancel safety
///
/// The library awaits it on a task of its own.
///
/// # Errors
///
/// A policy that cannot find out refuses: it fails closed.
///
/// # Example
///
/// ```
/// use slack_installs::oauth::{Candidate, InstallPolicy, Decision};
///
/// /// Lets only one company in.
/// #[derive(Debug)]
/// struct OnlyAlpha;
///
/// #[async_trait::async_trait]
/// impl InstallPolicy for OnlyAlpha {
///     async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
///         match candidate.installation.key().id() {
///             "T0ALPHA0001" => Decision::Allow,
///             _ => Decision::Refuse { reason: "This app is for Alpha Robotics only.".into() },
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait InstallPolicy: fmt::Debug + Send + Sync + 'static {
    /// Whether this may be installed.
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: InstallPolicy + ?Sized> InstallPolicy for Arc<P> {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        (**self).judge(candidate).await
    }
}

/// An installation that has tokens and is not stored yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// What would be stored.
    pub installation: &'a Installation,
    /// What the flow asked for; what was granted is in the installation.
    pub requested: &'a Requested,
    /// To ask Slack, for instance [`users_info`](SlackClient::users_info) for the installer's
    /// role.
    pub slack: &'a SlackClient,
}

/// A policy's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It may be stored.
    Allow,
    /// It may not.
    Refuse {
        /// Why, in words for the person who installs. Shown escaped, and logged.
        reason: String,
    },
}

/// Lets everybody install. The default.
#[derive(Debug)]
pub(super) struct AllowAll;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for AllowAll {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        Decision::Allow
    }
}

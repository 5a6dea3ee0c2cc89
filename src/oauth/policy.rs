//! Your app's decision on who may install, after the exchange and before anything is stored.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::config::Requested;
use crate::forward::forward;
use crate::installation::Installation;
use crate::slack::SlackClient;

/// Decides on an installation before it is stored.
///
/// # Contract
///
/// 1. After [`Decision::Refuse`], the newly issued tokens are revoked, and nothing is stored. A
///    token that an earlier installation of the same tenant uses stays unchanged.
///
/// # Consistency
///
/// None is required.
///
/// # Cancel safety
///
/// The library runs it in its own task.
///
/// # Errors
///
/// If a policy cannot decide, it must refuse: it fails closed.
///
/// # Example
///
/// ```
/// use slack_installs::oauth::{Candidate, InstallPolicy, Decision};
///
/// /// Allows only one company.
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
    /// Decides whether this installation is allowed.
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision;
}

forward!(InstallPolicy for [Arc] {
    fn judge(candidate: &Candidate<'_>) -> Decision;
});

/// An installation that has tokens and is not stored yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// The installation that would be stored.
    pub installation: &'a Installation,
    /// The scopes that the flow requested. The granted scopes are in the installation.
    pub requested: &'a Requested,
    /// A client for calls to Slack, for instance [`users_info`](SlackClient::users_info) for the
    /// role of the installing user.
    pub slack: &'a SlackClient,
}

/// The decision of a policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// The installation may be stored.
    Allow,
    /// The installation must not be stored.
    Refuse {
        /// The reason, for the person who installs. It is shown escaped, and logged.
        reason: String,
    },
}

/// Allows everyone to install. This is the default.
#[derive(Debug)]
pub(super) struct AllowAll;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for AllowAll {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        Decision::Allow
    }
}

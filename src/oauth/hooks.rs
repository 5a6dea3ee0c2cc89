//! What your app hears of at the end of a flow.

use std::fmt;
use std::sync::Arc;

use super::config::Requested;
use super::error::Error;
use super::policies::missing;
use crate::installation::Installation;

/// What a flow came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Installed {
    /// What this flow brought, and stored. What an earlier installation left (other webhooks, a
    /// bot beside a user's own installation) is in the store; so is the revision.
    pub installation: Installation,
    /// What the flow had asked for.
    pub requested: Requested,
}

impl Installed {
    /// What the flow asked for and did not get: an admin may have withheld it, or the person left
    /// an optional scope out. Of a token that was not asked for, nothing is missing.
    #[must_use]
    pub fn missing_scopes(&self) -> Requested {
        let [bot, user] = self.installation.grants();
        Requested {
            scopes: missing(bot, &self.requested.scopes),
            user_scopes: missing(user, &self.requested.user_scopes),
        }
    }
}

/// Called after each install flow, for your app's own work.
///
/// ```
/// use slack_installs::oauth::{Error, InstallHooks, Installed};
///
/// #[derive(Debug)]
/// struct Welcome;
///
/// #[async_trait::async_trait]
/// impl InstallHooks for Welcome {
///     async fn installed(&self, installed: &Installed) {
///         println!("{} installed the app", installed.installation.key());
///     }
///
///     async fn failed(&self, error: &Error) {
///         println!("an installation failed: {error}");
///     }
/// }
/// ```
///
/// # Contract
///
/// 1. `installed` is called after the installation is stored, once for each flow that ends well.
/// 2. `failed` is called for each flow that does not, with the reason.
///
/// # Consistency
///
/// A crash between the store and `installed` skips the call: reconcile from the store if that
/// matters.
///
/// # Cancel safety
///
/// The library awaits both on a task of its own, so a browser that goes away cancels nothing.
///
/// # Errors
///
/// Neither has any: what goes wrong inside is the host's to handle.
#[async_trait::async_trait]
pub trait InstallHooks: fmt::Debug + Send + Sync + 'static {
    /// Called after an installation was stored. Does nothing by default.
    async fn installed(&self, installed: &Installed) {
        let _ = installed;
    }

    /// Called after a flow failed. Does nothing by default.
    async fn failed(&self, error: &Error) {
        let _ = error;
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: InstallHooks + ?Sized> InstallHooks for Arc<H> {
    async fn installed(&self, installed: &Installed) {
        (**self).installed(installed).await;
    }

    async fn failed(&self, error: &Error) {
        (**self).failed(error).await;
    }
}

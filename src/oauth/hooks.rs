//! The hooks that are called at the end of a flow.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Uri};

use super::config::{InstallOptions, Requested};
use super::failed::FailedFlow;
use super::policies::missing;
use crate::forward::forward;
use crate::installation::Installation;

/// The result of a successful flow.
#[derive(Debug)]
#[non_exhaustive]
pub struct Installed {
    /// The installation from this flow, as stored. The store also has its revision, and the parts
    /// that an earlier installation left. These can be other webhooks, or a bot when a user
    /// installed only their own token. The flow's metadata is in
    /// [`user_metadata`](Installation::user_metadata). If the flow installed the bot, it is in
    /// [`metadata`](Installation::metadata) too.
    pub installation: Installation,
    /// The scopes that the flow requested.
    pub requested: Requested,
}

impl Installed {
    /// Returns the scopes that the flow requested and Slack did not grant. An admin may have
    /// withheld them, or the person did not select an optional scope. A token that was not
    /// requested has no missing scopes.
    #[must_use]
    pub fn missing_scopes(&self) -> Requested {
        let [bot, user] = self.installation.grants();
        Requested {
            scopes: missing(bot, &self.requested.scopes),
            user_scopes: missing(user, &self.requested.user_scopes),
        }
    }
}

/// Hooks that run before and after each install flow, for your app's own work.
///
/// ```
/// use slack_installs::oauth::{FailedFlow, InstallHooks, Installed};
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
///     async fn failed(&self, failed: &FailedFlow) {
///         let customer = failed.metadata.as_deref().unwrap_or("unknown");
///         println!("the installation of customer {customer} failed: {failed}");
///     }
/// }
/// ```
///
/// # Contract
///
/// 1. `installed` is called once for each successful flow, after the installation is stored.
/// 2. `failed` is called once for each flow that started and failed, with everything that is known
///    of it ([`Flow`](super::Flow)). If [`is_kept`](super::Flow::is_kept) is set, the database was
///    away, and the library keeps trying for 10 minutes. Then `installed` follows, or `failed`
///    without `is_kept`.
/// 3. `starting` is called for each flow that starts at the install path or at Slack, and `session`
///    for each callback. A panic in either refuses the request.
///
/// # Consistency
///
/// After a crash between the commit and `installed`, the hook is not called. If that matters,
/// compare your data with the store.
///
/// # Cancel safety
///
/// The library runs both in their own task, so a browser that disconnects cancels nothing.
///
/// # Errors
///
/// Neither hook returns an error. Your app must handle errors inside the hook.
#[async_trait::async_trait]
pub trait InstallHooks: fmt::Debug + Send + Sync + 'static {
    /// Returns the options of a flow that this request starts, at the install path or at Slack. The
    /// given options have what the library read from the request: the redirect URL, the workspace or
    /// organisation, and the cookies. Returns them unchanged by default.
    ///
    /// The request may come from anyone. Take metadata from your app's own session, or from a value
    /// that your app has signed.
    async fn starting(
        &self,
        options: InstallOptions,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> InstallOptions {
        let _ = (uri, headers);
        options
    }

    /// Returns the session of your app that this callback belongs to, for flows with a
    /// [session](InstallOptions::session). Returns `None` by default.
    async fn session(&self, headers: &HeaderMap) -> Option<String> {
        let _ = headers;
        None
    }

    /// Called after an installation was stored. Does nothing by default.
    async fn installed(&self, installed: &Installed) {
        let _ = installed;
    }

    /// Called after a flow failed. Does nothing by default.
    async fn failed(&self, failed: &FailedFlow) {
        let _ = failed;
    }
}

forward!(InstallHooks for [Arc] {
    fn starting(options: InstallOptions, uri: &Uri, headers: &HeaderMap) -> InstallOptions;
    fn session(headers: &HeaderMap) -> Option<String>;
    fn installed(installed: &Installed);
    fn failed(failed: &FailedFlow);
});

//! Ends what Slack has ended, and tells your app.

use super::Lifecycle;
use crate::error_chain::error_chain;
use crate::installation::Revision;
use crate::metrics;
use crate::secret::AccessToken;
use crate::store::{ChainKey, Credential, Delete, Ending, Error, Subject};
use crate::tenant::InstallationKey;

impl Lifecycle {
    /// Deletes a credential that Slack has revoked, if it still has this token and its installation
    /// this revision, and tells your app. Returns whether the credential was deleted.
    ///
    /// # Errors
    ///
    /// The store's error; a conflict, if the token or the revision has changed. A hook that fails
    /// is no error: it is called again later.
    pub(crate) async fn revoked(
        &self,
        chain: &ChainKey,
        only: Revision,
        token: &AccessToken,
        reason: &str,
    ) -> Result<bool, Error> {
        let is_deleted = self.end_authorization(chain, only, token, reason).await?;
        if is_deleted {
            let ended = [Subject::Authorization(chain.credential.clone())];
            self.tell(&chain.tenant, &ended).await;
        }
        Ok(is_deleted)
    }

    /// As [`revoked`](Self::revoked), but calls no hook yet.
    pub(super) async fn end_authorization(
        &self,
        chain: &ChainKey,
        only: Revision,
        token: &AccessToken,
        reason: &str,
    ) -> Result<bool, Error> {
        let mut delete = match &chain.credential {
            Credential::Bot => Delete::bot(),
            Credential::User(id) => Delete::user(id.clone()),
        };
        delete = delete.only(only).holding(token);
        delete.ending = self.ending(reason);
        let is_deleted = self.installations.delete(&chain.tenant, &delete).await?;
        if is_deleted {
            metrics::REVOCATIONS.add([chain.credential.kind()]);
        }
        Ok(is_deleted)
    }

    /// Calls the hooks for the notices of these subjects that exist. They are stored, so what fails
    /// is tried again later.
    pub(super) async fn tell(&self, key: &InstallationKey, subjects: &[Subject]) {
        if self.hooks.is_none() || subjects.is_empty() {
            return;
        }
        match self.installations.notices(key, subjects).await {
            Ok(notices) => self.report_now(notices).await,
            Err(error) => tracing::warn!(
                tenant = %key,
                error = error_chain(&error),
                "new notices cannot be read; their hooks are called later"
            ),
        }
    }

    /// Returns what a notice says of something that ends now; `None` if no notice is written.
    pub(super) fn ending(&self, reason: &str) -> Option<Ending> {
        let at = self.clock.now();
        Some(Ending {
            reason: reason.to_owned(),
            at,
            tell_at: self.tell_at(at)?,
        })
    }
}

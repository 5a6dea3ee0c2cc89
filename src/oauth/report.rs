//! Logs the result of a flow, and calls your app's hook.

use tracing::Instrument as _;
use tracing::field::{DisplayValue, display};

use super::Inner;
use super::error::Error;
use super::failed::{FailedFlow, Flow, Known};
use super::hooks::Installed;
use crate::error_chain::error_chain;
use crate::metrics;
use crate::span::{Ended, Operation};
use crate::tenant::InstallationKey;

impl Inner {
    /// Logs the result of a flow, and calls your app's hook. An error gets what is known of the
    /// flow.
    pub(super) async fn report(
        &self,
        outcome: Result<Installed, Error>,
        known: &Known,
    ) -> Result<Installed, Box<FailedFlow>> {
        match outcome {
            Ok(installed) => self.report_installed(installed, known).await,
            Err(error) => self.report_failed(known.failed(error)).await,
        }
    }

    async fn report_installed(
        &self,
        installed: Installed,
        known: &Known,
    ) -> Result<Installed, Box<FailedFlow>> {
        tracing::info!(tenant = %installed.installation.key(), "installed");
        metrics::INSTALL_FLOWS.add(["installed", metrics::NONE]);
        let Some(hooks) = self.hooks.clone() else {
            return Ok(installed);
        };
        // In its own task, so that a panic in a hook undoes nothing.
        let called = async move {
            hooks.installed(&installed).await;
            installed
        };
        let called = tokio::spawn(called.in_current_span());
        called.await.map_err(|_| hook_panicked(known.flow()))
    }

    async fn report_failed(&self, failed: Box<FailedFlow>) -> Result<Installed, Box<FailedFlow>> {
        self.log_failed(&failed);
        let Some(hooks) = self.hooks.clone() else {
            return Err(failed);
        };
        let flow = failed.flow.clone();
        let called = async move {
            hooks.failed(&failed).await;
            failed
        };
        let called = tokio::spawn(called.in_current_span());
        Err(called.await.unwrap_or_else(|_| hook_panicked(flow)))
    }

    /// Logs a failed flow with the ids that are known. The metadata and the session stay out of
    /// logs.
    ///
    /// Anybody can cause a failure without a tenant, so the lines of these are limited.
    pub(super) fn log_failed(&self, failed: &FailedFlow) {
        let reason = failed.error.name();
        metrics::INSTALL_FLOWS.add(["failed", reason]);
        let left_out = match failed.key() {
            Some(_) => 0,
            None => match self.log_limit.admit(reason) {
                Some(left_out) => left_out,
                None => return,
            },
        };
        tracing::warn!(
            reason,
            error = error_chain(&failed.error),
            tenant = tenant(failed),
            installed_by = failed.installed_by.as_ref().map(display),
            app_id = failed.app_id.as_ref().map(display),
            expected = failed.expected(),
            left_out,
            "an install flow ended without an installation"
        );
    }
}

fn hook_panicked(flow: Flow) -> Box<FailedFlow> {
    tracing::error!(
        tenant = tenant(&flow),
        "an install hook panicked; the installation may already be stored"
    );
    let error = Error::Hook;
    Box::new(FailedFlow { error, flow })
}

/// Returns how a flow ended, for its span.
pub(super) fn ended(span: &Operation, outcome: &Result<Installed, Box<FailedFlow>>) -> Ended {
    let (app, home) = match outcome {
        Ok(it) => (Some(&it.installation.app_id), Some(&it.installation.home)),
        Err(failed) => (failed.app_id.as_ref(), failed.home.as_ref()),
    };
    if let Some(app) = app {
        span.app(app);
    }
    if let Some(home) = home {
        let key = home.key();
        span.tenant(&key).kind(key.kind());
    }
    match outcome {
        Ok(_) => Ended::well("installed"),
        Err(failed) => Ended::badly("failed", failed.error.name()),
    }
}

/// Returns the tenant of a flow for a log, if it is known.
pub(super) fn tenant(flow: &Flow) -> Option<DisplayValue<InstallationKey>> {
    flow.key().map(display)
}

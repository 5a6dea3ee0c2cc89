//! Responds to refused requests, with your app's responses if it has its own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::field::display;
use url::Url;

use super::refusal::{Refusal, RefusalReason, Refusals};
use super::reply::Reply;
use crate::authorize::AuthorizeError;
use crate::error_chain::error_chain;
use crate::metrics;
use crate::request::VerifiedRequest;

/// Responds to refused requests.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    pub(super) install_url: Option<Url>,
    pub(super) refusals: Option<Arc<dyn Refusals>>,
}

impl Desk {
    /// Returns the response to a request that has no token, for this reason.
    pub(crate) fn unauthorized(&self, request: &VerifiedRequest, error: &AuthorizeError) -> Reply {
        let reason = RefusalReason::of(error);
        let (tenant, kind) = (request.tenant().map(display), request.kind().name());
        let (event, chain) = (request.event_type(), error_chain(error));
        match reason {
            RefusalReason::TemporarilyUnavailable if error.is_transient() => {
                let error = chain;
                tracing::warn!(tenant, kind, event, error, "a request cannot be served now");
            }
            RefusalReason::TemporarilyUnavailable | RefusalReason::Misconfigured => {
                let error = chain;
                tracing::error!(
                    tenant,
                    kind,
                    event,
                    error,
                    "a request cannot be served until somebody repairs the cause"
                );
            }
            _ => {
                let error = chain;
                tracing::info!(tenant, kind, event, error, "a request is not authorized");
            }
        }
        self.respond(request, reason, Some(error))
    }

    /// Returns the response to a request for this reason.
    pub(crate) fn respond(
        &self,
        request: &VerifiedRequest,
        reason: RefusalReason,
        error: Option<&AuthorizeError>,
    ) -> Reply {
        metrics::REQUESTS.add(["refused", reason.name()]);
        let refusal = Refusal {
            reason,
            request,
            error,
            install_url: self.link(request, reason),
        };
        let Some(refusals) = &self.refusals else {
            return refusal.reply();
        };
        // Nothing of this crate is changed by the call.
        let response = catch_unwind(AssertUnwindSafe(|| refusals.respond(&refusal)));
        response.unwrap_or_else(|_| {
            tracing::error!(
                tenant = request.tenant().map(display),
                kind = request.kind().name(),
                event = request.event_type(),
                "your app's `Refusals` panicked; the crate's response is sent"
            );
            refusal.reply()
        })
    }

    /// Returns the install link of the request's workspace. If its organisation's installation must
    /// be installed again, the link is the organisation's.
    pub(super) fn link(&self, request: &VerifiedRequest, reason: RefusalReason) -> Option<Url> {
        let tenant = request.tenant()?;
        let team = tenant.team().map(|team| team.as_str());
        let org = tenant.enterprise().map(|enterprise| enterprise.as_str());
        let is_of_org = tenant.is_enterprise_install() && reason == RefusalReason::ReinstallNeeded;
        let id = if is_of_org {
            org.or(team)
        } else {
            team.or(org)
        };
        let mut url = self.install_url.clone()?;
        url.query_pairs_mut().append_pair("team", id?);
        Some(url)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let install_url = self.install_url.as_ref().map(Url::as_str);
        f.debug_struct("Desk")
            .field("install_url", &install_url)
            .field("refusals", &self.refusals)
            .finish()
    }
}

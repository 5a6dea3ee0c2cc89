//! Keeps the organisation of a workspace current, from the requests that name it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::Authorizer;
use crate::error_chain::error_chain;
use crate::installation::{Enterprise, Home, StoredInstallation};
use crate::request::{Kind, VerifiedRequest};
use crate::store::in_time;
use crate::tenant::{TeamId, Tenant};

impl Authorizer {
    /// Updates the enterprise id of a workspace's installation, if the request certainly names
    /// another one. Best effort, for at most [`PATIENCE`]: the next request names it again.
    pub(super) async fn keep_current(
        &self,
        request: &VerifiedRequest,
        tenant: &Tenant,
        installation: &mut StoredInstallation,
    ) {
        let key = installation.key();
        let revision = installation.revision;
        let Home::Workspace { enterprise, team } = &mut installation.installation.home else {
            return;
        };
        let stored = enterprise.as_ref().map(|enterprise| &enterprise.id);
        // A tenant has an enterprise id and a team id only if both come from the same object.
        let said = tenant.enterprise();
        if said == stored || (said.is_none() && !is_in_no_org(request, &team.id)) {
            return;
        }
        let noted = self.installations.set_enterprise(&key, revision, said);
        match in_time(Instant::now() + PATIENCE, noted).await {
            Ok(true) => {
                tracing::info!(tenant = %key, enterprise = ?said, "a workspace has moved");
                *enterprise = said.cloned().map(|id| Enterprise { id, name: None });
            }
            // A reinstall happened in the meantime, and has newer data.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    tenant = %key,
                    error = error_chain(&error),
                    "a workspace's organisation could not be updated; the next request tries again"
                );
            }
        }
    }
}

/// A small part of the time that a request has. The update usually takes milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// Returns whether an event's authorization says that this workspace is in no organisation: its
/// enterprise id is present and null. Other payloads omit ids for other reasons.
fn is_in_no_org(request: &VerifiedRequest, team: &TeamId) -> bool {
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        authorizations: Vec<Map<String, Value>>,
    }
    if !matches!(request.kind(), Kind::Event { .. } | Kind::FunctionExecuted) {
        return false;
    }
    let Ok(event) = request.payload::<Event>() else {
        return false;
    };
    event.authorizations.first().is_some_and(|ours| {
        ours.get("team_id").and_then(Value::as_str) == Some(team.as_str())
            && ours.get("enterprise_id") == Some(&Value::Null)
    })
}

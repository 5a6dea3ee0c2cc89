//! Callers that request tokens again and again, until the input says that the run is over.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slack_installs::store::Credential;
use slack_installs::{InstallationKey, TokenRotator};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::tally::Report;

/// How the callers of a steady run behave.
#[derive(Clone, Copy, Deserialize, Serialize)]
pub(crate) struct Steady {
    /// The pause of a caller between two requests.
    pub(crate) pause: Duration,
    /// How many workspaces, from the first one, have callers of their own. If a fault blocks these
    /// workspaces, only those callers wait.
    pub(crate) apart: usize,
    /// Whether the run fails if too few requests are served.
    pub(crate) has_rate: bool,
}

/// Runs the callers until `over` has a permit.
pub(crate) async fn ask(
    rotator: TokenRotator,
    tenants: Arc<[InstallationKey]>,
    callers: usize,
    steady: Steady,
    reports: mpsc::UnboundedSender<Report>,
    over: Arc<Semaphore>,
) {
    let mut tasks = JoinSet::new();
    let apart = 0..steady.apart;
    let others = steady.apart..tenants.len();
    for (places, callers) in [(apart, steady.apart.min(callers)), (others, callers)] {
        for caller in 0..callers {
            let (rotator, tenants) = (rotator.clone(), Arc::clone(&tenants));
            let (reports, over) = (reports.clone(), Arc::clone(&over));
            let places = places.clone().skip(caller).step_by(callers);
            tasks.spawn(async move {
                for place in places.cycle() {
                    if over.available_permits() > 0 {
                        break;
                    }
                    let asked_at = Instant::now();
                    let token = rotator.token_for(&tenants[place], Credential::Bot).await;
                    let reason = token.err().map(|error| error.to_string());
                    // Fails only if the process is ending.
                    let _ = reports.send(Report::Called(asked_at.elapsed(), place, reason));
                    sleep(steady.pause).await;
                }
            });
        }
    }
    tasks.join_all().await;
}

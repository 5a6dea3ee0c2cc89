//! The callers of one process, and the app that they call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::backend::Backend;
use slack_installs::rotation::WorkerConfig;
use slack_installs::slack::SlackClient;
use slack_installs::store::Credential;
use slack_installs::{EncryptedStore, InstallationKey, RotationConfig, TokenRotator};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::orders::{Each, Orders};
use crate::steady::{self, Steady};
use crate::tally::{Fingerprint, Report};
use crate::watch::Watch;

/// A process of the app that is ready to start its callers.
pub(crate) struct Callers {
    rotator: TokenRotator,
    tenants: Arc<[InstallationKey]>,
    callers: usize,
    each: Each,
    steady: Option<Steady>,
    /// Has a permit when a steady run is over.
    over: Arc<Semaphore>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Callers {
    pub(crate) async fn ready(
        orders: &Orders,
        backend: Arc<dyn Backend>,
        watch: &Watch,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Self, Failure> {
        let backend = watch.backend(backend);
        let store = EncryptedStore::open(backend, orders.keys()?, orders.client_id()?).await?;
        let slack = SlackClient::with_transport(orders.environment()?, watch.transport());
        let config = RotationConfig::new(orders.credentials()?);
        Ok(Self {
            rotator: TokenRotator::new(config, slack, store),
            tenants: orders.tenants()?.into(),
            callers: orders.callers,
            each: orders.each,
            steady: orders.steady,
            over: watch.go_on(),
            reports,
        })
    }

    /// Runs all callers, and the background worker that every process of an app runs.
    pub(crate) async fn ask(self) {
        let worker = self.rotator.clone();
        let worker = tokio::spawn(async move { worker.work(WorkerConfig::default()).await });
        match self.steady {
            None => self.ask_for_each().await,
            Some(steady) => {
                let (rotator, tenants) = (self.rotator.clone(), Arc::clone(&self.tenants));
                let (reports, over) = (self.reports.clone(), Arc::clone(&self.over));
                steady::ask(rotator, tenants, self.callers, steady, reports, over).await;
            }
        }
        self.rotator.shutdown(Duration::from_secs(30)).await;
        worker.abort();
    }

    /// Requests a token once for each workspace.
    async fn ask_for_each(&self) {
        let mut callers = JoinSet::new();
        let queue = Arc::new(AtomicUsize::new(0));
        for caller in 0..self.callers {
            let (each, queue) = (self.each, Arc::clone(&queue));
            let (rotator, reports) = (self.rotator.clone(), self.reports.clone());
            let tenants = Arc::clone(&self.tenants);
            callers.spawn(async move {
                for turn in 0..tenants.len() {
                    let place = match each {
                        // Each caller has its own order, as requests have.
                        Each::Caller => (turn + caller * STRIDE) % tenants.len(),
                        Each::Process => queue.fetch_add(1, Ordering::SeqCst),
                    };
                    let Some(tenant) = tenants.get(place) else {
                        break;
                    };
                    let asked_at = Instant::now();
                    let report = match rotator.token_for(tenant, Credential::Bot).await {
                        Ok(token) => Report::Token(
                            asked_at.elapsed(),
                            Fingerprint::of(token.access_token.expose()),
                        ),
                        Err(error) => Report::Failed(asked_at.elapsed(), error.to_string()),
                    };
                    // Fails only if the process is ending.
                    let _ = reports.send(report);
                }
            });
        }
        callers.join_all().await;
    }
}

/// A prime, so that callers start at different workspaces.
const STRIDE: usize = 7919;

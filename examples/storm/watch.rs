//! Observes the calls between the rotator, Slack and the database.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot,
};
use slack_installs::slack::{HttpTransport, Transport, TransportError};
use tokio::sync::{Semaphore, mpsc};

use crate::orders::Step;
use crate::tally::Report;

/// Measures the time from Slack's response to the save. Pauses the process where its orders say.
#[derive(Clone)]
pub(crate) struct Watch {
    reports: mpsc::UnboundedSender<Report>,
    /// The workspaces whose pairs arrived and are not saved, and the times of arrival.
    exposed: Arc<Mutex<HashMap<String, Instant>>>,
    pause: Arc<Mutex<Option<Step>>>,
    go_on: Arc<Semaphore>,
}

impl Watch {
    pub(crate) fn new(reports: mpsc::UnboundedSender<Report>, pause_at: Option<Step>) -> Self {
        Self {
            reports,
            exposed: Arc::default(),
            pause: Arc::new(Mutex::new(pause_at)),
            go_on: Arc::new(Semaphore::new(0)),
        }
    }

    /// Returns the semaphore that ends a pause: add a permit.
    pub(crate) fn go_on(&self) -> Arc<Semaphore> {
        Arc::clone(&self.go_on)
    }

    pub(crate) fn transport(&self) -> Watched<HttpTransport> {
        Watched(HttpTransport::new(), self.clone())
    }

    pub(crate) fn backend(&self, inner: Arc<dyn Backend>) -> Watched<Arc<dyn Backend>> {
        Watched(inner, self.clone())
    }

    async fn pause_at(&self, step: Step) {
        let is_here = lock(&self.pause).take_if(|at| *at == step).is_some();
        if is_here {
            // Fails only if the process is ending.
            let _ = self.reports.send(Report::Paused);
            if let Ok(permit) = self.go_on.acquire().await {
                permit.forget();
            }
        }
    }

    fn answered(&self, body: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(team) = answer["team"]["id"].as_str() {
            lock(&self.exposed).insert(team.to_owned(), Instant::now());
        }
    }

    fn saved(&self, partition: &Partition) {
        let team = partition.as_str().rsplit('/').next().unwrap_or_default();
        if let Some(since) = lock(&self.exposed).remove(team) {
            // Fails only if the process is ending.
            let _ = self.reports.send(Report::Exposed(since.elapsed()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Watched<T>(T, Watch);

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

#[async_trait]
impl Transport for Watched<HttpTransport> {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let is_refresh = request.uri().path().ends_with("/oauth.v2.access");
        if !is_refresh {
            return self.0.send(request).await;
        }
        self.1.pause_at(Step::Call).await;
        let answer = self.0.send(request).await?;
        self.1.answered(answer.body());
        self.1.pause_at(Step::Answer).await;
        Ok(answer)
    }
}

#[async_trait]
impl Backend for Watched<Arc<dyn Backend>> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.0.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        let outcome = self.0.commit(partition, changes).await;
        if outcome.is_ok() {
            self.1.saved(partition);
        }
        outcome
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.0.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.0.due(queue, now, from, limit).await
    }
}

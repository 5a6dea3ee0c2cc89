//! Announces each step of a process towards the world, and waits until it may take it.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot,
};
use slack_installs::slack::{HttpTransport, Transport, TransportError};
use tokio::sync::Semaphore;

use crate::orders::{MARK, Word};

#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    is_held: AtomicBool,
    permits: Semaphore,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            is_held: AtomicBool::new(false),
            permits: Semaphore::new(0),
        }
    }
}

impl Gate {
    pub(crate) fn hold(&self) {
        self.0.is_held.store(true, Ordering::SeqCst);
    }

    pub(crate) fn go(&self) {
        self.0.permits.add_permits(1);
    }

    pub(crate) fn free(&self) {
        self.0.is_held.store(false, Ordering::SeqCst);
        self.0.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn step(&self, name: &str) {
        if self.0.is_held.load(Ordering::SeqCst) {
            say(&Word::Step(name.to_owned()));
            let permit = self.0.permits.acquire().await;
            permit.expect("nobody closes the gate").forget();
        }
    }
}

pub(crate) fn say(word: &Word) {
    let word = serde_json::to_string(word).expect("a word is plain");
    let mut output = std::io::stdout().lock();
    // A test binary may have begun a line.
    writeln!(output, "\n{MARK}{word}").expect("the parent listens");
    output.flush().expect("the parent listens");
}

/// Something with a gate before and after each call that changes anything, or that a decision
/// rests on.
pub(crate) struct Gated<T>(pub(crate) T, pub(crate) Gate);

impl<T> fmt::Debug for Gated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

#[async_trait]
impl Backend for Gated<Arc<dyn Backend>> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.1.step("before a read").await;
        let rows = self.0.read(partition, slots).await;
        self.1.step("after the read").await;
        rows
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.1.step("before a commit").await;
        let outcome = self.0.commit(partition, changes).await;
        self.1.step("after the commit").await;
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

#[async_trait]
impl Transport for Gated<HttpTransport> {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        self.1.step("before the call").await;
        let answer = self.0.send(request).await;
        self.1.step("after the answer").await;
        answer
    }
}

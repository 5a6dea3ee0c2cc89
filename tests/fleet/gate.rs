//! Announces each step of a process outside itself, and waits for the permit to take it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use slack_installs::backend::Error;
use tokio::sync::Semaphore;

use crate::hooked::{Call, Hooks};
use crate::hooked_transport::CallHooks;
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
            permit
                .expect("the gate's semaphore is never closed")
                .forget();
        }
    }
}

pub(crate) fn say(word: &Word) {
    let word = serde_json::to_string(word).expect("words can be serialized");
    let mut output = std::io::stdout().lock();
    // The test binary may have begun a line.
    writeln!(output, "\n{MARK}{word}").expect("the parent listens");
    output.flush().expect("the parent listens");
}

// The gate is before and after each call that changes something or that a decision depends on.

#[async_trait]
impl Hooks for Gate {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        match call {
            Call::Read(_) => self.step("before a read").await,
            Call::Commit(_) => self.step("before a commit").await,
            _ => {}
        }
        Ok(())
    }

    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        match call {
            Call::Read(_) => self.step("after the read").await,
            Call::Commit(_) => self.step("after the commit").await,
            _ => {}
        }
        Ok(())
    }
}

#[async_trait]
impl CallHooks for Gate {
    async fn before(&self, _: &str) {
        self.step("before the call").await;
    }

    async fn after(&self, _: &str) {
        self.step("after the response").await;
    }
}

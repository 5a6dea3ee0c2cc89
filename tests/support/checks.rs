//! Lists of checks, to be run one after the other on a database that takes long to start.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slack_installs::backend::{Backend, CacheOptions, CachedBackend};

/// One check of a list.
#[derive(Clone, Copy)]
pub struct Check<T> {
    pub name: &'static str,
    pub run: fn(T) -> Pin<Box<dyn Future<Output = ()>>>,
}

/// A list of checks, of one list of names in this module.
#[allow(unused_macros, reason = "not every test file runs lists")]
macro_rules! checks {
    ($module:path; $($check:ident)*) => {{
        use $module::*;
        [$($crate::support::checks::Check {
            name: stringify!($check),
            run: |on| Box::pin($check(on)),
        }),*]
    }};
}

/// A database, and how each process of an app reaches it.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
    way: fn(Arc<dyn Backend>) -> Arc<dyn Backend>,
}

impl Database {
    /// Processes ask the database itself.
    pub fn plain(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            way: |backend| backend,
        }
    }

    /// Each process has a cache of its own, with the bound that it has by default: it may see
    /// what another process wrote two seconds late.
    pub fn cached(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            way: |backend| Arc::new(CachedBackend::new(backend, CacheOptions::default())),
        }
    }

    /// The database as one more process sees it.
    pub fn process(&self) -> Arc<dyn Backend> {
        (self.way)(Arc::clone(&self.backend))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

/// Polls until it holds. That it never does is a failure of the test.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Far longer than anything takes, even on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

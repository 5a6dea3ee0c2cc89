//! Lists of checks that run one after the other on a database that is slow to start.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slack_installs::backend::Backend;
use slack_installs::{CacheOptions, EncryptedStore};

/// One check of a list.
#[derive(Clone, Copy)]
pub struct Check<T> {
    pub name: &'static str,
    pub run: fn(T) -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Makes a list of checks from the names of their functions.
#[allow(unused_macros, reason = "not every test file runs lists")]
macro_rules! checks {
    ($($check:ident)*) => {
        [$($crate::support::checks::Check {
            name: stringify!($check),
            run: |on| Box::pin($check(on)),
        }),*]
    };
}

/// Asserts that a value matches a pattern. A failure prints the value.
#[allow(unused_macros, reason = "not every test file has one")]
macro_rules! assert_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)?) => {
        match $value {
            $pattern $(if $guard)? => {}
            ref other => panic!("{other:?}"),
        }
    };
    ($value:expr, $pattern:pat $(if $guard:expr)?, $($text:tt)+) => {
        match $value {
            $pattern $(if $guard)? => {}
            ref other => panic!("{}: {other:?}", format_args!($($text)+)),
        }
    };
}

/// A database, and whether each process of an app has a cache.
#[derive(Clone)]
pub struct Database {
    pub backend: Arc<dyn Backend>,
    pub cache: Option<CacheOptions>,
}

impl Database {
    /// Gives each process its own cache: it may see another process's writes this much later.
    pub fn cached(self, max_age: Duration) -> Self {
        let options = CacheOptions {
            max_age,
            ..CacheOptions::default()
        };
        Self {
            cache: Some(options),
            ..self
        }
    }

    /// Returns the store of one more process.
    pub fn process<B: Backend>(&self, store: EncryptedStore<B>) -> EncryptedStore<B> {
        match self.cache {
            Some(options) => store.with_cache(options),
            None => store,
        }
    }
}

impl<B: Backend + ?Sized> From<Arc<B>> for Database {
    fn from(backend: Arc<B>) -> Self {
        Self {
            backend: Arc::new(backend),
            cache: None,
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

/// Polls until the condition holds. Panics if it does not hold within a minute.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Far longer than any condition takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

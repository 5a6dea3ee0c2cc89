//! The spans of the crate's operations. All have the same fields, so that one query finds a tenant
//! in all of them.
//!
//! `authorize` runs for each request, so its span has the level DEBUG. The other operations are
//! rare, and their spans have the level INFO.

use std::fmt::Display;
use std::future::Future;

use tokio::time::Instant;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Level, Span};

/// The span of one operation.
pub(crate) struct Operation(Span);

/// How an operation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ended {
    outcome: &'static str,
    cause: Option<&'static str>,
}

impl Ended {
    pub(crate) fn well(outcome: &'static str) -> Self {
        let cause = None;
        Self { outcome, cause }
    }

    pub(crate) fn badly(outcome: &'static str, cause: &'static str) -> Self {
        let cause = Some(cause);
        Self { outcome, cause }
    }
}

/// Makes a function that opens the span of one operation. The name of a span is a constant.
macro_rules! operations {
    ($($level:ident $name:ident)*) => {
        $(pub(crate) fn $name() -> Operation {
            Operation(tracing::span!(
                Level::$level,
                stringify!($name),
                tenant = Empty,
                app = Empty,
                kind = Empty,
                outcome = Empty,
                cause = Empty,
                duration = Empty
            ))
        })*
    };
}

operations! {
    INFO install
    DEBUG authorize
    INFO refresh
    INFO lifecycle
    INFO purge
    INFO reseal
}

impl Operation {
    /// Adds the tenant: the id of its installation.
    pub(crate) fn tenant(&self, tenant: impl Display) -> &Self {
        self.0.record("tenant", display(tenant));
        self
    }

    /// Adds the id of the app.
    pub(crate) fn app(&self, app: impl Display) -> &Self {
        self.0.record("app", display(app));
        self
    }

    /// Adds what the operation is about: a name from a fixed list.
    pub(crate) fn kind(&self, kind: &'static str) -> &Self {
        self.0.record("kind", kind);
        self
    }

    /// Does this work in the span. At its end, adds its outcome, its cause, and its duration in
    /// seconds.
    pub(crate) async fn run<T>(
        self,
        work: impl Future<Output = T>,
        judge: impl FnOnce(&Self, &T) -> Ended,
    ) -> T {
        if self.0.is_disabled() {
            return work.await;
        }
        let begun = Instant::now();
        let done = work.instrument(self.0.clone()).await;
        let ended = judge(&self, &done);
        self.0.record("outcome", ended.outcome);
        if let Some(cause) = ended.cause {
            self.0.record("cause", cause);
        }
        self.0.record("duration", begun.elapsed().as_secs_f64());
        done
    }
}

//! A store whose log is in its own database.

use futures_util::TryStreamExt as _;
use slack_installs::audit::{Audit, Filter, LogRecord, records};

use super::log::Log;
use crate::support::Store;

/// The event, the row, the outcome and the actor of an act.
pub(crate) type RowAct = (String, String, String, Option<String>);

/// A store that reports to a log in strict mode.
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) audit: Audit,
    pub(crate) store: Store,
}

impl World {
    pub(crate) async fn new() -> Self {
        let log = Log::new().await;
        let audit = log.open(log.options().strict()).await;
        let store = log.store.clone().with_witness(audit.clone());
        Self { log, audit, store }
    }

    /// Returns the event, the row, the outcome and the actor of each act, in their order.
    pub(crate) async fn acts(&self) -> Vec<RowAct> {
        let records = self.records(Filter::default()).await.into_iter();
        let acts = records.filter_map(|record| {
            let detail = record.detail?;
            let public = record.public;
            Some((public.event, detail.row, public.outcome, detail.actor))
        });
        acts.collect()
    }

    pub(crate) async fn records(&self, filter: Filter) -> Vec<LogRecord> {
        let records = records(&self.log.store, filter);
        records.try_collect().await.expect("the database is up")
    }
}

//! Reads what a log has, from its rows.

use serde_json::Value;
use slack_installs::EncryptedStore;
use slack_installs::backend::{Backend, Key, Row, Scope};
use slack_installs::store::RunId;

/// What a run of the log has.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) records: u64,
    /// The events that the records stand for.
    pub(crate) acts: u64,
    /// The events that were lost in gaps.
    pub(crate) lost: u64,
}

pub(crate) async fn counted<B: Backend>(store: &EncryptedStore<B>, run: RunId) -> Counted {
    let mut counted = Counted::default();
    for (_, row) in rows(store, &format!("/audit/{run}")).await {
        let facts: Value = serde_json::from_str(row.metadata.as_str()).unwrap();
        for record in facts["records"].as_array().unwrap() {
            let count = record["count"].as_u64().unwrap();
            counted.records += 1;
            match record["event"].as_str() {
                Some("gap") => counted.lost += count,
                _ => counted.acts += count,
            }
        }
    }
    counted
}

/// Returns the rows of all partitions whose name ends or continues like this.
pub(crate) async fn rows<B: Backend>(store: &EncryptedStore<B>, name: &str) -> Vec<(Key, Row)> {
    let (mut rows, mut from) = (Vec::new(), None);
    loop {
        let page = store.backend().scan(&Scope::Everything, from, 500).await;
        let page = page.unwrap();
        let found = page.rows.into_iter();
        rows.extend(found.filter(|(key, _)| key.partition.as_str().contains(name)));
        from = page.next;
        if from.is_none() {
            return rows;
        }
    }
}

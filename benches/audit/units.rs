//! The write units of the log on DynamoDB: one for each kilobyte of an item, rounded up.

use std::sync::Arc;

use slack_installs::EncryptedStore;
use slack_installs::audit::{Audit, AuditOptions};
use slack_installs::backend::{Key, Row};

use super::{fill, log, options, turns};

/// Prints the units of 1,000 reads in each mode.
pub(crate) async fn print() {
    println!("DynamoDB, write units per 1,000 reads of 1,000 tenants:");
    let strict = || options().strict();
    for (name, options, callers) in [
        ("default mode", options(), 64),
        ("strict mode, 64 callers", strict(), 64),
        ("strict mode, 1 caller", strict(), 1),
    ] {
        let (batches, units, keys) = measured(options, callers).await;
        println!("  {name:24} {units:6} units in {batches} batches; once for the keys: {keys}");
    }
}

async fn measured(options: AuditOptions, callers: usize) -> (usize, usize, usize) {
    let backend = fill::memory(TENANTS).await;
    let store = EncryptedStore::open(backend, fill::keys(), super::app()).await;
    let store = store.unwrap();
    let audit = Audit::open(Arc::new(store.clone()), options).await.unwrap();
    let run = audit.current_run().unwrap();
    let logged = store.clone().with_witness(audit.clone());
    turns::at_once(&logged, TENANTS, callers, READS, 1).await;
    audit.close().await;
    let batches = log::rows(&store, &format!("/audit/{run}")).await;
    let keys = log::rows(&store, "/audit-").await;
    let count = |rows: &[(Key, Row)]| rows.iter().map(units).sum();
    (batches.len(), count(&batches), count(&keys))
}

/// The size of an item is that of its names and values. `docs/storage.md` describes the item.
fn units((key, row): &(Key, Row)) -> usize {
    let names = "pk".len() + "sk".len() + "version".len() + "metadata".len() + "sealed".len();
    let (partition, slot) = (key.partition.as_str(), key.slot.as_str());
    let place = partition.len() + slot.len() + row.version.as_bytes().len();
    let content = row.metadata.as_str().len() + row.sealed.as_bytes().len();
    (names + place + content).div_ceil(1024)
}

const TENANTS: usize = 1000;
const READS: usize = 1000;

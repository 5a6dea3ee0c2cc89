//! Attacks on a log with many records.

use serde_json::{Value, json};
use slack_installs::audit::Fault;
use slack_installs::backend::{Key, Row, Slot};
use slack_installs::store::{Act, ActKind, AuditContext, RunId, Witness as _};

use super::log::{Log, tenant};

/// A log of so many reads, in one run that has ended, and the rows of its batches.
struct Many {
    log: Log,
    run: RunId,
    batches: Vec<(Key, Row)>,
}

impl Many {
    async fn new(reads: usize) -> Self {
        let log = Log::new().await;
        let audit = log.open(log.options().strict()).await;
        let run = audit.current_run().expect("it runs");
        // Another run sees it, and proves what is missing.
        for nth in (0..reads).step_by(1000) {
            let read = |nth| Act::new(ActKind::Open, Some(tenant(nth % 7)), "bot");
            let acts = (nth..reads.min(nth + 1000)).map(read).collect();
            let reported = audit.report(AuditContext::actor("job"), acts).await;
            reported.expect("the database is up");
        }
        let _other = log.run_of(1).await;
        assert!(audit.close().await);
        let mut batches = log.db.rows().await;
        batches.retain(|(key, _)| key.partition.as_str().ends_with(&format!("audit/{run}")));
        log.assert_found(&[]).await;
        Self { log, run, batches }
    }

    /// Returns the number of the first record of a batch.
    fn first(&self, place: usize) -> u64 {
        let facts: Value =
            serde_json::from_str(self.batches[place].1.metadata.as_str()).expect("JSON");
        facts["records"][0]["sequence"].as_u64().expect("a number")
    }

    /// Asserts what is found, and puts the batches back.
    async fn assert_found(&self, record: u64, fault: Fault) {
        self.log.assert_found(&[(self.run, record, fault)]).await;
        for (key, row) in &self.batches {
            self.log.db.overwrite(key, row.clone()).await;
        }
    }

    async fn edit(&self, place: usize, edit: impl FnOnce(&mut Vec<Value>)) {
        let place = u64::try_from(place).expect("a count");
        self.log.edit(self.run, place, edit).await;
    }
}

async fn is_attacked(reads: usize) {
    let many = Many::new(reads).await;
    let (log, run, batches) = (&many.log, many.run, &many.batches);
    let last = batches.len() - 1;
    let total = many.first(last) + 1;
    for place in [2, last / 2, last - 3] {
        let first = many.first(place);
        many.edit(place, |records| records[1]["count"] = json!(2))
            .await;
        many.assert_found(first + 1, Fault::Edited).await;
        many.edit(place, |records| drop(records.remove(1))).await;
        many.assert_found(first + 1, Fault::Deleted).await;
        many.edit(place, |records| records.swap(1, 2)).await;
        many.assert_found(first + 1, Fault::Reordered).await;
        many.edit(place, |records| records.insert(2, records[1].clone()))
            .await;
        many.assert_found(first + 1, Fault::Duplicated).await;
        log.db.remove(&batches[place].0).await;
        many.assert_found(first, Fault::Deleted).await;
        log.db
            .overwrite(&batches[place].0, batches[place + 1].1.clone())
            .await;
        log.db
            .overwrite(&batches[place + 1].0, batches[place].1.clone())
            .await;
        many.assert_found(first, Fault::Reordered).await;
        for (key, _) in &batches[place..] {
            log.db.remove(key).await;
        }
        many.assert_found(first, Fault::Truncated).await;
    }
    // The newest signed head, with the end.
    for (key, _) in &batches[last - 1..] {
        log.db.remove(key).await;
    }
    many.assert_found(total - 2, Fault::Truncated).await;
    let (key, row) = batches[last / 2].clone();
    let slot = Slot::new(format!("{:010}", last + 1)).expect("a name");
    let twice = Key { slot, ..key };
    log.db.overwrite(&twice, row).await;
    log.assert_found(&[(run, many.first(last / 2), Fault::Duplicated)])
        .await;
    log.db.remove(&twice).await;
    for (key, _) in batches {
        log.db.remove(key).await;
    }
    many.assert_found(0, Fault::RunDropped).await;
    let (entry, row) = log.db.row("audit-runs", &run.to_string()).await;
    log.db.remove(&entry).await;
    many.assert_found(0, Fault::RegistryDropped).await;
    // Both: the other run still names it.
    for (key, _) in batches {
        log.db.remove(key).await;
    }
    many.assert_found(0, Fault::RunDropped).await;
    log.db.overwrite(&entry, row).await;
    log.assert_found(&[]).await;
}

#[tokio::test]
async fn each_attack_on_many_reads_is_found_at_its_place_under_its_name() {
    is_attacked(2000).await;
}

#[tokio::test]
#[ignore = "takes minutes without optimisation"]
async fn each_attack_on_100_000_reads_is_found_at_its_place_under_its_name() {
    is_attacked(100_000).await;
}

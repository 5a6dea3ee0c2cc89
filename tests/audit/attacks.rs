//! Attacks on a log in the database. Each is found at the right record, under the right name.

use serde_json::{Value, json};
use slack_installs::audit::{Ending, Fault, HeadError, SigningKey, VerifyOptions, has_log, verify};
use slack_installs::backend::{Key, Slot};
use slack_installs::store::{Act, ActKind, AuditContext, Witness as _};

use super::log::{Log, found, key, tenant};
use super::modes::Slow;
use crate::support::checks::until;
use crate::support::installs::noon;

/// A run of 203 records: batch 0 has `start`, batches 1 to 4 have the acts 1 to 200, batch 5 has
/// `head`, batch 6 has `end`.
const ACTS: usize = 200;
const RECORDS: u64 = 203;

/// The first record of batch 2.
const SECOND: u64 = 65;

#[tokio::test]
async fn a_log_that_nobody_changed_verifies_and_opens() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    // A file can have the heads of several apps.
    let mut heads = log.kept.heads();
    let mut other = heads[0].clone();
    (other.app, other.run) = ("1.2".to_owned(), "0f".repeat(16));
    heads.push(other);
    let report = log.verify(heads).await;
    assert_eq!(report.findings, []);
    assert!(report.is_anchored);
    let [found] = &report.runs[..] else {
        panic!("one run: {report:?}");
    };
    assert_eq!((found.run, found.records), (run, RECORDS));
    assert_eq!(
        (found.ending, found.erased, found.lost),
        (Ending::Ended, 0, 0)
    );
    assert_eq!(found.anchored, RECORDS - 2);
}

#[tokio::test]
async fn an_edited_record_is_named_whichever_field_was_changed() {
    let edits: [(&str, Value); 7] = [
        ("sequence", json!(7)),
        ("time", json!(1)),
        ("event", json!("open")),
        ("outcome", json!("failed")),
        ("count", json!(2)),
        ("payload", json!("00")),
        ("previous", json!("00")),
    ];
    for (field, value) in edits {
        for nth in [0, 10, 63] {
            let log = Log::new().await;
            let run = log.run_of(ACTS).await;
            let edit = |records: &mut Vec<Value>| records[nth][field] = value.clone();
            log.edit(run, 2, edit).await;
            let record = SECOND + u64::try_from(nth).expect("small");
            log.assert_found(&[(run, record, Fault::Edited)]).await;
        }
    }
}

#[tokio::test]
async fn the_first_and_the_last_record_of_a_run_are_named_too() {
    for (place, record) in [(0, 0), (6, RECORDS - 1)] {
        let log = Log::new().await;
        let run = log.run_of(ACTS).await;
        log.edit(run, place, |records| records[0]["time"] = json!(1))
            .await;
        log.assert_found(&[(run, record, Fault::Edited)]).await;
    }
}

#[tokio::test]
async fn a_deleted_record_or_batch_is_named() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let delete = |records: &mut Vec<Value>| drop(records.remove(10));
    log.edit(run, 2, delete).await;
    log.assert_found(&[(run, SECOND + 10, Fault::Deleted)])
        .await;

    for place in [0, 2, 4, 5] {
        let log = Log::new().await;
        let run = log.run_of(ACTS).await;
        let (key, _) = log.batch(run, place).await;
        log.db.remove(&key).await;
        let first = [0, 1, SECOND, 129, 193, 201][usize::try_from(place).expect("small")];
        log.assert_found(&[(run, first, Fault::Deleted)]).await;
    }
}

#[tokio::test]
async fn records_or_batches_that_changed_places_are_named() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let swap = |records: &mut Vec<Value>| records.swap(10, 11);
    log.edit(run, 2, swap).await;
    log.assert_found(&[(run, SECOND + 10, Fault::Reordered)])
        .await;

    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let (two, three) = (log.batch(run, 2).await, log.batch(run, 3).await);
    log.db.overwrite(&two.0, three.1).await;
    log.db.overwrite(&three.0, two.1).await;
    log.assert_found(&[(run, SECOND, Fault::Reordered)]).await;
}

#[tokio::test]
async fn a_duplicated_record_or_batch_is_named() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let twice = |records: &mut Vec<Value>| records.insert(11, records[10].clone());
    log.edit(run, 2, twice).await;
    log.assert_found(&[(run, SECOND + 10, Fault::Duplicated)])
        .await;

    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let (key, row) = log.batch(run, 2).await;
    let slot = Slot::new(format!("{:010}", 7)).expect("a name");
    log.db.overwrite(&Key { slot, ..key }, row).await;
    log.assert_found(&[(run, SECOND, Fault::Duplicated)]).await;
}

#[tokio::test]
async fn a_truncated_run_says_after_which_record_it_ends() {
    // The last batch, the newest signed head with it, and everything after the first batch.
    for (from, records) in [(6, RECORDS - 1), (5, RECORDS - 2), (2, SECOND)] {
        let log = Log::new().await;
        let run = log.run_of(ACTS).await;
        for place in from..7 {
            let (key, _) = log.batch(run, place).await;
            log.db.remove(&key).await;
        }
        log.assert_found(&[(run, records, Fault::Truncated)]).await;
        // The database proves it, so it is not called rolled back.
        let report = log.verify(log.kept.heads()).await;
        let found: Vec<_> = report.findings.iter().map(|it| it.fault).collect();
        assert_eq!(found, [Fault::Truncated]);
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_is_missed_by_the_registry_and_by_a_later_run() {
    for drops_entry in [false, true] {
        let log = Log::new().await;
        // It has not ended when the second run begins.
        let audit = log.open(log.options()).await;
        let run = audit.current_run().expect("it runs");
        let act = Act::new(ActKind::Write, Some(tenant(1)), "bot");
        audit
            .report(AuditContext::default(), vec![act])
            .await
            .expect("reported");
        let _second = log.run_of(10).await;
        assert!(audit.close().await);
        log.assert_found(&[]).await;
        for place in 0..=log.last_place(run).await.expect("it has batches") {
            let (key, _) = log.batch(run, place).await;
            log.db.remove(&key).await;
        }
        if drops_entry {
            let (key, _) = log.db.row("audit-runs", &run.to_string()).await;
            log.db.remove(&key).await;
        }
        log.assert_found(&[(run, 0, Fault::RunDropped)]).await;
    }
}

#[tokio::test]
async fn a_dropped_or_edited_entry_of_the_registry_is_named() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let (key, row) = log.db.row("audit-runs", &run.to_string()).await;
    log.db.remove(&key).await;
    log.assert_found(&[(run, 0, Fault::RegistryDropped)]).await;
    let text = row.metadata.as_str().replace("true", "false");
    let metadata = slack_installs::backend::Metadata::new(text);
    let edited = slack_installs::backend::Row { metadata, ..row };
    log.db.overwrite(&key, edited).await;
    log.assert_found(&[(run, 0, Fault::RegistryEdited)]).await;
}

#[tokio::test]
async fn a_log_whose_whole_registry_was_dropped_is_there_and_is_named() {
    let log = Log::new().await;
    let slow = Slow::of(&log);
    assert!(!has_log(&*slow).await.expect("the database is up"));
    let run = log.run_of(10).await;
    assert!(has_log(&*slow).await.expect("the database is up"));
    let (key, _) = log.db.row("audit-runs", &run.to_string()).await;
    log.db.remove(&key).await;
    assert!(has_log(&*slow).await.expect("the database is up"));
    let report = verify(&*slow, &VerifyOptions::default()).await;
    let report = report.expect("the database is up");
    assert_eq!(found(&report), [(run, 0, Fault::RegistryDropped)]);
}

#[tokio::test]
async fn a_replay_of_yesterdays_log_is_found_with_an_anchor_and_with_nothing_else() {
    let log = Log::new().await;
    let audit = log.open(log.options()).await;
    let run = audit.current_run().expect("it runs");
    let yesterday = log.db.rows().await;
    let act = Act::new(ActKind::Write, Some(tenant(1)), "bot");
    audit
        .report(AuditContext::default(), vec![act])
        .await
        .expect("reported");
    assert!(audit.close().await);
    let second = log.run_of(10).await;
    let heads = log.kept.heads();
    assert_eq!(heads.len(), 2);
    for (key, _) in log.db.rows().await {
        log.db.remove(&key).await;
    }
    for (key, row) in yesterday {
        log.db.overwrite(&key, row).await;
    }
    let report = log.verify(Vec::new()).await;
    assert_eq!((report.findings.len(), report.is_anchored), (0, false));
    assert_eq!(report.runs[0].ending, Ending::Open);
    let report = log.verify(heads).await;
    let mut found = found(&report);
    found.sort_by_key(|(it, ..)| *it != run);
    let expected = [(run, 1, Fault::RolledBack), (second, 0, Fault::RunDropped)];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn who_has_the_data_key_too_cannot_change_a_record() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    log.forge(run, 2, |batch| batch.records[10].time = 1).await;
    log.assert_found(&[(run, SECOND + 10, Fault::Edited)]).await;

    // The sealed part alone: the row opens, and the hash in the record does not fit.
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    log.forge(run, 2, |batch| {
        let other = batch.plain[11].clone();
        batch.plain[10] = other;
    })
    .await;
    log.assert_found(&[(run, SECOND + 10, Fault::Edited)]).await;
}

#[tokio::test]
async fn a_sealed_part_that_does_not_open_is_told_from_an_edited_record() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    let (key, row) = log.batch(run, 2).await;
    let mut sealed = row.sealed.as_bytes().to_vec();
    *sealed.last_mut().expect("bytes") ^= 1;
    let sealed = slack_installs::backend::Sealed::from_stored(sealed);
    let row = slack_installs::backend::Row { sealed, ..row };
    log.db.overwrite(&key, row).await;
    log.assert_found(&[(run, SECOND, Fault::Unreadable)]).await;
}

/// Who has a key of an earlier epoch, which still counts as valid, signs nothing after a newer one.
#[tokio::test]
async fn a_head_that_an_older_key_signed_after_a_newer_one_is_named() {
    let log = Log::new().await;
    let audit = log.open(log.options()).await;
    assert!(audit.close().await);
    let newer = SigningKey::from_bytes(&[8; 32], 2);
    let keys = vec![
        key().verifying_key(noon(), None),
        newer.verifying_key(noon(), None),
    ];
    until("the head is kept", async || log.kept.heads().len() == 1).await;
    let old = log.kept.heads().remove(0).to_line();
    let audit = log.open(log.options().signed_by(newer)).await;
    let run = audit.current_run().expect("it runs");
    assert!(audit.close().await);
    // Its batches are `start`, `head` and `end`.
    log.forge(run, 2, |batch| {
        (batch.records[0].event, batch.records[0].note) = ("head".to_owned(), old);
    })
    .await;
    let options = VerifyOptions {
        keys,
        ..VerifyOptions::default()
    };
    let report = verify(&log.store, &options).await.expect("read");
    let found = found(&report);
    assert_eq!(found, [(run, 2, Fault::Head(HeadError::Period))]);
}

#[tokio::test]
async fn a_head_that_the_trusted_key_did_not_sign_is_named() {
    let log = Log::new().await;
    let run = log.run_of(ACTS).await;
    log.forge(run, 5, |batch| {
        let mut head: Value = serde_json::from_str(&batch.records[0].note).expect("a head");
        head["time"] = json!(head["time"].as_u64().expect("a time") + 1);
        batch.records[0].note = head.to_string();
    })
    .await;
    let fault = Fault::Head(HeadError::Signature);
    log.assert_found(&[(run, RECORDS - 2, fault)]).await;
}

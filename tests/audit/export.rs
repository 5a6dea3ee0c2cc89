//! A log as lines, which is verified without its database: by this crate and by another
//! implementation.

use std::collections::HashMap;
use std::process::Command;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use slack_installs::ClientId;
use slack_installs::audit::{
    ExportedLog, Filter, LogRecord, SignedHead, VerifyOptions, records, verify,
};
use slack_installs::store::{Act, ActKind, AuditContext, RunId, Witness as _};

use super::log::{Log, key, tenant, write};
use crate::support::installs::noon;

/// An exported log, and its anchor.
struct Export {
    app: ClientId,
    lines: Vec<String>,
    anchor: Vec<SignedHead>,
    /// The run that has ended, with 10 acts, and the one that began before and ended after it.
    runs: [RunId; 2],
}

/// What is wrong: the run, the record and the fault.
type Found = Vec<(String, u64, String)>;

impl Export {
    async fn new() -> Self {
        let log = Log::new().await;
        let long = log.open(log.options().with_capacity(60)).await;
        let runs = long.current_run().expect("it runs");
        let ended = log.run_of(10).await;
        let read = Act::new(ActKind::Open, Some(tenant(3)), "bot");
        let mut failed = read.clone();
        failed.is_done = false;
        let reported = long
            .report(AuditContext::default(), vec![read, failed])
            .await;
        reported.expect("nothing fails in the default mode");
        // A gap, and an erased tenant.
        for _ in 0..3 {
            let acts = (0..50).map(write).collect();
            let reported = long.report(AuditContext::actor("job"), acts).await;
            reported.expect("nothing fails in the default mode");
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(long.erase(&tenant(1)).await.expect("erased"));
        assert!(long.close().await);
        let records = records(&log.store, Filter::default());
        let records: Vec<LogRecord> = records.try_collect().await.expect("the database is up");
        Self {
            app: log.db.app.clone(),
            lines: records.iter().map(LogRecord::to_line).collect(),
            anchor: log.kept.heads(),
            runs: [ended, runs],
        }
    }

    /// Returns the places of a run's lines.
    fn of(&self, run: RunId) -> Vec<usize> {
        let is_of = |line: &str| line.contains(&format!(r#"{{"run":"{run}""#));
        let lines = self.lines.iter().enumerate();
        lines
            .filter(|(_, line)| is_of(line))
            .map(|(nth, _)| nth)
            .collect()
    }

    /// Returns what this crate finds.
    async fn found(&self) -> Found {
        let lines = self.lines.iter().map(String::as_str);
        let log = ExportedLog::read(self.app.clone(), lines).expect("lines");
        let options = VerifyOptions {
            keys: vec![key().verifying_key(noon(), None)],
            anchor: self.anchor.clone(),
        };
        let report = verify(&log, &options).await.expect("no database");
        let found = report.findings.into_iter();
        let mut found: Found = found
            .map(|it| (it.run.to_string(), it.record, format!("{:?}", it.fault)))
            .collect();
        found.sort();
        found
    }

    /// Returns what the other implementation finds.
    fn found_by_python(&self) -> Found {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, lines: Vec<String>| {
            let path = directory.path().join(name);
            let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, lines).expect("written");
            path
        };
        let export = file("export", self.lines.clone());
        let heads = self.anchor.iter().map(SignedHead::to_line).collect();
        let anchor = file("anchor", heads);
        let since = noon().duration_since(std::time::UNIX_EPOCH).expect("later");
        let public = key().verifying_key(noon(), None);
        let public: String = public
            .as_bytes()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        let python = std::env::var_os("SLACK_INSTALLS_PYTHON").unwrap_or_else(|| "python3".into());
        let output = Command::new(python)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["-B", "tests/audit/verify.py", self.app.as_str()])
            .args([export, anchor])
            .arg(format!("1:{}::{public}", since.as_millis()))
            .output()
            .expect("`scripts/test` sets Python up, or name one in SLACK_INSTALLS_PYTHON");
        let (out, err) = (output.stdout, output.stderr);
        let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
        assert!(output.status.success(), "{out}{err}");
        let mut lines: Vec<_> = out.lines().collect();
        let count = format!("{} records", self.lines.len());
        assert!(
            lines.pop().is_some_and(|line| line.contains(&count)),
            "{out}"
        );
        let found = lines.into_iter().map(|line| {
            let [run, record, fault] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            (
                run.to_owned(),
                record.parse().expect("a number"),
                fault.to_owned(),
            )
        });
        found.collect()
    }

    async fn assert_both_find(&self, run: RunId, record: u64, fault: &str) {
        let expected = vec![(run.to_string(), record, fault.to_owned())];
        assert_eq!(self.found().await, expected);
        assert_eq!(self.found_by_python(), expected);
    }
}

#[tokio::test]
async fn an_exported_log_verifies_without_its_database_also_for_another_implementation() {
    let export = Export::new().await;
    let events = export
        .lines
        .iter()
        .fold(HashMap::new(), |mut events, line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let event = line["event"].as_str().expect("a text").to_owned();
            *events.entry(event).or_insert(0) += 1;
            events
        });
    for event in [
        "start", "saw", "open", "write", "head", "gap", "erased", "end",
    ] {
        assert!(events.contains_key(event), "{event}: {events:?}");
    }
    assert!(
        export
            .lines
            .iter()
            .any(|line| line.contains(r#""erased":""#))
    );
    assert_eq!(export.found().await, []);
    assert_eq!(export.found_by_python(), []);
}

#[tokio::test]
async fn this_crate_and_another_implementation_find_the_same_changes_of_an_export() {
    let export = || Export::new();
    let edits: [(&str, Value); 6] = [
        ("time", json!(1)),
        ("event", json!("open")),
        ("count", json!(2)),
        ("sealed", json!("{}")),
        ("payload", json!("00")),
        ("previous", json!("00")),
    ];
    for (field, value) in edits {
        let mut export = export().await;
        let at = export.of(export.runs[0])[6];
        let mut line: Value = serde_json::from_str(&export.lines[at]).expect("JSON");
        line[field] = value;
        export.lines[at] = line.to_string();
        let run = export.runs[0];
        // The keys of `Value` are sorted, so the line no longer begins with the run.
        export.assert_both_find(run, 6, "Edited").await;
    }

    let mut deleted = export().await;
    let run = deleted.runs[0];
    deleted.lines.remove(deleted.of(run)[5]);
    deleted.assert_both_find(run, 5, "Deleted").await;

    let mut swapped = export().await;
    let run = swapped.runs[0];
    let at = swapped.of(run);
    swapped.lines.swap(at[4], at[5]);
    swapped.assert_both_find(run, 4, "Reordered").await;

    let mut duplicated = export().await;
    let run = duplicated.runs[0];
    let at = duplicated.of(run)[4];
    let line = duplicated.lines[at].clone();
    duplicated.lines.insert(at + 1, line);
    duplicated.assert_both_find(run, 4, "Duplicated").await;

    let mut truncated = export().await;
    let run = truncated.runs[0];
    // The head and the end too.
    for at in truncated.of(run).into_iter().skip(8).rev() {
        truncated.lines.remove(at);
    }
    truncated.assert_both_find(run, 8, "RolledBack").await;

    let mut dropped = export().await;
    let run = dropped.runs[1];
    for at in dropped.of(run).into_iter().rev() {
        dropped.lines.remove(at);
    }
    // It had the record that tenant 1 was erased.
    let mut expected = vec![
        (dropped.runs[0].to_string(), 3, "KeyMissing".to_owned()),
        (run.to_string(), 0, "RunDropped".to_owned()),
    ];
    expected.sort();
    assert_eq!(dropped.found().await, expected);
    assert_eq!(dropped.found_by_python(), expected);

    // All hashes after a change are made to fit. Only the signed head shows it.
    let mut forged = export().await;
    let run = forged.runs[0];
    forged.anchor[0].hash = "00".repeat(32);
    let found = forged.found_by_python();
    assert_eq!(found[0].2, "Head");
    assert_eq!(forged.found().await[0].2, "Head(Signature)");
    assert_eq!(found[0].0, forged.anchor[0].run);
    assert!(
        found
            .iter()
            .all(|it| it.0 == run.to_string() || it.2 == "Head")
    );
}

#[tokio::test]
async fn a_line_that_is_no_record_is_named_by_its_number() {
    let app = ClientId::new("1.2").expect("an id");
    let export = Export::new().await;
    for other in ["", "{}", r#"{"run":"00"}"#] {
        let lines = [export.lines[0].as_str(), other];
        let refused = ExportedLog::read(app.clone(), lines).expect_err("no record");
        assert_eq!(refused.line, 2, "{other}");
    }
}

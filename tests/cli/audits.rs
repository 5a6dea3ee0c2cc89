//! The commands of the audit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slack_installs::audit::{Audit, AuditOptions, FileSink, SigningKey};
use slack_installs::store::AuditContext;
use slack_installs::{Clock, InstallationStore as _};

use super::{House, ago, kinds};
use crate::support::app::{ADA, ALPHA, BRAVO, key};
use crate::support::checks::until;
use crate::support::leaks::leaks;
use slack_installs::backend::{Backend as _, Change, Expect, Key, Partition, Row, Scope, Version};

/// An app whose log says that a job read a token. Also returns the public key.
pub(crate) async fn house() -> (House, String) {
    let house = House::new().await;
    house.install(ADA).await;
    let public = log(&house).await;
    (house, public)
}

/// Begins a log of this app, and reads a token. Returns the public key of the log.
pub(crate) async fn log(house: &House) -> String {
    let store = house.app.store.clone();
    let signer = SigningKey::from_bytes(&[7; 32], 1);
    let public = signer.verifying_key(std::time::SystemTime::UNIX_EPOCH, None);
    let public = hex(public.as_bytes());
    let options = AuditOptions::default()
        .signed_by(signer)
        .with_sink(FileSink::new(house.path("heads.jsonl")));
    let audit = Audit::open(Arc::new(store.clone()), options).await;
    let audit = audit.expect("opens");
    audit.note_rows(&store).await.expect("the database is up");
    let store = store.with_witness(audit.clone());
    let read = async { store.fetch(&key(ALPHA), None).await };
    let context = AuditContext::actor("nightly-report").because("invoice");
    let read = context.scope(read).await;
    assert!(read.expect("the database is up").is_some());
    assert!(audit.close().await);
    let heads = house.path("heads.jsonl");
    until("the head is kept", async || {
        std::fs::read_to_string(&heads).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    format!("1:{public}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

#[tokio::test]
async fn an_intact_log_verifies_in_the_database_and_as_an_export() {
    let (house, public) = house().await;
    let arguments = [
        "audit",
        "verify",
        "--anchor",
        "heads.jsonl",
        "--public-key",
        &public,
    ];
    let ran = house.run_json(&arguments).await;
    ran.ends(0);
    let json = ran.json();
    assert_eq!(json["is_anchored"], true, "{json}");
    assert!(json["rows"]["rows"].as_u64() > Some(0), "{json}");
    assert_eq!(
        json["rows"]["findings"].as_array().map(Vec::len),
        Some(0),
        "{json}"
    );
    let ran = house.run(&["audit", "verify"]).await;
    assert!(
        ran.ends(0).contains("intact") && ran.out.contains("no anchor"),
        "{ran:?}"
    );

    let export = house.run(&["audit", "export"]).await;
    export.ends(0);
    std::fs::write(house.path("export.jsonl"), &export.out).expect("the directory is ours");
    let mut away = house;
    let client_id = away.values["SLACK_CLIENT_ID"].clone();
    away.values.clear();
    away.set("SLACK_CLIENT_ID", Some(&client_id));
    let file = [&arguments[..2], &["export.jsonl"], &arguments[2..]].concat();
    away.run(&file).await.ends(0);
    // One record is left out.
    let mut lines: Vec<_> = export.out.lines().collect();
    assert!(lines.len() > 3);
    lines.remove(1);
    std::fs::write(away.path("export.jsonl"), lines.join("\n")).expect("the directory is ours");
    let ran = away.run(&file).await;
    assert!(ran.ends(8).contains("record 1"), "{ran:?}");
    std::fs::write(away.path("export.jsonl"), "{}").expect("the directory is ours");
    away.run(&file).await.ends(2);
    for wrong in ["1:00", &format!("{public}00"), &public[2..]] {
        let ran = away.run(&["audit", "verify", "--public-key", wrong]).await;
        ran.ends(2);
        assert!(ran.err.contains("--public-key: expected"), "{ran:?}");
    }
    away.run(&["audit", "verify", "none.jsonl"]).await.ends(2);
}

#[tokio::test]
async fn a_log_that_another_key_signed_is_named_and_an_empty_line_of_an_anchor_is_not() {
    let (house, public) = house().await;
    let heads = std::fs::read_to_string(house.path("heads.jsonl")).expect("a file");
    std::fs::write(house.path("heads.jsonl"), format!("\n{heads}\n")).expect("the file is ours");
    let verify = async |key: &str| {
        let arguments = ["audit", "verify", "--anchor", "heads.jsonl"];
        let keys = ["--public-key", key];
        house.run(&[&arguments[..], &keys].concat()).await
    };
    verify(&public).await.ends(0);
    let other = SigningKey::from_bytes(&[8; 32], 1);
    let other = other.verifying_key(std::time::SystemTime::UNIX_EPOCH, None);
    let ran = verify(&format!("1:{}", hex(other.as_bytes()))).await;
    assert!(ran.ends(8).contains("Head(Signature)"), "{ran:?}");
}

/// An attacker cannot hide the log by its registry.
#[tokio::test]
async fn a_log_without_a_readable_entry_in_its_registry_is_still_verified() {
    let (house, _) = house().await;
    let backend = house.app.store.backend();
    let page = backend.scan(&Scope::Everything, None, 1000).await;
    let rows = page.expect("the database is up").rows.into_iter();
    let entry = rows.filter(|(key, _)| key.partition.name() == "audit-runs");
    let [(key, row)] = &entry.collect::<Vec<_>>()[..] else {
        panic!("one run");
    };
    let damaged = Row {
        version: Version::mint(),
        ..row.clone()
    };
    let put = Change::Put {
        slot: key.slot.clone(),
        row: damaged,
        expect: Expect::Any,
    };
    let delete = Change::Delete {
        slot: key.slot.clone(),
        only: None,
    };
    let run = Partition::new(format!(
        "{}/audit/{}",
        house.app.fake.client_id(),
        key.slot.as_str()
    ));
    let run = run.expect("a name");
    // At last, only the damaged entry is left.
    for (partition, change, fault) in [
        (&key.partition, put.clone(), "RegistryEdited"),
        (&key.partition, delete, "RegistryDropped"),
        (&key.partition, put, "RegistryEdited"),
        (&run, Change::Clear, "RegistryEdited"),
    ] {
        let changed = backend.commit(partition, &[change]).await;
        changed.expect("the database is up");
        let ran = house.run(&["audit", "verify"]).await;
        assert!(ran.ends(8).contains(fault), "{ran:?}");
    }
}

#[tokio::test]
async fn the_last_records_are_in_the_order_of_their_time_and_not_older_than_the_hours() {
    let house = House::new().await;
    house.install(ADA).await;
    let minutes = Arc::new(AtomicU64::new(90));
    let open = async || {
        let minutes = Arc::clone(&minutes);
        let now = move || ago(60 * minutes.load(Ordering::SeqCst));
        let options = AuditOptions::default().with_clock(Clock::from_fn(now));
        let audit = Audit::open(Arc::new(house.app.store.clone()), options).await;
        audit.expect("opens")
    };
    let read = async |audit: &Audit, actor: &str| {
        let store = house.app.store.clone().with_witness(audit.clone());
        for _ in 0..2 {
            let read = async { store.fetch(&key(ALPHA), None).await };
            let read = AuditContext::actor(actor).scope(read).await;
            read.expect("the database is up");
        }
    };
    let long = open().await;
    minutes.store(80, Ordering::SeqCst);
    let short = open().await;
    read(&short, "short").await;
    assert!(short.close().await);
    minutes.store(50, Ordering::SeqCst);
    read(&long, "long").await;
    assert!(long.close().await);
    let opened = async |more: &[&str]| {
        let tail = ["audit", "tail", "--event", "open"];
        let ran = house.run(&[&tail[..], more].concat()).await;
        let lines = ran.ends(0).lines();
        let lines = lines.filter(|line| line.contains(" bot by "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = opened(&[]).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all[0].contains("2 times") && all[0].contains("by short"),
        "{all:?}"
    );
    assert!(all[1].contains("by long"), "{all:?}");
    assert_eq!(opened(&["--hours", "1"]).await, all[1..]);
}

#[tokio::test]
async fn a_row_that_was_written_past_the_log_is_named() {
    let (house, _) = house().await;
    house.damage(ALPHA, "install").await;
    let ran = house.run(&["audit", "verify"]).await;
    let out = ran.ends(8);
    assert!(
        out.contains(ALPHA) && out.contains("install: Unlogged"),
        "{out}"
    );
    assert!(out.contains("`slack-installs audit baseline`"), "{out}");
}

#[tokio::test]
async fn a_row_that_was_removed_past_the_log_is_named_without_the_hint_of_a_baseline() {
    let (house, _) = house().await;
    let (key, _) = house.row(ALPHA, "bot").await;
    let delete = Change::Delete {
        slot: key.slot,
        only: None,
    };
    let backend = house.app.store.backend();
    let removed = backend.commit(&key.partition, &[delete]).await;
    removed.expect("the database is up");
    let ran = house.run(&["audit", "verify"]).await;
    assert!(ran.ends(8).contains("bot: RolledBack"), "{ran:?}");
    assert!(!ran.out.contains("baseline"), "{ran:?}");
}

#[tokio::test]
async fn the_last_records_say_who_had_which_credential_and_conditions_select_them() {
    let (house, _) = house().await;
    let ran = house
        .run(&["audit", "tail", "--actor", "nightly-report"])
        .await;
    let out = ran.ends(0);
    for word in ["open", ALPHA, "by nightly-report", "for invoice"] {
        assert!(out.contains(word), "{word} {out}");
    }
    let ran = house.run_json(&["audit", "tail", "--last", "1"]).await;
    assert_eq!(ran.ends(0).lines().count(), 1, "{ran:?}");
    assert_eq!(ran.json()["event"], "end");
    house
        .run(&["audit", "tail", "--event", "close"])
        .await
        .ends(2);
    for none in [["--of", BRAVO], ["--event", "clear"], ["--actor", "nobody"]] {
        let ran = house.run(&[&["audit", "tail"], &none[..]].concat()).await;
        assert_eq!(ran.ends(0), "", "{none:?}");
    }
    let ran = house
        .run(&["audit", "export", "--hours", "1", "--of", ALPHA])
        .await;
    assert!(ran.ends(0).lines().count() > 1, "{ran:?}");
}

#[tokio::test]
async fn a_tenants_part_is_erased_after_a_confirmation_and_the_log_still_verifies() {
    let (house, _) = house().await;
    let before = house.rows().await;
    house.run(&["audit", "erase", ALPHA]).await.ends(4);
    let ran = house
        .run_json(&["audit", "erase", ALPHA, "--dry-run"])
        .await;
    ran.ends(0);
    assert_eq!(ran.json()["is_dry_run"], true);
    house.run(&["audit", "erase", BRAVO, "--yes"]).await.ends(3);
    house.run(&["audit", "tail"]).await.ends(0);
    house.run(&["audit", "verify"]).await.ends(0);
    assert_eq!(house.rows().await, before);
    house.run(&["audit", "erase", ALPHA, "--yes"]).await.ends(0);
    house.run(&["audit", "erase", ALPHA, "--yes"]).await.ends(3);
    let ran = house.run(&["audit", "tail"]).await;
    assert!(
        ran.ends(0).contains("(erased)") && !ran.out.contains("nightly"),
        "{ran:?}"
    );
    let ran = house.run(&["audit", "verify"]).await;
    assert!(ran.ends(0).contains("intact"), "{ran:?}");
}

#[tokio::test]
async fn without_a_log_each_command_says_so() {
    let house = House::new().await;
    house.install(ADA).await;
    for arguments in [
        &["tail"][..],
        &["verify"],
        &["export"],
        &["erase", ALPHA, "--yes"],
        &["baseline", "--yes"],
        &["baseline", "--dry-run"],
    ] {
        let ran = house.run(&[&["audit"], arguments].concat()).await;
        ran.ends(3);
        assert!(ran.err.contains("no audit log"), "{ran:?}");
    }
}

#[tokio::test]
async fn what_the_program_changes_is_in_the_log_so_that_the_rows_still_agree_with_it() {
    let (house, _) = house().await;
    let freeze = ["freeze", ALPHA, "--reason", "ticket 1", "--yes"];
    house.run(&freeze).await.ends(0);
    let thaw = ["thaw", ALPHA, "--reason", "settled", "--yes"];
    house.run(&thaw).await.ends(0);
    let remove = [
        "webhook",
        "remove",
        ALPHA,
        "--channel",
        "C0GENERAL01",
        "--reason",
        "ticket 2",
        "--yes",
    ];
    house.run(&remove).await.ends(0);
    let refresh = [
        "refresh", ALPHA, "--leaked", "--reason", "ticket 3", "--yes",
    ];
    house.run(&refresh).await.ends(0);
    let freeze = ["freeze", ALPHA, "--reason", "ticket 4", "--yes"];
    house.run(&freeze).await.ends(0);
    let ran = house.run(&["explain", ALPHA]).await;
    let out = ran.ends(0);
    let (_, shown) = out.split_once("\naudit log\n").expect("a section");
    let shown: Vec<_> = shown
        .lines()
        .take_while(|it| it.starts_with("  "))
        .collect();
    assert_eq!(shown.len(), 5, "{out}");
    let last = shown.last().expect("a line");
    assert!(last.contains("by operator for freeze: ticket 4"), "{out}");
    let ran = house.run_json(&["explain", ALPHA]).await;
    let json = ran.json();
    assert_eq!(
        json["audit"]["records"][4]["purpose"], "freeze: ticket 4",
        "{json}"
    );
    house
        .run(&["thaw", ALPHA, "--reason", "t", "--yes"])
        .await
        .ends(0);
    let ran = house.run(&["audit", "tail", "--event", "write"]).await;
    let out = ran.ends(0);
    for purpose in [
        "freeze: ticket 1",
        "webhook remove: ticket 2",
        "refresh: ticket 3",
    ] {
        assert!(
            out.contains(&format!("by operator for {purpose}")),
            "{purpose} {out}"
        );
    }
    let ran = house.run_json(&["audit", "verify"]).await;
    ran.ends(0);
    let json = ran.json();
    assert_eq!(
        json["rows"]["findings"].as_array().map(Vec::len),
        Some(0),
        "{json}"
    );
    assert_eq!(json["rows"]["is_complete"], true, "{json}");
    // Each command has ended its run.
    let runs = json["runs"].as_array().expect("a list");
    assert!(runs.iter().all(|run| run["ending"] == "Ended"), "{json}");
}

#[tokio::test]
async fn no_command_of_the_log_shows_a_token_or_a_key() {
    let (house, _) = house().await;
    let mut seen = String::new();
    for arguments in [
        &["tail", "--last", "1000"][..],
        &["export"],
        &["verify"],
        &["erase", ALPHA, "--yes"],
    ] {
        let arguments = [&["audit"], arguments].concat();
        for ran in [
            house.run_json(&arguments).await,
            house.run(&arguments).await,
        ] {
            seen.push_str(&ran.out);
            seen.push_str(&ran.err);
        }
    }
    assert!(seen.contains("nightly-report"), "{seen}");
    let mut secrets = house.app.fake.secrets();
    secrets.push(house.master_key.clone());
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        assert!(!leaks(seen.as_bytes(), secret), "{} leaks", &secret[..6]);
    }
}

#[tokio::test]
async fn the_reason_of_a_sweep_is_in_the_log() {
    let (house, _) = house().await;
    house.app.fake.uninstall(ALPHA);
    let reconcile = ["reconcile", "--pause", "0", "--reason", "ticket 5", "--yes"];
    let ran = house.run_json(&reconcile).await;
    ran.ends(0);
    assert_eq!(ran.json()["purged"], 1, "{ran:?}");
    let ran = house.run(&["audit", "tail"]).await;
    let out = ran.ends(0);
    assert!(out.contains("by operator for reconcile: ticket 5"), "{out}");
}

#[tokio::test]
async fn doctor_says_whether_the_log_is_intact() {
    let (house, _) = house().await;
    let ran = house.run(&["doctor"]).await;
    let out = ran.ends(0);
    assert!(out.contains("ok      audit: the log of "), "{out}");
    assert!(out.contains("is intact; it was last written "), "{out}");
    // A batch of the log is removed.
    let backend = house.app.store.backend();
    let page = backend.scan(&Scope::Everything, None, 1000).await;
    let rows = page.expect("the database is up").rows;
    let is_batch = |key: &Key| key.partition.name().starts_with("audit");
    let batches: Vec<_> = rows.iter().filter(|(key, _)| is_batch(key)).collect();
    let (batch, _) = batches.first().expect("a batch");
    let delete = Change::Delete {
        slot: batch.slot.clone(),
        only: None,
    };
    let removed = backend.commit(&batch.partition, &[delete]).await;
    removed.expect("the database is up");
    let ran = house.run(&["doctor"]).await;
    let out = ran.ends(1);
    assert!(
        out.contains("failure audit: the log is not intact"),
        "{out}"
    );
    assert!(out.contains("`slack-installs audit verify`"), "{out}");
    let ran = house.run_json(&["doctor"]).await;
    assert_eq!(kinds(&ran.json(), "checks", "name"), ["audit"]);
}

#[tokio::test]
async fn each_change_of_a_data_key_is_in_the_log_with_the_operators_reason() {
    let (house, _) = house().await;
    let keys = async |arguments: &[&str], ticket: &str| {
        let reason = ["--reason", ticket, "--yes"];
        let arguments = [&["keys"], arguments, &reason].concat();
        let ran = house.run_json(&arguments).await;
        ran.ends(0);
        ran.json()["key"].as_str().unwrap_or_default().to_owned()
    };
    let new = keys(&["add"], "ticket 1").await;
    let unused = keys(&["add"], "ticket 2").await;
    keys(&["promote", &new, "--force"], "ticket 3").await;
    keys(&["reseal"], "ticket 4").await;
    keys(&["destroy", &unused], "ticket 5").await;
    let master = slack_installs::MasterKey::generate().to_base64();
    let both = format!("{}\n{}\n", *master, house.master_key);
    std::fs::write(house.path("key"), both).expect("the file is ours");
    keys(&["rewrap"], "ticket 6").await;
    let tail = ["audit", "tail", "--last", "1000", "--actor", "operator"];
    let ran = house.run(&tail).await;
    let out = ran.ends(0);
    for line in [
        format!("key done {new} by operator for keys add: ticket 1"),
        format!("key done {unused} by operator for keys add: ticket 2"),
        format!("promote done {new} by operator for keys promote: ticket 3"),
        format!("reseal done {new} by operator for keys reseal: ticket 4"),
        format!("destroy done {unused} by operator for keys destroy: ticket 5"),
        format!("rewrap done {new} by operator for keys rewrap: ticket 6"),
    ] {
        assert!(out.contains(&line), "{line}\n{out}");
    }
    // The program unwraps keys before it has opened the log, and until it ends.
    let unwrap = format!("unwrap done {unused} by operator for keys add: ticket 2");
    assert!(out.contains(&unwrap), "{out}");
    house.run(&["audit", "verify"]).await.ends(0);
}

#[tokio::test]
async fn a_baseline_accepts_the_rows_as_they_are_and_names_the_operator() {
    let (house, _) = house().await;
    house.damage(ALPHA, "install").await;
    house.run(&["audit", "verify"]).await.ends(8);
    let before = house.rows().await;
    house.run(&["audit", "baseline"]).await.ends(4);
    let dry = ["audit", "baseline", "--dry-run"];
    let ran = house.run_json(&dry).await;
    ran.ends(0);
    assert_eq!(ran.json()["is_dry_run"], true);
    assert_eq!(house.rows().await, before);
    let baseline = ["audit", "baseline", "--reason", "restored", "--yes"];
    let ran = house.run_json(&baseline).await;
    ran.ends(0);
    assert!(ran.json()["rows"].as_u64() > Some(1), "{ran:?}");
    let ran = house.run(&["audit", "verify"]).await;
    assert!(ran.ends(0).contains("intact"), "{ran:?}");
    let tail = ["audit", "tail", "--event", "found"];
    let ran = house.run(&tail).await;
    let line = format!("{ALPHA} install by operator for audit baseline: restored");
    assert!(ran.ends(0).contains(&line), "{ran:?}");
}

#[tokio::test]
async fn an_erasure_is_in_the_log_with_the_operators_reason() {
    let (house, _) = house().await;
    let erase = ["audit", "erase", ALPHA, "--reason", "request 9", "--yes"];
    house.run(&erase).await.ends(0);
    let ran = house.run(&["audit", "tail", "--event", "erase"]).await;
    let line = "by operator for audit erase: request 9";
    assert!(
        ran.ends(0).contains(line) && !ran.out.contains(ALPHA),
        "{ran:?}"
    );
}

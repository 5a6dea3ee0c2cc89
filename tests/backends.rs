//! Smoke.
use slack_installs::backend::*;
use std::time::*;
#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.sqlite3");
    let opens: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { SqliteBackend::open(path).await })
        })
        .collect();
    for open in opens {
        open.await.expect("join").expect("open");
    }
    let b = SqliteBackend::open(&path).await.expect("open");
    let p = Partition::new("app/T1").expect("n");
    let s = Slot::new("bot").expect("n");
    let mut bytes = vec![7; 120];
    bytes[..4].copy_from_slice(b"SLI1");
    let row = Row {
        version: Version::mint(),
        metadata: Metadata::new("{ \"a\":1}"),
        sealed: Sealed::from_stored(bytes),
        due_at: Some(UNIX_EPOCH + Duration::from_secs(5)),
    };
    b.commit(
        &p,
        &[Change::Put {
            slot: s.clone(),
            row: row.clone(),
            expect: Expect::Absent,
        }],
    )
    .await
    .expect("put");
    assert_eq!(
        b.read(&p, &[s.clone(), s.clone()]).await.expect("read"),
        [Some(row.clone()), Some(row.clone())]
    );
    assert!(matches!(
        b.commit(
            &p,
            &[Change::Put {
                slot: s.clone(),
                row: row.clone(),
                expect: Expect::Absent
            }]
        )
        .await,
        Err(Error::Conflict)
    ));
    println!(
        "{:?} {:?}",
        b.scan(None, usize::MAX).await.expect("scan"),
        b.due(SystemTime::now(), 4).await
    );
    for entry in std::fs::read_dir(dir.path()).expect("ls") {
        let e = entry.expect("e");
        println!(
            "{:?} {:o}",
            e.path(),
            std::os::unix::fs::PermissionsExt::mode(&e.metadata().expect("m").permissions())
        );
    }
    println!("{}", String::from_utf8_lossy(&std::process::Command::new("sqlite3").arg(&path).args(["SELECT * FROM slack_installations; EXPLAIN QUERY PLAN SELECT * FROM slack_rows WHERE due_at <= 7 ORDER BY due_at LIMIT 2; EXPLAIN QUERY PLAN SELECT slot, version FROM slack_rows WHERE partition = 'a' AND slot IN (SELECT value FROM json_each('[]')); EXPLAIN QUERY PLAN SELECT * FROM slack_rows WHERE (partition, slot) > ('a','b') ORDER BY partition, slot LIMIT 3; explain query plan select * from slack_installations"]).output().expect("run").stdout));
    b.close().await.expect("close");
    for p in [
        "/proc/nope/x",
        "/tmp",
        "/nonexistent/x.db",
        ":memory:",
        "",
        "Cargo.toml",
    ] {
        println!(
            "{p}: {:#}",
            SqliteBackend::open(p).await.expect_err("refused")
        );
    }
}

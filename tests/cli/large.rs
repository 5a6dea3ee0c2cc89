//! Memory does not grow with the number of tenants.

use std::process::Stdio;

use tokio::process::Command;

use super::House;
use super::trial::{fill, fill_from};

/// The commands that read or copy every row.
const LONG: [&[&str]; 8] = [
    &["doctor"],
    &["list"],
    &["stats"],
    &["verify"],
    &["keys", "reseal", "--dry-run"],
    &["copy", "env:SLACK_INSTALLS_URL", "sqlite:copy.sqlite3"],
    &["verify", "--database", "sqlite:copy.sqlite3"],
    &["explain", "T1FILL000007"],
];

/// Returns the largest memory of each command, in KiB.
async fn memory(house: &House, tenants: usize) -> Vec<u64> {
    drop(std::fs::remove_file(house.path("copy.sqlite3")));
    let python = std::env::var_os("SLACK_INSTALLS_PYTHON").unwrap_or_else(|| "python3".into());
    let mut used = Vec::new();
    for arguments in LONG {
        let output = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/usage.py"))
            .arg(program())
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&house.values)
            .current_dir(house.directory.path())
            .stdin(Stdio::null())
            .output();
        let output = output.await.expect("Python runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (kib, code) = text.trim().split_once(' ').expect("two numbers");
        assert_eq!(
            code,
            "0",
            "{arguments:?} {output:?}",
            output = output.stderr
        );
        println!("{tenants} tenants, {arguments:?}: {kib} KiB");
        used.push(kib.parse().expect("a number"));
    }
    used
}

/// The program. Another build can be measured.
fn program() -> String {
    let measured = std::env::var("SLACK_INSTALLS_MEASURED");
    measured.unwrap_or_else(|_| env!("CARGO_BIN_EXE_slack-installs").to_owned())
}

/// Checks that more tenants take at most so much more memory, in KiB.
async fn is_flat(few: usize, many: usize, more: u64) {
    let house = House::new().await;
    fill(&house.app.store, few).await;
    let small = memory(&house, few).await;
    fill_from(&house.app.store, few, many).await;
    let large = memory(&house, many).await;
    for ((arguments, small), large) in LONG.iter().zip(small).zip(large) {
        // The rows of a page differ a little, and the allocator keeps some memory.
        let is_flat = large <= small + more;
        assert!(is_flat, "{arguments:?}: {small} KiB, {large} KiB");
    }
}

/// The few tenants have several pages of rows, and fill the cache of SQLite. If the rows of the
/// others stayed in memory, they would take more than 4 MiB.
#[tokio::test]
async fn memory_is_flat() {
    is_flat(1000, 4000, 4 * 1024).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn memory_is_flat_for_100_000_tenants() {
    is_flat(10_000, 100_000, 16 * 1024).await;
}

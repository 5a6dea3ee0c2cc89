//! Everybody at once: N processes × M callers ask for tokens that have just expired.
//!
//! ```text
//! cargo run --release --features testing,sqlite --example storm -- \
//!     --backend sqlite:/tmp/storm.sqlite3 --processes 4 --callers 64 --workspaces 1000
//! ```
//!
//! Starts a fake Slack on loopback, installs an app in so many workspaces, and lets so many real
//! processes, each with callers of its own, go at the same moment. Prints one JSON line:
//!
//! | | |
//! |---|---|
//! | `refresh_calls` | calls that spent a refresh token; as many as workspaces are needed |
//! | `duplicate_calls` | of these, how many sent a token that had been sent before |
//! | `failed` | asked for a token and got none; `reasons` says why |
//! | `unusable` | got a token that Slack no longer takes when all is over |
//! | `stored_current` | workspaces whose stored token Slack takes when all is over |
//! | `wait_p50_ms`, `wait_p99_ms` | from asking to the token |
//! | `exposed_p50_ms`, `exposed_p99_ms` | from Slack's answer to the save: a crash here loses it |
//!
//! and ends with an error if something was lost, failed or called twice without a cause.
//!
//! # Options
//!
//! * `--backend`: `memory` (one process only), or a URL of `slack_installs::backend::connect`, with
//!   the feature that this needs. On a server that holds other rows, choose a schema or a prefix of
//!   its own by the URL. `scripts/storm` starts throw-away servers for all.
//! * `--processes` 1, `--callers` 1000 (of each process), `--workspaces` 1, `--latency-ms` 100
//!   (Slack's, for a refresh).
//! * `--each`: who asks once for each workspace. `caller` (the default): every one, beginning all
//!   over the place. `process`: its callers part them, in the same order in every process.
//! * `--grace`: for how many seconds Slack takes a used refresh token again, or `none`. 2.
//! * `--kill`: that many processes are killed in the middle of a refresh, and others started in
//!   their places. `--kill-at call`: before Slack hears of it; `--kill-at answer` (the default):
//!   after its answer, before the save.
//!
//! What it wrote is removed at the end, a SQLite file aside.

mod backends;
mod callers;
mod fleet;
mod options;
mod orders;
mod process;
mod tally;
mod watch;
mod workspaces;

use std::process::ExitCode;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let ended = match words.next_if(|word| word == process::ARGUMENT) {
        Some(_) => process::run().await.map(|()| true),
        None => storm(words).await,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
async fn storm(words: impl Iterator<Item = String>) -> Result<bool, Failure> {
    let options = options::Options::read(words)?;
    let outcome = fleet::storm(&options).await?;
    println!("{}", outcome.line(&options));
    Ok(outcome.is_well(&options))
}

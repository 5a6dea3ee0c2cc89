//! A load test: N processes × M callers request tokens that have just expired.
//!
//! ```text
//! cargo run --release --features testing,sqlite --example storm -- \
//!     --backend sqlite:/tmp/storm.sqlite3 --processes 4 --callers 64 --workspaces 1000
//! ```
//!
//! Starts a fake Slack on loopback and installs an app in the workspaces. Then starts real
//! processes with concurrent callers, all at the same moment. Prints one JSON line:
//!
//! | member | meaning |
//! |---|---|
//! | `refresh_calls` | calls that sent a refresh token; one per workspace is needed |
//! | `duplicate_calls` | how many of these sent a token that had been sent before |
//! | `failed` | token requests that failed; `reasons` has the errors |
//! | `unusable` | token requests that got a token that Slack rejects at the end of the storm |
//! | `stored_current` | workspaces whose stored token Slack accepts at the end of the storm |
//! | `wait_p50_ms`, `wait_p99_ms` | time from the request of a token to its result |
//! | `exposed_p50_ms`, `exposed_p99_ms` | time from Slack's response to the save |
//!
//! A crash between Slack's response and the save loses the pair.
//!
//! If a token was lost, a request failed, or a token was sent twice without a kill, the exit code
//! is not 0.
//!
//! # Options
//!
//! * `--backend`: `memory` (one process only), or a URL of `slack_installs::backend::connect`, with
//!   the feature that it needs. On a server with other data, choose a schema or a prefix in the
//!   URL. `scripts/storm` starts a temporary server for any backend. Default: `memory`.
//! * `--processes`: the number of processes. Default: 1.
//! * `--callers`: the number of callers per process. Default: 1000.
//! * `--workspaces`: the number of workspaces. Default: 1.
//! * `--latency-ms`: how long Slack takes for a refresh. Default: 100.
//! * `--each`: who requests a token once for each workspace. With `caller` (the default), every
//!   caller does, and callers start at different workspaces. With `process`, every process does.
//!   Its callers share the workspaces, in the same order in every process.
//! * `--grace`: how many seconds Slack accepts a used refresh token, or `none`. Default: 2.
//! * `--kill`: how many processes are killed during a refresh. Each is replaced. Default: 0.
//! * `--kill-at`: when to kill. `call` is before the call reaches Slack. `answer` (the default) is
//!   after Slack's response and before the save.
//!
//! * `--pause-ms`: instead of a storm, makes a steady run for `scripts/chaos`: every caller requests
//!   tokens until the input says `end`, with this pause between two requests. The run prints one line
//!   of the script's table.
//! * `--token-life`: how many seconds a token of a steady run lives. Default: 16.
//! * `--apart`: how many workspaces of a steady run have callers of their own, which are not counted.
//!   Default: 0.
//! * `--rate`: `0` if a steady run may serve few requests. Default: 1.
//!
//! At the end, the storm deletes its rows. It keeps a SQLite file.

mod backends;
mod callers;
mod chaos;
mod fleet;
mod options;
mod orders;
mod process;
mod steady;
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

/// Runs the storm. Returns whether it succeeded.
async fn storm(words: impl Iterator<Item = String>) -> Result<bool, Failure> {
    let options = options::Options::read(words)?;
    if let Some(steady) = options.steady {
        let course = chaos::run(&options, steady).await?;
        println!("{}", course.line());
        eprintln!("served per second: {}", course.seconds());
        for (reason, count) in course.reasons() {
            eprintln!("{count} x {reason}");
        }
        return Ok(course.is_well());
    }
    let outcome = fleet::storm(&options).await?;
    println!("{}", outcome.line(&options));
    Ok(outcome.is_well(&options))
}

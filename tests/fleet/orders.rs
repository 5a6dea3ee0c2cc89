//! What a process is told, and what it says: one line each.

use std::time::{Duration, SystemTime};

use ring::digest;
use serde::{Deserialize, Serialize};

/// The first line.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Orders {
    pub(crate) database: String,
    pub(crate) slack: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) master_key: String,
    /// How much time has passed since [`start`].
    pub(crate) passed: Duration,
    /// Whether it announces each step of a refresh, and waits before each.
    pub(crate) is_held: bool,
}

/// The lines after it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// Ask for the bot's token of this workspace.
    Ask(String),
    /// Finish what is under way, and end.
    End,
    /// Announce no more steps.
    Free,
    /// Take the step that was announced.
    Go,
    /// This much time has passed.
    Jump(Duration),
    /// Serve what is due, as workers do.
    Work,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Word {
    /// Everything is finished; or not, in the time that it had.
    Ended(bool),
    /// No token, and why; whether asking again may help.
    Failed { why: String, is_transient: bool },
    /// It is set up.
    Ready,
    /// It is about to take this step, and waits.
    Step(String),
    /// A token, by its hash.
    Token(String),
}

/// Tells tokens apart without telling them.
pub(crate) fn fingerprint(token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    let hash = hash.as_ref().iter();
    hash.map(|byte| format!("{byte:02x}")).collect()
}

/// What all clocks show at first. They stand, and only jump: so a busy machine changes nothing.
pub(crate) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

/// What a process's words begin with, among what else a test binary prints.
pub(crate) const MARK: &str = "fleet> ";

/// Says that a test binary is to be a process. Its orders are in its input.
pub(crate) const VARIABLE: &str = "SLACK_INSTALLS_TEST_PROCESS";

//! A process's orders and its words, one line each.

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
    /// Whether the process announces each step of a refresh, and waits before each one.
    pub(crate) is_held: bool,
}

/// The lines after the first.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// Request the bot's token of this workspace.
    Ask(String),
    /// Finish what is in progress, and end.
    End,
    /// Stop announcing steps.
    Free,
    /// Take the announced step.
    Go,
    /// This much time has passed.
    Jump(Duration),
    /// Refresh what is due, as a worker does.
    Work,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Word {
    /// Whether everything was finished in the available time.
    Ended(bool),
    /// No token, the reason, and whether a retry may help.
    Failed { why: String, is_transient: bool },
    /// The process is ready.
    Ready,
    /// The process is about to take this step, and waits.
    Step(String),
    /// A token, by its hash.
    Token(String),
}

/// Returns a hash that distinguishes tokens without revealing them.
pub(crate) fn fingerprint(token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    let hash = hash.as_ref().iter();
    hash.map(|byte| format!("{byte:02x}")).collect()
}

/// The time that all clocks show at first. They only jump, so a busy machine changes nothing.
pub(crate) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

/// The prefix of a process's words, among the other output of a test binary.
pub(crate) const MARK: &str = "fleet> ";

/// The variable that turns a test binary into a process. Its input has the orders.
pub(crate) const VARIABLE: &str = "SLACK_INSTALLS_TEST_PROCESS";

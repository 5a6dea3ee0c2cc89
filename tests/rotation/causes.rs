//! What rotation logs about a failure.

use super::support::hooked_chains::Way;
use super::support::log::Log;
use super::support::rotation::{BotToken as _, Stage};

#[tokio::test(start_paused = true)]
async fn a_log_line_of_rotation_has_the_error_and_its_cause() {
    let stage = Stage::installed().await;
    stage.expire();
    let rotator = stage.rotator_with_updates(|_| Way::Failed);
    let (log, _guard) = Log::of_this_thread();
    let token = rotator.bot_token().await;
    token.expect_err("the database is away");
    let text = log.text();
    let line = text
        .lines()
        .find(|line| line.contains("could not be refreshed"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    for cause in [
        "the token could not be read from the store or saved to it",
        "the installation store is unavailable",
    ] {
        assert!(line.contains(cause), "{line}");
    }
}

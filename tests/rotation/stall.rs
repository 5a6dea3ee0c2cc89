//! A process that stalls between the lease and the call.

use slack_installs::rotation::Error;

use super::support::hooked_chains::Way;
use super::support::rotation::{BotToken as _, Stage, secs};

#[tokio::test(start_paused = true)]
async fn a_process_that_stalled_gives_the_lease_back_and_does_not_call() {
    let stage = Stage::installed().await;
    stage.expire();
    // The first update is applied, and its response arrives 8 s later. That is too late to call
    // Slack: the response might arrive after another process has taken the lease.
    let rotator = stage.rotator_with_updates(|number| match number {
        0 => Way::Slow(secs(8)),
        _ => Way::Done,
    });
    let outcome = rotator.bot_token().await;
    let Err(Error::TryAgain { code, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((code.as_str(), stage.refreshes()), ("stalled", 0));
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.lease, chain.attempts), (None, 0));
    let token = rotator.bot_token().await;
    token.expect("the process no longer stalls");
    assert_eq!(stage.refreshes(), 1);
}

//! An installation that is replaced while a caller uses the earlier one.

use std::sync::atomic::{AtomicUsize, Ordering};

use slack_installs::store::Credential;

use super::Posting;
use super::support::rotation::{ALPHA, BotToken as _, HOUR, Stage, alpha};

#[tokio::test(start_paused = true)]
async fn a_call_that_meets_a_reinstall_goes_on_with_the_new_installations_token() {
    let stage = Stage::installed().await;
    let rotator = stage.rotator();
    stage.expire();
    let spent = rotator.bot_token().await.expect("generation 1");
    stage.fake.advance(HOUR);
    let (tries, tenant) = (AtomicUsize::new(0), alpha());
    let call = rotator.call(&tenant, Credential::Bot, |token| {
        let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        let stage = &stage;
        async move {
            if is_first {
                stage.install(ALPHA, "chat:write", "").await;
                return Err(Posting::Expired);
            }
            Ok(token.access_token.expose().to_owned())
        }
    });
    let used = call
        .await
        .expect("the new installation's generation 0 is not older than 1");
    let chain = stage.bot_chain().await;
    assert_eq!(used, chain.grant.access_token.expose());
    assert_ne!(used, spent.access_token.expose());
    assert_eq!(stage.refreshes(), 1, "the new token was not refreshed");
}

//! What happens to a pair that Slack has issued.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use slack_installs::rotation::Error;
use slack_installs::testing::{Fault, GracePolicy};
use slack_installs::{Clock, Delete, InstallationStore as _};
use tokio::time::Instant;

use super::support::hooked_chains::Way;
use super::support::rotation::{
    ALPHA, BotToken as _, HOUR, Stage, alpha, secs, settle, spawn_caller, spawn_worker,
};

#[tokio::test(start_paused = true)]
async fn a_late_pair_counts_as_used() {
    for is_ahead in [false, true] {
        let stage = Stage::installed_under(GracePolicy::AllLive).await;
        stage.expire();
        let late = Fault::delay(secs(10)).after_effect();
        stage.inject(late.times(2));
        let rotator = stage.rotator();
        if is_ahead {
            let worker = spawn_worker(&rotator);
            tokio::time::sleep(secs(30)).await;
            worker.abort();
        } else {
            let asked = rotator.bot_token().await;
            asked.expect("the late pair is alive");
        }
        assert!(rotator.shutdown(secs(30)).await);
        let chain = stage.bot_chain().await.chain;
        assert_eq!((chain.generation, chain.idle), (1, 0), "{is_ahead}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_may_be_the_loser_is_asked_about_though_the_result_of_its_save_is_lost() {
    // Two pairs are issued. Only the first one is alive, and its response was lost.
    let stage = Stage::installed_under(GracePolicy::FirstOnly).await;
    stage.expire();
    stage.inject(Fault::lost().after_effect());
    let rotator = stage.rotator_with_updates(|number| match number {
        2 => Way::Lost,
        _ => Way::Done,
    });
    let asked = rotator.bot_token().await;
    asked.expect_err("Slack revoked the pair that was saved");
    // The refresh token is sent once more, and that pair is dead too.
    assert_eq!(stage.fake.calls("auth.test"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_was_bought_by_one_call_is_not_asked_about() {
    let stage = Stage::installed().await;
    stage.expire();
    let token = stage.rotator().bot_token().await;
    token.expect("a token");
    assert_eq!(stage.fake.calls("auth.test"), 0);
    let chain = stage.bot_chain().await.chain;
    let (due_at, soft_at) = (chain.due_at.expect("due"), chain.soft_at().expect("due"));
    let apart = soft_at.duration_since(due_at).expect("whole seconds");
    assert!(apart < secs(1), "a worker is due in time");
}

#[tokio::test(start_paused = true)]
async fn a_pair_is_kept_in_memory_for_ten_minutes_while_the_database_is_away() {
    for (minutes, is_saved) in [(9, true), (11, false)] {
        let stage = Stage::installed().await;
        stage.expire();
        let back = Instant::now() + secs(minutes * 60 + 30);
        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let rotator = stage.rotator_with_updates(move |number| {
            if number > 0 && Instant::now() < back {
                count.fetch_add(1, Ordering::SeqCst);
                Way::Failed
            } else {
                Way::Done
            }
        });
        let tries = || tries.load(Ordering::SeqCst);
        let asked = rotator.within(secs(1));
        let asked = asked.bot_token().await;
        assert_matches!(asked, Err(Error::Busy));
        // The save is tried often at first, and then every few seconds.
        assert!((3..10).contains(&tries()), "{} in a second", tries());
        tokio::time::sleep(secs(540)).await;
        assert!((80..200).contains(&tries()), "{} in nine minutes", tries());
        assert!(!rotator.shutdown(secs(1)).await, "it waits");
        tokio::time::sleep(secs(70)).await;
        let is_over = rotator.shutdown(secs(1)).await;
        assert!(
            is_over,
            "after ten minutes the process has given up or saved"
        );
        let generation = stage.bot_chain().await.chain.generation;
        assert_eq!(generation, u64::from(is_saved), "{minutes} minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_is_of_slacks_time_and_not_of_the_processs() {
    let stage = Stage::installed().await;
    stage.expire();
    let clock = stage.fake.clock();
    let ahead = Clock::from_fn(move || clock.now() + HOUR);
    let rotator = stage.rotator().with_clock(ahead);
    let token = rotator.bot_token().await;
    token.expect("a token");
    let chain = stage.bot_chain().await.chain;
    let now = stage.fake.clock().now();
    assert!(chain.issued_at <= now && chain.issued_at + HOUR > now);
    let ends = chain.expires_at.expect("it ends");
    assert!(ends <= now + 12 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn of_an_orphaned_pair_the_access_token_is_revoked_also_if_the_other_could_not_be() {
    let stage = Stage::installed().await;
    stage.expire();
    let (rotator, held) = stage.held();
    let caller = spawn_caller(&rotator);
    held.answered().await;
    let all = Delete::all();
    assert!(stage.store.delete(&alpha(), &all).await.expect("available"));
    stage.fake.inject("auth.revoke", Fault::unavailable());
    held.release();
    let gone = caller.await.expect("no panic");
    assert_matches!(gone, Err(Error::NotInstalled { .. }));
    assert_eq!(stage.fake.calls("auth.revoke"), 2);
    assert_eq!(stage.fake.live_tokens(ALPHA, None), 0);
}

#[tokio::test(start_paused = true)]
async fn an_access_token_that_the_new_installation_has_too_is_not_revoked() {
    let stage = Stage::installed().await;
    stage.expire();
    let (rotator, held) = stage.held();
    let caller = spawn_caller(&rotator);
    held.answered().await;
    // Another installation is stored with the access token of the pair that is not saved yet.
    let issued = stage.fake.bot_token(ALPHA).expect("issued");
    let fetched = stage.store.fetch(&alpha(), None).await;
    let mut installation = fetched.expect("available").expect("installed").installation;
    installation.installed_at = stage.fake.clock().now();
    let bot = installation.bot.as_mut().expect("a bot");
    bot.grant.access_token = issued;
    bot.grant.refresh_token = None;
    bot.grant.expires_at = None;
    let issued = bot.grant.access_token.expose().to_owned();
    let all = Delete::all();
    assert!(stage.store.delete(&alpha(), &all).await.expect("available"));
    stage.store.store(&installation).await.expect("stored");
    held.release();
    let token = caller.await.expect("no panic").expect("the new one");
    assert_eq!(token.access_token.expose(), issued);
    settle().await;
    assert!(stage.fake.is_live(&issued), "the pair is alive");
    assert_eq!(
        stage.fake.calls("auth.revoke"),
        1,
        "it was the refresh token"
    );
}

//! A process has a pair from Slack and cannot save it. Slack refuses the other processes. The chain
//! lives, so nobody is asked to install the app again.

use std::time::Duration;

use slack_installs::TokenRotator;
use slack_installs::rotation::Error;
use slack_installs::store::{Credential, LifecycleStore as _, Subject};
use slack_installs::testing::{Fault, Rotation};
use tokio::time::{Instant, sleep};

use super::support::hooked_chains::Way;
use super::support::rotation::{
    ALPHA, BotToken as _, HOUR, Stage, alpha, refresh_token, secs, settle, spawn_caller,
    spawn_worker,
};

/// Longer than a process holds a pair.
const FORGOTTEN: Duration = Duration::from_secs(11 * 60);

/// Returns a stage whose token has expired. Slack accepts each refresh token once.
async fn without_grace() -> Stage {
    let stage = Stage::installed_with(Rotation {
        grace: Duration::ZERO,
        ..Rotation::default()
    })
    .await;
    stage.expire();
    stage
}

/// Returns a process that gets a pair, and whose database then does not respond for this long.
async fn holder(stage: &Stage, away: Duration) -> TokenRotator {
    let back = Instant::now() + away;
    let rotator = stage.rotator_with_updates(move |number| {
        if number > 0 && Instant::now() < back {
            Way::Failed
        } else {
            Way::Done
        }
    });
    let asked = rotator.within(secs(1)).bot_token().await;
    assert_matches!(asked, Err(Error::Busy));
    rotator
}

async fn has_notice(stage: &Stage) -> bool {
    let subject = Subject::Chain(Credential::Bot);
    let notices = stage.store.notices(&alpha(), &[subject]).await;
    !notices.expect("the store is up").is_empty()
}

async fn is_told_to_wait(stage: &Stage, rotator: &TokenRotator) {
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Err(Error::TryAgain { .. }));
    assert!(!stage.bot_chain().await.chain.is_dead);
    assert!(!has_notice(stage).await);
}

async fn lives(stage: &Stage, rotator: &TokenRotator) {
    let token = rotator.bot_token().await.expect("a token");
    assert!(stage.fake.is_live(token.access_token.expose()));
    assert!(!has_notice(stage).await);
}

#[tokio::test(start_paused = true)]
async fn while_a_process_holds_a_pair_callers_of_others_are_told_to_try_again() {
    for away in [20, 100, 590] {
        let stage = without_grace().await;
        let _holder = holder(&stage, secs(away)).await;
        sleep(secs(16)).await;
        let other = stage.another().await.rotator();
        is_told_to_wait(&stage, &other).await;
        let calls = stage.refreshes();
        assert_eq!(calls, 2, "one call took over");
        // A third process, and a process that starts again.
        for next in [&stage.another().await, &stage.another().await] {
            is_told_to_wait(&stage, &next.rotator()).await;
        }
        let worker = spawn_worker(&other);
        sleep(secs(away - 6)).await;
        assert_eq!(stage.refreshes(), calls, "nobody calls Slack meanwhile");
        lives(&stage, &other).await;
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_over_does_not_give_up_a_chain_whose_pair_is_held() {
    let stage = without_grace().await;
    let _holder = holder(&stage, secs(60)).await;
    let other = stage.another().await.rotator();
    let worker = spawn_worker(&other);
    sleep(secs(40)).await;
    assert_eq!(stage.refreshes(), 2, "the worker took over");
    is_told_to_wait(&stage, &other).await;
    sleep(secs(30)).await;
    lives(&stage, &other).await;
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn two_processes_in_a_row_that_hold_or_are_refused_leave_the_chain_alive() {
    // The first one holds the pair, and the second one dies before Slack refuses it.
    let stage = without_grace().await;
    let _holder = holder(&stage, secs(80)).await;
    sleep(secs(16)).await;
    let (second, held) = stage.held();
    let waiting = spawn_caller(&second);
    held.answered().await;
    sleep(secs(16)).await;
    let third = stage.another().await.rotator();
    is_told_to_wait(&stage, &third).await;
    held.release();
    let asked = waiting.await.expect("no panic");
    assert_matches!(asked, Err(Error::TryAgain { .. } | Error::Busy));
    is_told_to_wait(&stage, &third).await;
    sleep(secs(60)).await;
    lives(&stage, &third).await;
}

#[tokio::test(start_paused = true)]
async fn alternates_that_slack_refuses_do_not_end_a_chain_whose_pair_is_held() {
    let (stage, early) = installed_twice().await;
    // An earlier installation is stored late, and its token is an alternate.
    let store = &stage.store;
    let stored = slack_installs::InstallationStore::store(store, &early).await;
    stored.expect("stored");
    let chain = stage.bot_chain().await;
    assert_eq!(chain.alternates.len(), 1);
    let slack = stage.slack();
    let revoked = slack.auth_revoke_refresh_token(&chain.alternates[0]).await;
    revoked.expect("the fake revokes");
    stage.fake.advance(13 * HOUR);
    let _holder = holder(&stage, secs(30)).await;
    sleep(secs(16)).await;
    let other = stage.another().await.rotator();
    is_told_to_wait(&stage, &other).await;
    sleep(secs(20)).await;
    lives(&stage, &other).await;
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_is_stored_late_ends_the_wait_for_a_pair() {
    let (stage, early) = installed_twice().await;
    let store = &stage.store;
    stage.expire();
    let _holder = holder(&stage, secs(300)).await;
    sleep(secs(16)).await;
    let other = stage.another().await.rotator();
    is_told_to_wait(&stage, &other).await;
    let stored = slack_installs::InstallationStore::store(store, &early).await;
    stored.expect("stored");
    let worker = spawn_worker(&other);
    sleep(secs(10)).await;
    assert_eq!(
        stage.bot_chain().await.chain.generation,
        1,
        "a worker tries it"
    );
    lives(&stage, &other).await;
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_late_saves_a_chain_that_slack_refuses_meanwhile() {
    // The repeated call is recorded, or it is not.
    for way in [0, 1] {
        let stage = without_grace().await;
        stage.inject(Fault::delay(secs(9)).after_effect());
        let rotator = stage.rotator_with_updates(move |number| match number {
            1 if way == 1 => Way::Failed,
            _ => Way::Done,
        });
        is_told_to_wait(&stage, &rotator).await;
        assert_eq!(stage.refreshes(), 2, "{way}");
        sleep(secs(5)).await;
        settle().await;
        lives(&stage, &rotator).await;
        assert!(
            stage
                .fake
                .is_refreshable(refresh_token(&stage.bot_chain().await).expose())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_whose_process_died_with_the_pair_is_given_up_when_no_process_can_hold_it() {
    let stage = without_grace().await;
    drop(stage.dying(1).bot_token().await);
    let begun = Instant::now();
    sleep(secs(16)).await;
    let other = stage.another().await.rotator();
    is_told_to_wait(&stage, &other).await;
    let worker = spawn_worker(&other);
    sleep(FORGOTTEN - begun.elapsed() - secs(1)).await;
    is_told_to_wait(&stage, &other).await;
    sleep(secs(6)).await;
    assert!(stage.bot_chain().await.chain.is_dead);
    assert!(has_notice(&stage).await);
    let asked = other.bot_token().await;
    assert_matches!(asked, Err(Error::ReinstallNeeded { .. }));
    assert_eq!(stage.refreshes(), 3, "one more call made sure");
    worker.abort();
}

/// Installs the app twice, and returns the first installation.
async fn installed_twice() -> (Stage, slack_installs::Installation) {
    let stage = without_grace().await;
    let early = stage.fetched().await.installation;
    let delete = slack_installs::Delete::all();
    let store = &stage.store;
    let deleted = slack_installs::InstallationStore::delete(store, &alpha(), &delete).await;
    assert!(deleted.expect("available"));
    stage.fake.advance(secs(20));
    stage.install(ALPHA, "chat:write", "").await;
    (stage, early)
}

//! How a chain's record counts calls with an unknown outcome, and which lease it names.

use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::secret::{AccessToken, RefreshToken};
use slack_installs::store::{Chain, Mark, RotationStore as _};
use slack_installs::testing::Fault;
use slack_installs::{Grant, Scopes};

use super::support::hooked_chains::Way;
use super::support::rotation::{BotToken as _, HOUR, Stage, bot, secs, spawn_caller};

/// Adds a late alternate, as if another process had bought it.
async fn add_alternate(stage: &Stage, number: usize) {
    let refresh_token = RefreshToken::new(format!("xoxe-1-late{number}")).expect("plausible");
    let mark = Mark::of(&refresh_token);
    let late = Grant {
        access_token: AccessToken::new("xoxe.xoxb-1-late").expect("plausible"),
        refresh_token: Some(refresh_token),
        expires_at: None,
        scopes: Scopes::from("chat:write"),
    };
    let mut decide = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        next.alternates.push(mark);
        Some(next)
    };
    let updated = stage.store.update(&bot(), Some(&late), &mut decide).await;
    updated.expect("available").expect("installed");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_another_pair_overtook_counts_for_nothing_and_its_lease_is_not_used_again() {
    let stage = Stage::installed().await;
    let rotator = stage.rotator();
    let delay = secs(2);
    // More rounds than the number of dead chains that a process accepts in so short a time.
    for round in 0..25 {
        stage.expire();
        let refused = Fault::error("invalid_refresh_token").delayed(delay);
        stage.inject(refused);
        stage.inject(Fault::delay(delay).after_effect());
        let waiting = spawn_caller(&rotator);
        tokio::time::sleep(delay / 2).await;
        let first = stage.bot_chain().await.chain;
        add_alternate(&stage, round).await;
        tokio::time::sleep(delay).await;
        let second = stage.bot_chain().await.chain;
        assert_eq!((first.attempts, second.attempts), (1, 1), "round {round}");
        let owner = |chain: &Chain| chain.lease.expect("it is being refreshed").owner;
        assert_ne!(owner(&first), owner(&second));
        waiting.await.expect("no panic").expect("a token");
    }
    stage.expire();
    stage.inject(Fault::error("invalid_refresh_token"));
    let error = rotator.bot_token().await;
    let error = error.expect_err("dead");
    assert_matches!(error, Error::ReinstallNeeded { .. });
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_without_our_hearing_of_it_is_one_attempt() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::rate_limited(secs(30)));
    let rotator = stage.rotator_with_updates(|number| match number {
        0 => Way::Lost,
        _ => Way::Done,
    });
    let error = rotator.bot_token().await;
    let error = error.expect_err("Slack asks to wait");
    assert_matches!(error, Error::TryAgain { .. });
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.attempts, chain.lease), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_for_seconds_is_waited_for() {
    let stage = Stage::installed().await;
    stage.expire();
    let back = tokio::time::Instant::now() + secs(8);
    let rotator = stage.rotator_with_updates(move |_| {
        if tokio::time::Instant::now() < back {
            Way::Failed
        } else {
            Way::Done
        }
    });
    let token = rotator.bot_token().await;
    token.expect("within the caller's patience");
    assert_eq!(stage.refreshes(), 1);
    // The wait for the database is limited.
    stage.expire();
    let rotator = stage.rotator_with_updates(|_| Way::Failed);
    let error = rotator.bot_token().await;
    let error = error.expect_err("down");
    assert_matches!(error, Error::Store(_));
}

#[tokio::test(start_paused = true)]
async fn a_time_to_try_again_that_only_a_wrong_clock_can_have_written_is_not_kept() {
    let stage = Stage::installed().await;
    stage.expire();
    let now = stage.fake.clock().now();
    let set = async |wait: Duration| {
        let waits = |chain: &mut Chain| chain.retry_at = Some(now + wait);
        stage.change(waits).await;
    };
    set(secs(300)).await;
    let error = stage.rotator().bot_token().await;
    let error = error.expect_err("a wait of minutes is kept");
    assert_matches!(error, Error::TryAgain { .. });
    set(3 * HOUR).await;
    let token = stage.rotator().bot_token().await;
    token.expect("a wait of hours comes from a wrong clock");
}

#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_is_five_minutes() {
    let stage = Stage::installed().await;
    stage.expire();
    let absurd = secs(u64::MAX);
    stage.inject(Fault::rate_limited(absurd));
    let now = stage.fake.clock().now();
    let outcome = stage.rotator().bot_token().await;
    let Err(Error::TryAgain { at, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(at, now + secs(300));
}

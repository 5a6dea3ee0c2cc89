//! How a chain's record counts the calls whose outcome nobody knows, and whose lease it tells of.

use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::secret::{AccessToken, RefreshToken};
use slack_installs::store::{Chain, ChainKey, Credential, Mark, RotationStore as _};
use slack_installs::testing::Fault;
use slack_installs::{Grant, Scopes};

use super::support::rotation::{HOUR, Stage, alpha};
use super::{REFRESH, Way, installed, rotator_over};

fn bot() -> ChainKey {
    ChainKey {
        credential: Credential::Bot,
        tenant: alpha(),
    }
}

/// As if a pair had come late that another process bought.
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
    updated.expect("answers").expect("installed");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_another_pair_overtook_counts_for_nothing_and_its_lease_is_not_used_again() {
    let stage = installed().await;
    let rotator = stage.rotator();
    let delay = Duration::from_secs(2);
    // More often than deaths are believed within so short a time.
    for round in 0..25 {
        stage.expire();
        let refused = Fault::error("invalid_refresh_token").delayed(delay);
        stage.fake.inject(REFRESH, refused);
        stage
            .fake
            .inject(REFRESH, Fault::delay(delay).after_effect());
        let waiting = rotator.clone();
        let waiting =
            tokio::spawn(async move { waiting.token_for(&alpha(), Credential::Bot).await });
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
    stage
        .fake
        .inject(REFRESH, Fault::error("invalid_refresh_token"));
    let error = rotator.token_for(&alpha(), Credential::Bot).await;
    let error = error.expect_err("dead");
    assert!(matches!(error, Error::ReinstallNeeded { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_without_our_hearing_of_it_is_one_attempt() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::rate_limited(Duration::from_secs(30)));
    let rotator = rotator_over(&stage, |number| match number {
        0 => Way::Lost,
        _ => Way::Done,
    });
    let error = rotator.token_for(&alpha(), Credential::Bot).await;
    let error = error.expect_err("Slack asks to wait");
    assert!(matches!(error, Error::TryAgain { .. }), "{error:?}");
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.attempts, chain.lease), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_for_seconds_is_waited_for() {
    let stage = installed().await;
    stage.expire();
    let back = tokio::time::Instant::now() + Duration::from_secs(8);
    let rotator = rotator_over(&stage, move |_| match tokio::time::Instant::now() < back {
        true => Way::Failed,
        false => Way::Done,
    });
    let token = rotator.token_for(&alpha(), Credential::Bot).await;
    token.expect("within the caller's patience");
    assert_eq!(stage.refreshes(), 1);
    // And not for ever.
    stage.expire();
    let rotator = rotator_over(&stage, |_| Way::Failed);
    let error = rotator.token_for(&alpha(), Credential::Bot).await;
    let error = error.expect_err("away");
    assert!(matches!(error, Error::Store(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_time_to_try_again_that_only_a_wrong_clock_can_have_written_is_not_kept() {
    let stage = installed().await;
    stage.expire();
    let now = stage.fake.clock().now();
    let set = async |wait: Duration| {
        let mut decide = |chain: Option<&Chain>| {
            let mut next = chain?.clone();
            next.retry_at = Some(now + wait);
            Some(next)
        };
        let updated = stage.store.update(&bot(), None, &mut decide).await;
        updated.expect("answers");
    };
    set(Duration::from_secs(300)).await;
    let error = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    let error = error.expect_err("minutes are meant");
    assert!(matches!(error, Error::TryAgain { .. }), "{error:?}");
    set(3 * HOUR).await;
    let token = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    token.expect("hours are a clock that is wrong");
}

#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_is_five_minutes() {
    let stage = installed().await;
    stage.expire();
    let absurd = Duration::from_secs(u64::MAX);
    stage.fake.inject(REFRESH, Fault::rate_limited(absurd));
    let now = stage.fake.clock().now();
    let outcome = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    let Err(Error::TryAgain { at, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(at, now + Duration::from_secs(300));
}

//! Callers whose database stops responding: each wait ends within the caller's patience.

use std::future::Future;
use std::time::Duration;

use slack_installs::rotation::{CallError, Error};
use slack_installs::store::Credential;
use slack_installs::testing::Fault;
use tokio::time::Instant;

use super::Posting;
use super::support::rotation::{HOUR, REFRESH, Stage, alpha, millis, secs};

/// More calls than any request of a token makes, so that each one is the first that hangs.
const CALLS: u64 = 10;

/// The ages of a token at which it is fresh, due, waited for, and expired.
const AGES: [Duration; 4] = [
    HOUR,
    HOUR.saturating_mul(11),
    Duration::from_secs(11 * 3600 + 55 * 60),
    HOUR.saturating_mul(13),
];

/// Returns a stage whose token has this age, and whose database hangs after this many calls.
async fn hanging(age: Duration, calls: u64) -> Stage {
    let stage = Stage::installed().await;
    stage.fake.advance(age);
    stage.store.backend().hang_after(calls);
    stage
}

/// Returns the result of this call and the time that it took. A call that hangs takes an hour.
async fn timed<T>(call: impl Future<Output = T>) -> (Option<T>, Duration) {
    let begun = Instant::now();
    let outcome = tokio::time::timeout(HOUR, call).await;
    (outcome.ok(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_token_comes_or_the_patience_ends_whichever_call_of_the_database_hangs() {
    let tenant = alpha();
    for age in AGES {
        for calls in 0..CALLS {
            let stage = hanging(age, calls).await;
            let rotator = stage.rotator().within(secs(2));
            let token = rotator.token_for(&tenant, Credential::Bot);
            let (outcome, took) = timed(token).await;
            assert!(took <= secs(2), "{took:?}, {age:?}, {calls} calls");
            match outcome.expect("it ends") {
                Err(error) => assert!(error.is_transient(), "{error:?}"),
                Ok(token) => assert!(stage.fake.is_live(token.access_token.expose())),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_told_from_a_refresh_that_takes_long() {
    let tenant = alpha();
    let stage = hanging(HOUR, 0).await;
    let rotator = stage.rotator();
    let token = rotator.token_for(&tenant, Credential::Bot);
    let (outcome, took) = timed(token).await;
    assert_matches!(outcome, Some(Err(Error::Store(_))));
    assert_eq!(took, secs(20));
    let stage = Stage::installed().await;
    stage.expire();
    stage.fake.inject(REFRESH, Fault::delay(secs(4)).always());
    let rotator = stage.rotator().within(secs(2));
    let outcome = rotator.token_for(&tenant, Credential::Bot).await;
    assert_matches!(outcome, Err(Error::Busy));
}

#[tokio::test(start_paused = true)]
async fn an_installation_is_refreshed_within_the_patience_whichever_call_hangs() {
    for calls in 0..CALLS {
        let stage = Stage::installed().await;
        stage.expire();
        let stored = stage.fetched().await;
        stage.store.backend().hang_after(calls);
        let rotator = stage.rotator().within(secs(2));
        let (refreshed, took) = timed(rotator.refreshed(stored)).await;
        assert!(took <= secs(2), "{took:?}, {calls} calls");
        let error = refreshed.expect("it ends").bot_error;
        assert!(error.is_none_or(|error| error.is_transient()), "{calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn slacks_word_and_the_second_token_of_a_call_share_one_patience() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let ended = Fault::error("token_revoked").delayed(millis(1500));
    stage.fake.inject("auth.test", ended);
    stage.inject(Fault::delay(millis(1500)));
    let rotator = stage.rotator().within(secs(2));
    let tenant = alpha();
    let operation = |_| async { Err::<(), _>(Posting::Revoked) };
    let call = rotator.call(&tenant, Credential::Bot, operation);
    let (outcome, took) = timed(call).await;
    assert_matches!(outcome, Some(Err(CallError::Token(Error::Busy))));
    assert_eq!(took, secs(2));
}

#[tokio::test(start_paused = true)]
async fn the_operations_own_time_is_not_taken_from_the_patience() {
    let tenant = alpha();
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let rotator = stage.rotator().within(secs(2));
    let operation = |token: slack_installs::rotation::Token| {
        let is_live = stage.refreshes() > 0;
        async move {
            tokio::time::sleep(secs(5)).await;
            let token = token.access_token;
            is_live.then_some(token).ok_or(Posting::Expired)
        }
    };
    let called = rotator.call(&tenant, Credential::Bot, operation).await;
    assert!(called.is_ok(), "the operation runs again with a new token");
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_when_the_database_hangs_between_its_two_tokens() {
    let tenant = alpha();
    for posting in [Posting::Expired, Posting::Revoked] {
        for calls in 1..CALLS {
            let stage = hanging(HOUR, calls).await;
            let rotator = stage.rotator().within(secs(2));
            let operation = |_| {
                let posting = posting.clone();
                async { Err::<(), _>(posting) }
            };
            let call = rotator.call(&tenant, Credential::Bot, operation);
            let (outcome, took) = timed(call).await;
            assert!(took <= secs(2), "{posting:?}: {took:?}, {calls} calls");
            let error = outcome.expect("it ends").expect_err("the operation fails");
            if let CallError::Token(error) = error {
                assert!(error.is_transient(), "{error:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaked_tokens_replacement_ends_whichever_call_of_the_database_hangs() {
    let tenant = alpha();
    for calls in 0..CALLS {
        let stage = hanging(HOUR, calls).await;
        let rotator = stage.rotator().within(secs(2));
        let rotated = rotator.rotate_now(&tenant, Credential::Bot);
        let (outcome, took) = timed(rotated).await;
        assert!(took <= secs(2), "{took:?}, {calls} calls");
        if let Err(error) = outcome.expect("it ends") {
            assert!(error.is_transient(), "{error:?}");
        }
    }
}

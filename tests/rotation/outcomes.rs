//! What each outcome of a refresh changes in the chain's record.

use std::ops::RangeInclusive;

use slack_installs::rotation::Error;
use slack_installs::store::{Chain, Credential};
use slack_installs::testing::{Fault, Rotation};

use super::support::hooked_chains::Way;
use super::support::rotation::{
    ALPHA, BotToken as _, REFRESH, Stage, millis, refresh_token, secs, spawn_caller,
};

/// Returns how long the chain waits, in milliseconds.
fn wait(stage: &Stage, chain: &Chain) -> u128 {
    let wait = chain.retry_at.expect("it waits");
    let wait = wait.duration_since(stage.fake.clock().now());
    // Times are stored in whole seconds.
    wait.unwrap_or_default().as_millis()
}

/// Returns 0.5 to 1.5 times a backoff of this many seconds. The margin is due to whole stored
/// seconds.
fn about(seconds: u64) -> RangeInclusive<u128> {
    let millis = u128::from(seconds) * 1000;
    (millis / 2).saturating_sub(1000)..=millis * 3 / 2 + 1000
}

const AT_ONCE: RangeInclusive<u128> = 0..=0;

/// The results of the calls, the number of counted calls, the wait, and the reason.
type Case = (Vec<Fault>, u32, RangeInclusive<u128>, &'static str);

fn cases() -> Vec<Case> {
    let exactly = |seconds: u128| seconds * 1000 - 1000..=seconds * 1000;
    let error = |code: &str| Fault::error(code);
    let limited = || Fault::rate_limited(secs(30));
    let (busy, secret) = ("service_unavailable", "bad_client_secret");
    let lost = Fault::lost;
    let mut cases = vec![
        (vec![limited()], 0, exactly(30), "ratelimited"),
        (vec![error(secret)], 0, AT_ONCE, secret),
        (vec![Fault::unavailable(); 2], 2, about(16), "http_status"),
        (vec![lost(); 2], 2, about(16), "no_answer"),
        (vec![lost(), limited()], 1, exactly(30), "ratelimited"),
        (vec![lost(), error(busy)], 1, about(16), busy),
        (vec![lost(), error(secret)], 1, AT_ONCE, secret),
    ];
    // Slack did nothing.
    for code in [
        busy,
        "ekm_access_denied",
        "invalid_arguments",
        "not_allowed_token_type",
        "ratelimited",
        "team_added_to_org",
    ] {
        cases.push((vec![error(code)], 0, about(16), code));
    }
    // It is unknown what Slack did.
    for code in [
        "internal_error",
        "invalid_auth",
        "invalid_token",
        "some_future_error",
    ] {
        cases.push((vec![error(code); 2], 2, about(16), code));
    }
    cases
}

#[tokio::test(start_paused = true)]
async fn only_calls_whose_outcome_nobody_knows_count_and_each_refusal_waits_its_own_time() {
    for (faults, attempts, waits, reason) in cases() {
        let case = format!("{faults:?}");
        let stage = Stage::installed().await;
        let before = stage.bot_chain().await;
        stage.expire();
        // Not the first failure, so that the backoff differs from no wait.
        stage.change(|chain| chain.failures = 4).await;
        let calls = stage.fake.calls(REFRESH) + faults.len();
        for fault in faults {
            stage.inject(fault);
        }
        let asked = stage.rotator().bot_token().await;
        match asked.expect_err(&case) {
            Error::TryAgain { code, .. } | Error::Configuration { code } => {
                assert_eq!(code.as_str(), reason, "{case}");
            }
            error => panic!("{case}: {error:?}"),
        }
        let after = stage.bot_chain().await;
        assert_eq!(stage.fake.calls(REFRESH), calls, "{case}");
        let chain = &after.chain;
        assert_eq!((chain.attempts, chain.lease), (attempts, None), "{case}");
        assert_eq!((chain.failures, chain.is_dead), (5, false), "{case}");
        assert_eq!(chain.last_error.as_deref(), Some(reason), "{case}");
        let wait = wait(&stage, chain);
        assert!(waits.contains(&wait), "{case}: {wait} ms");
        let tokens = [&before, &after].map(|it| refresh_token(it).expose().to_owned());
        assert_eq!(tokens[0], tokens[1], "{case}");
        let (due_at, retry_at) = (chain.due_at, chain.retry_at);
        let (due_at, retry_at) = (due_at.expect("due"), retry_at.expect("it waits"));
        let apart = retry_at.duration_since(due_at);
        let apart = apart.unwrap_or_else(|error| error.duration());
        assert!(apart <= secs(1), "a worker tries at that time: {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_code_that_ends_an_authorisation_ends_the_chain_and_no_other_does() {
    for code in [
        "account_inactive",
        "authorization_not_found",
        "invalid_grant",
        "invalid_refresh_token",
        "token_expired",
        "token_revoked",
    ] {
        let stage = Stage::installed().await;
        stage.expire();
        stage.inject(Fault::error(code));
        let asked = stage.rotator().bot_token().await;
        let Err(Error::ReinstallNeeded { code: found }) = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(found.as_str(), code);
        let chain = stage.bot_chain().await.chain;
        assert!(chain.is_dead);
        assert_eq!((chain.attempts, chain.lease, chain.due_at), (0, None, None));
    }
    // An IP address that is not on the app's allow-list gets this error too.
    let stage = Stage::installed().await;
    stage.expire();
    let refused = Fault::error("invalid_auth").always();
    stage.inject(refused);
    let rotator = stage.rotator();
    for _ in 0..30 {
        let asked = rotator.bot_token().await;
        assert_matches!(asked, Err(Error::TryAgain { .. }));
        tokio::time::sleep(secs(60)).await;
    }
    assert!(!stage.bot_chain().await.chain.is_dead);
    stage.fake.clear_faults();
    tokio::time::sleep(secs(120)).await;
    let token = rotator.bot_token().await;
    token.expect("the chain was not marked dead");
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_waits_twice_as_long_each_time_and_not_all_alike() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(8).await;
    stage.expire();
    let away = Fault::error("service_unavailable").always();
    stage.inject(away);
    let rotator = stage.rotator();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let mut waits = Vec::new();
        for tenant in &tenants {
            let now = stage.fake.clock().now();
            let asked = rotator.token_for(tenant, Credential::Bot).await;
            let Err(Error::TryAgain { at, .. }) = asked else {
                panic!("{asked:?}")
            };
            waits.push(at.duration_since(now).expect("later").as_millis());
        }
        let range = seconds * 500..=seconds * 1500;
        assert!(waits.iter().all(|wait| range.contains(wait)), "{waits:?}");
        waits.sort_unstable();
        waits.dedup();
        // Two tenants may draw the same millisecond.
        assert!(waits.len() > tenants.len() / 2, "the tenants' waits differ");
        tokio::time::sleep(secs(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_too_many_are_refused_a_chain_keeps_its_doubt_and_waits_five_minutes() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(20).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage.expire();
    let refused = || Fault::error("invalid_refresh_token");
    stage.inject(refused().times(20));
    let rotator = stage.rotator();
    for tenant in &tenants {
        let asked = rotator.token_for(tenant, Credential::Bot).await;
        assert_matches!(asked, Err(Error::ReinstallNeeded { .. }));
    }
    // The first call is lost, and its outcome is unknown.
    stage.inject(Fault::lost());
    stage.inject(refused());
    let now = stage.fake.clock().now();
    let asked = rotator.bot_token().await;
    let Err(Error::TryAgain { at, .. }) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(at, now + secs(300));
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.attempts, chain.is_dead), (1, false));
}

#[tokio::test(start_paused = true)]
async fn a_death_that_may_not_have_been_written_is_not_counted() {
    for way in [|| Way::Failed, || Way::Lost] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = stage.fleet(26).await;
        stage.expire();
        let refused = Fault::error("invalid_refresh_token").always();
        stage.inject(refused);
        // For each tenant but the last, the lease is taken, and the write of the refusal fails or
        // is lost.
        let rotator = stage.rotator_with_updates(move |number| {
            if number < 50 && number % 2 == 1 {
                way()
            } else {
                Way::Done
            }
        });
        let (last, first) = tenants.split_last().expect("26");
        for tenant in first {
            let asked = rotator.token_for(tenant, Credential::Bot).await;
            assert_matches!(asked, Err(Error::Store(_)));
        }
        let asked = rotator.token_for(last, Credential::Bot).await;
        assert_matches!(asked, Err(Error::ReinstallNeeded { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_given_back_lapses_by_itself() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::rate_limited(secs(1)));
    let rotator = stage.rotator_with_updates(|number| match number {
        0 => Way::Done,
        _ => Way::Failed,
    });
    let asked = rotator.bot_token().await;
    let Err(Error::TryAgain { at, .. }) = asked else {
        panic!("{asked:?}")
    };
    let lease = stage.bot_chain().await.chain.lease.expect("still held");
    assert!(at >= lease.until, "no process can refresh before");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_lost_is_not_repeated_for_an_installation_that_was_replaced_meanwhile() {
    let stage = Stage::installed().await;
    stage.expire();
    let calls = stage.fake.calls(REFRESH);
    let lost = Fault::lost().delayed(secs(2));
    stage.inject(lost);
    let rotator = stage.rotator();
    let caller = spawn_caller(&rotator);
    tokio::time::sleep(secs(1)).await;
    // An install exchanges its code with the same method.
    stage.install(ALPHA, "chat:write", "").await;
    let new = stage.bot_chain().await;
    let token = caller.await.expect("no panic").expect("a token");
    assert_eq!(token.access_token.expose(), new.grant.access_token.expose());
    assert_eq!(stage.fake.calls(REFRESH), calls + 2);
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_noted_is_repeated_all_the_same() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::lost().after_effect());
    let rotator = stage.rotator_with_updates(|number| match number {
        1 => Way::Failed,
        _ => Way::Done,
    });
    let hurried = rotator.within(secs(5));
    let token = hurried.bot_token().await;
    let token = token.expect("the pair is saved although the call was not noted");
    assert!(stage.fake.is_live(token.access_token.expose()));
    assert_eq!(stage.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_that_was_not_noted_gives_back_no_other_call() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::lost());
    stage.inject(Fault::rate_limited(secs(30)));
    let rotator = stage.rotator_with_updates(|number| match number {
        1 => Way::Failed,
        _ => Way::Done,
    });
    let asked = rotator.bot_token().await;
    asked.expect_err("Slack limits the rate");
    let chain = stage.bot_chain().await.chain;
    assert_eq!(
        chain.attempts, 1,
        "the outcome of the first call is unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_within_six_seconds_is_waited_for_and_a_later_one_is_asked_for_again() {
    for (delay, calls) in [(5_900, 1), (6_100, 2)] {
        let stage = Stage::installed().await;
        stage.expire();
        let slow = Fault::delay(millis(delay)).after_effect();
        stage.inject(slow);
        let token = stage.rotator().bot_token().await;
        token.expect("a token");
        assert_eq!(stage.refreshes(), calls, "after {delay} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_less_than_seven_seconds_leaves_time_for_the_call() {
    for (delay, is_too_long) in [(6_900, false), (7_100, true)] {
        let stage = Stage::installed().await;
        stage.expire();
        let rotator = stage.rotator_with_updates(move |number| match number {
            0 => Way::Slow(millis(delay)),
            _ => Way::Done,
        });
        let asked = rotator.bot_token().await;
        let calls = stage.refreshes();
        assert_eq!(
            (asked.is_err(), calls),
            (is_too_long, usize::from(!is_too_long))
        );
    }
    // The process stalls before it repeats the call. The first call may have bought a pair.
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::lost());
    let rotator = stage.rotator_with_updates(|number| match number {
        1 => Way::Slow(secs(8)),
        _ => Way::Done,
    });
    let asked = rotator.bot_token().await;
    let Err(Error::TryAgain { at, code }) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(code.as_str(), "stalled");
    assert!(
        at <= stage.fake.clock().now(),
        "the next caller may call Slack at once"
    );
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.attempts, chain.lease), (1, None));
}

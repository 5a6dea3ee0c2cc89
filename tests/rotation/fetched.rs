//! Installations that were fetched, and callers that use what they got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, GracePolicy, Rotation};
use slack_installs::{
    InstallationStore as _, RotationConfig, StoredInstallation, TokenRotator, UserId,
};

use super::support::hooked_chains::Way;
use super::support::rotation::{
    ADMIN, ALPHA, BotToken as _, HOUR, Stage, admin, alpha, millis, refresh_token, secs, settle,
    spawn_caller,
};

const MINUTE: Duration = secs(60);

async fn fetched(stage: &Stage, user: Option<&str>) -> StoredInstallation {
    let user = user.map(|user| UserId::new(user).expect("an id"));
    let found = stage.store.fetch(&alpha(), user.as_ref()).await;
    found.expect("available").expect("installed")
}

fn counted(stage: &Stage) -> (TokenRotator, impl Fn() -> usize) {
    let updates = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&updates);
    let rotator = stage.rotator_with_updates(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Way::Done
    });
    (rotator, move || updates.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn an_installation_whose_tokens_do_not_end_costs_no_read_and_no_write() {
    let stage = Stage::unrotated().await;
    stage.install(ALPHA, "chat:write", "").await;
    stage.fake.advance(1000 * HOUR);
    let installation = fetched(&stage, None).await;
    let (rotator, updates) = counted(&stage);
    let reads = stage.reads();
    let refreshed = rotator.refreshed(installation).await;
    assert!(refreshed.installation.bot.is_some());
    settle().await;
    assert_eq!((stage.reads(), updates()), (reads, 0));
}

/// Returns an installation whose token is due more than two hours before it expires, or less.
async fn due_early(is_early: bool) -> Stage {
    let stage = Stage::installed().await;
    loop {
        let chain = stage.bot_chain().await.chain;
        let (ends, soft_at) = (chain.expires_at, chain.soft_at());
        if (ends.expect("it ends") - 2 * HOUR > soft_at.expect("it ends")) == is_early {
            return stage;
        }
        stage.install(ALPHA, "chat:write", "").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetched_token_is_replaced_behind_its_back_as_soon_as_its_chain_is_due() {
    for is_early in [true, false] {
        let stage = due_early(is_early).await;
        let soft_at = stage.bot_chain().await.chain.soft_at().expect("it ends");
        let (rotator, updates) = counted(&stage);
        // From the earliest time at which a chain may be due, once each minute.
        tokio::time::sleep(12 * HOUR - 2 * HOUR - 29 * MINUTE).await;
        for minute in 0..70 {
            let installation = fetched(&stage, None).await;
            let refreshed = rotator.refreshed(installation).await;
            assert!(refreshed.installation.bot.is_some());
            settle().await;
            if stage.refreshes() > 0 {
                break;
            }
            // One update noted the use, and one checked the chain in each half hour.
            let looks = if minute < 30 { 2 } else { 3 };
            assert_eq!(updates(), looks, "early: {is_early}, in minute {minute}");
            tokio::time::sleep(MINUTE).await;
        }
        let late = stage.fake.clock().now().duration_since(soft_at);
        let late = late.expect("replaced when the chain is due");
        assert!(late <= MINUTE, "early: {is_early}, {late:?}");
        let chain = stage.bot_chain().await.chain;
        assert_eq!(
            (chain.generation, chain.idle),
            (1, 0),
            "the chain is in use"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn minutes_before_its_end_a_fetched_token_is_replaced_or_left_out() {
    let stage = Stage::installed().await;
    tokio::time::sleep(12 * HOUR - 4 * MINUTE).await;
    let installation = fetched(&stage, None).await;
    let old = installation.bot.as_ref().expect("a bot");
    let old = old.grant.access_token.expose().to_owned();
    assert!(stage.fake.is_live(&old));
    stage.inject(Fault::error("service_unavailable"));
    let rotator = stage.rotator();
    let refreshed = rotator.refreshed(installation).await;
    assert!(refreshed.installation.bot.is_none());
    assert_matches!(refreshed.bot_error, Some(Error::TryAgain { .. }));
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Err(Error::TryAgain { .. }));
    assert_eq!(
        stage.fake.calls("auth.test"),
        0,
        "the token's expiry is known"
    );
    tokio::time::sleep(secs(3)).await;
    let refreshed = rotator.refreshed(fetched(&stage, None).await).await;
    let bot = refreshed.installation.bot.expect("a bot");
    assert_ne!(bot.grant.access_token.expose(), old);
    let caller = stage.bot_chain().await.chain;
    assert_eq!((caller.generation, caller.idle), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pair_is_handed_out_whole() {
    let stage = Stage::installed().await;
    stage.expire();
    let rotator = stage.rotator();
    let refreshed = rotator.refreshed(fetched(&stage, None).await).await;
    let stored = stage.bot_chain().await;
    let bot = refreshed.installation.bot.expect("a bot");
    assert_eq!(
        bot.grant.access_token.expose(),
        stored.grant.access_token.expose()
    );
    let refresh = bot
        .grant
        .refresh_token
        .expect("the refresh token is of the same pair");
    assert_eq!(refresh.expose(), refresh_token(&stored).expose());
    assert_eq!(bot.grant.expires_at, stored.grant.expires_at);
}

#[tokio::test(start_paused = true)]
async fn a_fetched_token_that_is_due_is_looked_at_when_there_is_something_to_do() {
    let cases = [
        // The fault, and for how many seconds no process can refresh.
        (Fault::rate_limited(secs(120)), 120),
        (Fault::error("bad_client_secret").always(), 60),
        (Fault::error("invalid_refresh_token"), 60),
    ];
    for (trouble, seconds) in cases {
        let case = format!("{trouble:?}");
        let stage = Stage::installed().await;
        stage.soften();
        stage.inject(trouble);
        let (rotator, updates) = counted(&stage);
        let look = async || {
            let refreshed = rotator.refreshed(fetched(&stage, None).await).await;
            assert!(refreshed.installation.bot.is_some(), "{case}");
            settle().await;
        };
        look().await;
        let first = updates();
        for _ in 0..seconds - 1 {
            tokio::time::sleep(secs(1)).await;
            look().await;
        }
        assert_eq!(updates(), first, "{case}");
        tokio::time::sleep(secs(2)).await;
        look().await;
        assert!(updates() > first, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_to_wait_that_another_process_noted_is_read_once_and_kept() {
    let stage = Stage::installed().await;
    stage.soften();
    let until = stage.fake.clock().now() + secs(100);
    stage.change(|chain| chain.retry_at = Some(until)).await;
    let (rotator, updates) = counted(&stage);
    for second in 0..103 {
        let refreshed = rotator.refreshed(fetched(&stage, None).await).await;
        assert!(refreshed.installation.bot.is_some());
        settle().await;
        if second < 100 {
            // One update noted the use, and one checked the chain.
            assert_eq!(updates(), 2, "in second {second}");
        }
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn the_use_of_a_chain_that_was_parked_makes_it_due_again() {
    for is_fetched in [false, true] {
        let stage = Stage::installed().await;
        stage.fake.advance(HOUR);
        stage
            .change(|chain| {
                chain.idle = 2;
                chain.due_at = Some(chain.issued_at + 480 * HOUR);
            })
            .await;
        let rotator = stage.rotator();
        if is_fetched {
            drop(rotator.refreshed(fetched(&stage, None).await).await)
        } else {
            let token = rotator.bot_token().await;
            token.expect("fresh");
        }
        settle().await;
        let chain = stage.bot_chain().await.chain;
        assert_eq!(chain.idle, 0, "fetched: {is_fetched}");
        let due_at = chain.due_at.expect("the chain has a due time");
        let soft_at = chain.soft_at().expect("it ends");
        let apart = due_at.duration_since(soft_at);
        let apart = apart.unwrap_or_else(|error| error.duration());
        assert!(apart < secs(1), "fetched: {is_fetched}");
        assert_eq!(stage.refreshes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_strict_process_waits_also_for_what_was_fetched() {
    let stage = Stage::installed().await;
    stage.soften();
    let strict = stage.rotator_with(RotationConfig {
        strict: true,
        ..stage.config()
    });
    stage.inject(Fault::error("service_unavailable"));
    let refreshed = strict.refreshed(fetched(&stage, None).await).await;
    assert_matches!(refreshed.bot_error, Some(Error::TryAgain { .. }));
    assert_eq!(
        stage.fake.calls("auth.test"),
        0,
        "Slack's confirmation would not suffice"
    );
    tokio::time::sleep(secs(3)).await;
    let refreshed = strict.refreshed(fetched(&stage, None).await).await;
    assert!(refreshed.installation.bot.is_some());
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_fetched_tokens_the_one_under_suspicion_is_asked_about() {
    for suspect in [Credential::Bot, admin()] {
        let stage = Stage::new(Rotation {
            policy: GracePolicy::AllLive,
            ..Rotation::default()
        })
        .await;
        stage.install(ALPHA, "chat:write", "search:read").await;
        stage.soften();
        let lost = Fault::lost().after_effect().times(2);
        stage.inject(lost);
        let first = stage.rotator().token_for(&alpha(), suspect.clone()).await;
        first.expect("the token is not known to be revoked");
        settle().await;
        // No process can refresh, and Slack reports which token is alive.
        let away = Fault::error("service_unavailable").always();
        stage.inject(away);
        let installation = fetched(&stage, Some(ADMIN)).await;
        let refreshed = stage.rotator().refreshed(installation).await;
        let found = &refreshed.installation;
        let has = (found.bot.is_some(), found.user.is_some());
        assert_eq!(
            has,
            (suspect != Credential::Bot, suspect == Credential::Bot)
        );
        let errors = (
            refreshed.bot_error.is_some(),
            refreshed.user_error.is_some(),
        );
        assert_eq!(errors, (!has.0, !has.1));
        assert_eq!(stage.fake.calls("auth.test"), 1);
    }
}

/// Returns a stage with a token that is due, suspect and alive, and that no process can replace.
async fn suspect() -> Stage {
    let stage = Stage::installed().await;
    stage.soften();
    stage.inject(Fault::lost().times(2));
    let first = stage.rotator().bot_token().await;
    first.expect("the token is still valid");
    settle().await;
    assert_eq!(stage.fake.calls("auth.test"), 0, "no caller waits");
    assert!(stage.bot_chain().await.chain.is_suspect());
    let away = Fault::error("service_unavailable").always();
    stage.inject(away);
    stage
}

#[tokio::test(start_paused = true)]
async fn slacks_word_on_a_token_holds_for_half_a_minute() {
    let stage = suspect().await;
    let rotator = stage.rotator();
    for (pause, asked) in [(0, 1), (29, 1), (2, 2), (28, 2), (4, 3)] {
        tokio::time::sleep(secs(pause)).await;
        let token = rotator.bot_token().await;
        token.expect("Slack accepts the token");
        assert_eq!(stage.fake.calls("auth.test"), asked, "{pause} s later");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_taken_for_over_because_slack_is_slow_to_say() {
    let stage = suspect().await;
    let slow = Fault::delay(secs(7)).always();
    stage.fake.inject("auth.test", slow);
    let token = stage.rotator().bot_token().await;
    token.expect("Slack does not report the token as revoked");
    let strict = stage.rotator_with(RotationConfig {
        strict: true,
        ..stage.config()
    });
    let asked = strict.bot_token().await;
    assert_matches!(asked, Err(Error::TryAgain { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_end_has_come_is_not_asked_about() {
    let stage = suspect().await;
    stage.fake.advance(2 * HOUR);
    tokio::time::sleep(MINUTE).await;
    let asked = stage.rotator().bot_token().await;
    assert_matches!(asked, Err(Error::TryAgain { .. }));
    assert!(stage.bot_chain().await.chain.is_suspect());
    assert_eq!(stage.fake.calls("auth.test"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_knows_the_outcome_of_is_repeated_though_the_token_is_fresh() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let now = stage.fake.clock().now();
    stage
        .change(|chain| {
            chain.attempts = 1;
            chain.attempted_at = Some(now);
        })
        .await;
    let token = stage.rotator().bot_token().await;
    token.expect("it serves");
    settle().await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_race_is_open_for_as_long_as_slack_says_nothing_about_its_winner() {
    for silence in [Fault::unavailable(), Fault::error("invalid_auth")] {
        let case = format!("{silence:?}");
        let stage = Stage::installed().await;
        stage.expire();
        stage.fake.inject("auth.test", silence.always());
        let late = |seconds| Fault::delay(secs(seconds)).after_effect();
        stage.inject(late(3));
        stage.inject(late(5));
        let clock = stage.fake.clock();
        let ahead = slack_installs::Clock::from_fn(move || clock.now() + MINUTE);
        let (one, two) = (stage.rotator(), stage.rotator().with_clock(ahead));
        let first = spawn_caller(&one);
        tokio::time::sleep(secs(1)).await;
        let second = spawn_caller(&two);
        tokio::time::sleep(millis(5_500)).await;
        let chain = stage.bot_chain().await.chain;
        assert!(chain.is_suspect(), "{case}");
        assert!(
            chain.retry_at.is_some(),
            "the loser of the race asks Slack: {case}"
        );
        tokio::time::sleep(secs(6)).await;
        let chain = stage.bot_chain().await.chain;
        assert!(chain.is_suspect(), "{case}");
        assert_eq!((chain.generation, stage.refreshes()), (1, 2), "{case}");
        drop((first.await, second.await));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetched_token_under_suspicion_is_asked_about_though_it_is_not_due() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    stage.slack().auth_revoke(&old).await.expect("revoked");
    stage.change(|chain| chain.attempts = 2).await;
    let away = Fault::error("service_unavailable").always();
    stage.inject(away);
    let refreshed = stage.rotator().refreshed(fetched(&stage, None).await).await;
    assert!(refreshed.installation.bot.is_none());
    assert_matches!(refreshed.bot_error, Some(Error::TryAgain { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_fetched_token_that_is_due_and_serves_costs_no_read_of_its_caller() {
    let stage = Stage::installed().await;
    stage.soften();
    let installation = fetched(&stage, None).await;
    let reads = stage.reads();
    let rotator = stage.rotator();
    let refreshed = rotator.refreshed(installation).await;
    assert!(refreshed.installation.bot.is_some());
    assert_eq!(stage.reads(), reads, "before any other task runs");
}

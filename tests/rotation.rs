//! One refresh per expiry, whoever asks and whatever breaks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slack_installs::rotation::{CallError, Error, RefusedToken, WorkerConfig};
use slack_installs::secret::ClientSecret;
use slack_installs::slack::ClientCredentials;
use slack_installs::store::Credential;
use slack_installs::testing::Faults;
use slack_installs::testing::{Fault, GracePolicy, Rotation, Workspace};
use slack_installs::{
    InstallationKey, InstallationStore as _, RotationConfig, TeamId, TokenRotator,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[path = "rotation/clocks.rs"]
mod clocks;
#[path = "rotation/doubt.rs"]
mod doubt;
#[path = "rotation/queue.rs"]
mod queue;
#[path = "rotation/stall.rs"]
mod stall;
#[macro_use]
mod support;
#[macro_use]
#[path = "support/rotation_behaviour.rs"]
mod rotation_behaviour;

use support::rotation::{
    ADMIN, ALPHA, HOUR, REFRESH, Rewritten, Stage, alpha, refresh_token, settle,
};

/// What does not depend on time is run over every backend; here for itself.
mod in_memory {
    use std::sync::Arc;

    use slack_installs::backend::{Backend, MemoryBackend};

    async fn open() -> (Arc<dyn Backend>, ()) {
        (Arc::new(MemoryBackend::default()), ())
    }

    rotation_behaviour!(open);
}

/// The clock of a node that is this much ahead.
fn ahead(stage: &Stage, by: Duration) -> slack_installs::Clock {
    let clock = stage.fake.clock();
    slack_installs::Clock::from_fn(move || clock.now() + by)
}

async fn installed() -> Stage {
    installed_with(Rotation::default()).await
}

async fn installed_with(rotation: Rotation) -> Stage {
    let stage = Stage::new(rotation).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage
}

/// Everybody asks at once.
async fn herd(rotators: &[TokenRotator], callers: usize) -> Vec<Result<String, Error>> {
    let mut herd = JoinSet::new();
    for rotator in rotators {
        for _ in 0..callers {
            let rotator = rotator.clone();
            herd.spawn(async move {
                let token = rotator.token_for(&alpha(), Credential::Bot).await?;
                Ok(token.access_token.expose().to_owned())
            });
        }
    }
    herd.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_an_expired_token_cost_one_refresh() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_millis(100)));
    let tokens = herd(&[stage.rotator()], 1000).await;
    assert_eq!(stage.refreshes(), 1);
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    let stored = chain.grant.access_token.expose();
    assert!(stage.fake.is_live(stored));
    assert!(
        tokens
            .iter()
            .all(|token| token.as_ref().is_ok_and(|token| token == stored))
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_due_costs_no_call() {
    let stage = installed().await;
    stage.fake.advance(9 * HOUR);
    assert!(herd(&[stage.rotator()], 10).await.iter().all(Result::is_ok));
    settle().await;
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_rotate_is_left_alone() {
    let stage = Stage::unrotated().await;
    stage.install(ALPHA, "chat:write", "").await;
    stage.fake.advance(1000 * HOUR);
    let token = stage
        .rotator()
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("a token");
    assert_eq!(token.expires_at, None);
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_in_the_soft_window_wait_for_nothing() {
    let stage = installed().await;
    let old = stage.bot_chain().await;
    stage.soften();
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(5)));
    let asked = Instant::now();
    let tokens = herd(&[stage.rotator()], 100).await;
    assert_eq!(
        Instant::now(),
        asked,
        "the paused clock moves only for those who wait"
    );
    let served = old.grant.access_token.expose();
    assert!(
        tokens
            .iter()
            .all(|token| token.as_ref().is_ok_and(|token| token == served))
    );
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        stage.bot_chain().await.chain.generation,
        1,
        "replaced behind their backs"
    );
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_soft_failure_is_nobodys_error_and_a_hard_one_is() {
    let stage = installed().await;
    stage.soften();
    stage.fake.inject(
        REFRESH,
        Fault::rate_limited(Duration::from_secs(30)).always(),
    );
    let rotator = stage.rotator();
    assert!(rotator.token_for(&alpha(), Credential::Bot).await.is_ok());
    settle().await;
    assert_eq!(stage.refreshes(), 0, "the fault strikes first");
    stage.fake.advance(2 * HOUR);
    let error = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("expired");
    assert!(matches!(error, Error::TryAgain { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn strict_callers_wait_for_a_token_that_is_due() {
    let stage = installed().await;
    stage.soften();
    let strict = || RotationConfig {
        strict: true,
        ..stage.config()
    };
    stage.fake.inject(REFRESH, Fault::unavailable().times(2));
    let rotator = stage.rotator_with(strict());
    let error = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("refused");
    assert!(matches!(error, Error::TryAgain { .. }), "{error:?}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("refreshed");
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_caller_that_goes_away_changes_nothing() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(1)));
    let rotator = stage.rotator();
    let (key, impatient) = (alpha(), rotator.clone());
    let first = impatient.token_for(&key, Credential::Bot);
    let gone = tokio::time::timeout(Duration::from_millis(10), first).await;
    assert!(gone.is_err(), "dropped in the middle of the call");
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("the refresh went on");
    assert_eq!(stage.refreshes(), 1);
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_patience_ends_is_told_and_the_refresh_goes_on() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(5)));
    let rotator = stage.rotator();
    let hurried = rotator.within(Duration::from_secs(3));
    let error = hurried
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("too slow");
    assert!(matches!(error, Error::Busy) && error.is_transient());
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("a token");
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_frees_the_chain() {
    let stage = installed().await;
    stage.expire();
    let rotator = stage.dying(1);
    let error = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("panicked");
    assert!(matches!(error, Error::Interrupted), "{error:?}");
    // The lease of the dead task lapses, and the same refresh token is taken again.
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("recovered");
    assert!(stage.bot_chain().await.chain.lease.is_none());
    assert_eq!(stage.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_counts_as_a_lost_answer() {
    let stage = installed().await;
    stage.expire();
    let calls = AtomicUsize::new(0);
    let transport = Rewritten(stage.fake.transport(), move |_: &str, body: Bytes| {
        assert!(
            calls.fetch_add(1, Ordering::SeqCst) > 0,
            "on purpose: the first call panics"
        );
        body
    });
    let rotator = stage.rotator_over(stage.config(), transport);
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("asked for once more");
    assert_eq!(stage.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_once_more_with_the_same_refresh_token() {
    for policy in GracePolicy::ALL {
        let stage = installed_with(Rotation {
            policy,
            ..Rotation::default()
        })
        .await;
        let old = stage.bot_chain().await;
        stage.expire();
        stage.fake.inject(REFRESH, Fault::lost().after_effect());
        let token = stage.rotator().token_for(&alpha(), Credential::Bot).await;
        assert_eq!(
            stage.fake.uses(refresh_token(&old).expose()),
            2,
            "{policy:?}"
        );
        assert_eq!(stage.bot_chain().await.chain.generation, 1, "{policy:?}");
        // Where only the first pair lives, what was lost is lost.
        if policy != GracePolicy::FirstOnly {
            let token = token.expect("a token");
            assert!(
                stage.fake.is_live(token.access_token.expose()),
                "{policy:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_for_the_lease_is_kept() {
    // Only the pair that was issued first lives, and it comes after ten seconds.
    let policy = GracePolicy::FirstOnly;
    let stage = installed_with(Rotation {
        policy,
        ..Rotation::default()
    })
    .await;
    stage.expire();
    let late = Duration::from_secs(10);
    stage
        .fake
        .inject(REFRESH, Fault::delay(late).after_effect());
    let rotator = stage.rotator();
    let asked = rotator.token_for(&alpha(), Credential::Bot).await;
    assert!(
        matches!(asked, Ok(_) | Err(Error::TryAgain { .. })),
        "{asked:?}"
    );
    assert!(
        rotator.shutdown(Duration::from_secs(30)).await,
        "it waits for stragglers"
    );
    let chain = stage.bot_chain().await;
    let mut tokens = chain.grant.refresh_token.iter().chain(&chain.alternates);
    assert!(tokens.any(|token| stage.fake.is_refreshable(token.expose())));
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_pair_that_the_database_does_not_take_yet() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(1)));
    let rotator = stage.rotator();
    let waiting = tokio::spawn({
        let rotator = rotator.within(Duration::from_secs(10));
        async move { rotator.token_for(&alpha(), Credential::Bot).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let down = Faults {
        lost_commits: 1,
        lost_reads: 1,
        ..Faults::none()
    };
    stage.store.backend().set_faults(down);
    let error = waiting
        .await
        .expect("no panic")
        .expect_err("nothing is handed out unsaved");
    assert!(matches!(error, Error::Busy), "{error:?}");
    tokio::time::sleep(Duration::from_secs(50)).await;
    stage.store.backend().set_faults(Faults::none());
    assert!(
        rotator.shutdown(Duration::from_secs(30)).await,
        "shutdown waits for the save"
    );
    assert_eq!(stage.refreshes(), 1);
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    assert!(stage.fake.is_live(chain.grant.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_has_begun_and_begins_nothing() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(4)));
    let rotator = stage.rotator();
    let caller = tokio::spawn({
        let rotator = rotator.clone();
        async move { rotator.token_for(&alpha(), Credential::Bot).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !rotator.shutdown(Duration::from_secs(1)).await,
        "it is still running"
    );
    assert!(rotator.shutdown(Duration::from_secs(30)).await);
    caller
        .await
        .expect("no panic")
        .expect("the caller got its token");
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
    stage.expire();
    let error = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("closed");
    assert!(matches!(error, Error::Interrupted), "{error:?}");
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_minimal_answer_keeps_the_scopes_that_are_known() {
    let stage = installed_with(Rotation {
        is_minimal: true,
        ..Rotation::default()
    })
    .await;
    stage.expire();
    let token = stage
        .rotator()
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("a token");
    assert!(token.scopes.contains("chat:write"));
    assert!(stage.bot_chain().await.grant.scopes.contains("chat:write"));
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_another_place_is_not_stored() {
    let foreign = [
        ("app_id", "\"A0OTHER0001\""),
        ("team", "{\"id\":\"T0BRAVO0002\",\"name\":\"Bravo\"}"),
        ("token_type", "\"user\""),
    ];
    for (field, value) in foreign {
        let stage = installed().await;
        let before = stage.bot_chain().await;
        stage.expire();
        let transport = Rewritten(stage.fake.transport(), move |path: &str, body: Bytes| {
            let mut answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            if path.ends_with(REFRESH) {
                answer[field] = serde_json::from_str(value).expect("JSON");
            }
            Bytes::from(answer.to_string())
        });
        let rotator = stage.rotator_over(stage.config(), transport);
        let error = rotator
            .token_for(&alpha(), Credential::Bot)
            .await
            .expect_err("refused");
        assert!(
            matches!(error, Error::TryAgain { .. }),
            "{field}: {error:?}"
        );
        let after = stage.bot_chain().await;
        assert_eq!(after.chain.generation, 0, "{field}");
        assert!(
            !after.chain.is_dead && after.chain.last_error.is_some(),
            "{field}"
        );
        assert_eq!(
            refresh_token(&after).expose(),
            refresh_token(&before).expose(),
            "{field}"
        );
        // Well again within the grace, nothing is lost.
        tokio::time::sleep(Duration::from_secs(3)).await;
        stage
            .rotator()
            .token_for(&alpha(), Credential::Bot)
            .await
            .expect("recovered");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_access_token_of_a_dead_chain_serves_to_its_end_and_no_longer() {
    let stage = installed().await;
    let old = stage.bot_chain().await;
    stage
        .slack()
        .auth_revoke_refresh_token(refresh_token(&old))
        .await
        .expect("revoked");
    stage.soften();
    let rotator = stage.rotator();
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("still alive");
    settle().await;
    let token = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("still alive");
    assert!(token.is_last);
    let strict = stage.rotator_with(RotationConfig {
        strict: true,
        ..stage.config()
    });
    let error = strict
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("strict");
    assert!(matches!(error, Error::ReinstallNeeded { .. }), "{error:?}");
    stage.fake.advance(2 * HOUR);
    let error = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect_err("over");
    assert!(matches!(error, Error::ReinstallNeeded { .. }), "{error:?}");
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn our_own_wrong_secret_kills_nobody_and_opens_a_breaker() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, 50).await;
    stage.expire();
    let wrong = ClientCredentials {
        client_id: stage.fake.client_id(),
        client_secret: ClientSecret::new("not-the-secret").expect("plausible"),
    };
    let rotator = stage.rotator_with(RotationConfig::new(wrong));
    for tenant in &tenants {
        let error = rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect_err("refused");
        assert!(matches!(error, Error::Configuration { .. }), "{error:?}");
    }
    let spent = stage.fake.calls(REFRESH) - tenants.len();
    assert!(
        spent <= 3,
        "{spent} calls with a secret that is known to be wrong"
    );
    let rotator = stage.rotator();
    for tenant in &tenants {
        rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect("nobody died");
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_lets_one_call_find_out_that_all_is_well_again() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, 8).await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::error("bad_client_secret"));
    let rotator = stage.rotator();
    let ask = async || {
        let mut callers = JoinSet::new();
        for tenant in tenants.clone() {
            let rotator = rotator.clone();
            callers.spawn(async move { rotator.token_for(&tenant, Credential::Bot).await });
        }
        callers.join_all().await
    };
    let first = rotator.token_for(&tenants[0], Credential::Bot).await;
    assert!(
        matches!(first, Err(Error::Configuration { .. })),
        "{first:?}"
    );
    for outcome in ask().await {
        assert!(
            matches!(outcome, Err(Error::Configuration { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(stage.refreshes(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(1)));
    let outcomes = ask().await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((served, stage.refreshes()), (1, 1), "one finds out");
    for outcome in ask().await {
        outcome.expect("closed again");
    }
    assert_eq!(stage.refreshes(), tenants.len());
}

#[tokio::test(start_paused = true)]
async fn many_deaths_at_once_are_not_believed() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, 40).await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::error("invalid_refresh_token").always());
    let rotator = stage.rotator();
    let mut dead = 0;
    for tenant in &tenants {
        match rotator.token_for(tenant, Credential::Bot).await {
            Err(Error::ReinstallNeeded { .. }) => dead += 1,
            Err(Error::TryAgain { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dead, 20);
    stage.fake.clear_faults();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut well = 0;
    for tenant in &tenants {
        well += usize::from(rotator.token_for(tenant, Credential::Bot).await.is_ok());
    }
    assert_eq!(well, 20, "the others only waited");
}

#[tokio::test(start_paused = true)]
async fn slacks_outage_is_waited_out_and_kills_nobody() {
    let stage = installed().await;
    stage.expire();
    stage.fake.inject(REFRESH, Fault::unavailable().always());
    let rotator = stage.rotator();
    for _ in 0..200 {
        let error = rotator
            .token_for(&alpha(), Credential::Bot)
            .await
            .expect_err("down");
        assert!(matches!(error, Error::TryAgain { .. }), "{error:?}");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let calls = stage.fake.calls(REFRESH);
    assert!(calls < 150, "{calls} calls in half an hour of outage");
    stage.fake.clear_faults();
    tokio::time::sleep(Duration::from_secs(120)).await;
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("a token");
}

/// The host's own error.
#[derive(Debug)]
enum Posting {
    Expired,
    Other,
}

impl RefusedToken for Posting {
    fn is_token_expired(&self) -> bool {
        matches!(self, Self::Expired)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_meets_token_expired_gets_one_refresh_and_one_more_try() {
    let stage = installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await;
    let tries = AtomicUsize::new(0);
    let rotator = stage.rotator();
    let posted = rotator
        .call(&alpha(), Credential::Bot, |token| {
            tries.fetch_add(1, Ordering::SeqCst);
            let is_old = token.access_token.expose() == old.grant.access_token.expose();
            async move {
                if is_old {
                    Err(Posting::Expired)
                } else {
                    Ok(token.expires_at)
                }
            }
        })
        .await;
    assert!(posted.is_ok_and(|expires_at| expires_at.is_some()));
    assert_eq!((tries.load(Ordering::SeqCst), stage.refreshes()), (2, 1));
    // A host whose error means something else is not helped by a refresh.
    let failed = rotator
        .call(&alpha(), Credential::Bot, |_| async {
            Err::<(), _>(Posting::Other)
        })
        .await;
    assert!(matches!(failed, Err(CallError::Operation(Posting::Other))));
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_always_says_token_expired_does_not_make_a_refresh_storm() {
    let stage = installed().await;
    stage.fake.advance(HOUR);
    let rotator = stage.rotator();
    for _ in 0..50 {
        let failed = rotator
            .call(&alpha(), Credential::Bot, |_| async {
                Err::<(), _>(Posting::Expired)
            })
            .await;
        assert!(failed.is_err());
    }
    assert_eq!(stage.refreshes(), 1);
    assert_eq!(stage.fake.live_tokens(ALPHA, None), 2);
}

#[tokio::test(start_paused = true)]
async fn at_most_two_access_tokens_live_by_our_doing() {
    // A third would end the first, and somebody may be working with it.
    let stage = installed().await;
    let rotator = stage.rotator();
    for _ in 0..500 {
        stage.fake.advance(Duration::from_secs(17 * 60));
        let token = rotator
            .token_for(&alpha(), Credential::Bot)
            .await
            .expect("a token");
        settle().await;
        assert!(stage.fake.is_live(token.access_token.expose()));
    }
    let most = 500 * 17 / 60 / 9 + 1;
    assert!(stage.refreshes() <= most, "{} refreshes", stage.refreshes());
}

#[tokio::test(start_paused = true)]
async fn a_token_under_suspicion_is_confirmed_before_it_is_handed_out() {
    let stage = installed_with(Rotation {
        policy: GracePolicy::AllLive,
        ..Rotation::default()
    })
    .await;
    stage.soften();
    // Both calls of the refresh issue pairs that nobody hears of: Slack has ended the token that is
    // stored.
    stage
        .fake
        .inject(REFRESH, Fault::lost().after_effect().times(2));
    let rotator = stage.rotator();
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("soft");
    settle().await;
    let stored = stage.bot_chain().await;
    assert_eq!((stored.chain.generation, stored.chain.attempts), (0, 2));
    assert!(!stage.fake.is_live(stored.grant.access_token.expose()));
    match rotator.token_for(&alpha(), Credential::Bot).await {
        Ok(token) => assert!(stage.fake.is_live(token.access_token.expose())),
        Err(error) => assert!(matches!(error, Error::TryAgain { .. }), "{error:?}"),
    }
    assert!(stage.fake.calls("auth.test") > 0);
}

#[tokio::test(start_paused = true)]
async fn long_lived_tokens_are_exchanged_once_and_serve_until_the_first_refresh() {
    let stage = Stage::unrotated().await;
    let tenants = fleet(&stage, 5).await;
    let old = stage
        .store
        .fetch(&tenants[0], None)
        .await
        .expect("answers")
        .expect("installed");
    let old = old.installation.bot.expect("a bot").grant.access_token;
    let rotator = stage.rotator();
    let error = rotator
        .migrate(None, 100)
        .await
        .expect_err("rotation is not turned on");
    assert!(matches!(error, Error::Configuration { .. }), "{error:?}");
    stage.fake.rotate_tokens(Rotation::default());
    // A lost answer: that one token stays as it is, and is not exchanged again.
    let lost = Fault::lost().after_effect();
    stage.fake.inject("oauth.v2.exchange", lost);
    let first = rotator.migrate(None, 100).await.expect("a page");
    assert_eq!(
        (first.exchanged, first.already, first.kept.len()),
        (4, 0, 1)
    );
    assert!(first.next.is_none());
    let calls = stage.fake.calls("oauth.v2.exchange");
    let again = stage.rotator().migrate(None, 100).await.expect("a page");
    assert_eq!(
        (again.exchanged, again.already, again.kept.len()),
        (0, 4, 1)
    );
    assert_eq!(
        stage.fake.calls("oauth.v2.exchange"),
        calls,
        "never twice for one token"
    );
    for tenant in &tenants {
        let token = rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect("a token");
        assert!(stage.fake.is_live(token.access_token.expose()));
    }
    assert!(stage.fake.is_live(old.expose()), "nothing was revoked");
    assert_eq!(stage.fake.calls("auth.revoke"), 0);
    stage.expire();
    for (number, tenant) in tenants.iter().enumerate() {
        let token = rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect("a token");
        assert!(
            stage.fake.is_live(token.access_token.expose()),
            "tenant {number}"
        );
    }
    assert_eq!(stage.refreshes(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_worker_refreshes_ahead_for_tenants_that_are_used_and_parks_the_others() {
    let stage = installed().await;
    let rotator = stage.rotator();
    let worker = rotator.clone();
    let worker = tokio::spawn(async move { worker.work(WorkerConfig::default()).await });
    // Nobody asks: the pair is replaced for about a day, and then no more.
    for _ in 0..100 {
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(stage.refreshes(), 2);
    let due_at = stage.bot_chain().await.chain.due_at.expect("a far time");
    assert!(due_at > stage.fake.clock().now() + 15 * 24 * HOUR, "parked");
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("refreshed on demand");
    assert_eq!(stage.refreshes(), 3);
    // Somebody asks now and then, and never waits.
    for _ in 0..40 {
        tokio::time::sleep(HOUR).await;
        let asked = Instant::now();
        rotator
            .token_for(&alpha(), Credential::Bot)
            .await
            .expect("a token");
        assert_eq!(Instant::now(), asked, "it was refreshed ahead");
    }
    assert!(stage.refreshes() >= 6);
    assert!(rotator.shutdown(Duration::from_secs(10)).await);
    worker.await.expect("the worker ends with the rotator");
}

#[tokio::test(start_paused = true)]
async fn a_pkce_apps_idle_chain_is_kept_alive() {
    let stage = installed().await;
    let rotator = stage.rotator_with(RotationConfig {
        is_pkce_app: true,
        ..stage.config()
    });
    let worker = rotator.clone();
    let worker = tokio::spawn(async move { worker.work(WorkerConfig::default()).await });
    for _ in 0..30 {
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(stage.refreshes(), 2, "a day of pairs that nobody asked for");
    stage.fake.advance(19 * 24 * HOUR);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.refreshes(), 2);
    stage.fake.advance(24 * HOUR);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.refreshes(), 3, "before the 30 days are over");
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_in_any_debug_text() {
    let stage = installed().await;
    stage.expire();
    let rotator = stage.rotator();
    let token = rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("a token");
    let chain = stage.bot_chain().await;
    let text = format!("{rotator:?} {token:?} {chain:?} {:?}", stage.config());
    for secret in stage.fake.secrets() {
        assert!(!text.contains(&secret));
    }
}

async fn fleet(stage: &Stage, size: usize) -> Vec<InstallationKey> {
    let mut tenants = Vec::new();
    for number in 0..size {
        let id = format!("T0FLEET{number:04}");
        stage.fake.add_workspace(Workspace::new(&id, "Fleet"));
        stage
            .fake
            .add_person(&id, slack_installs::testing::Person::admin(ADMIN, "ada"));
        stage.install(&id, "chat:write", "").await;
        tenants.push(InstallationKey::workspace(TeamId::new(id).expect("an id")));
    }
    tenants
}

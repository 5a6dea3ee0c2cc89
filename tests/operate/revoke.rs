//! What an operator's freeze, revoke and purge do at Slack and in the store, and what happens if
//! either fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

use slack_installs::backend::{Key, Row, Version};
use slack_installs::secret::{AccessToken, RefreshToken};
use slack_installs::store::{
    self, Chain, ChainKey, Credential, LifecycleStore as _, Mark, RotationStore as _,
};
use slack_installs::testing::Rotation;
use slack_installs::{Departure, Grant, LifecycleError, Scopes};

use super::*;
use crate::support::Db;
use crate::support::app::user_id;
use crate::support::backends::Unreliable;
use crate::support::script::{error, scripted};

const REASON: &str = "ticket 9";

async fn revoked(life: &Life, slack: &SlackClient) -> Result<RevokeOutcome, OperateError> {
    operator_over(life, slack).revoke(&key(ALPHA), REASON).await
}

/// Returns the rows of all other tenants and of the app itself.
async fn others(life: &Life) -> Vec<(Key, Row)> {
    let partition = format!("{}/{ALPHA}", life.app.fake.client_id());
    let mut rows = all_rows(&*life.backend).await;
    rows.retain(|(key, _)| key.partition.as_str() != partition);
    rows
}

/// Slack's error codes after which another token is tried. This token is dead, has expired, or
/// lacks the permission.
const GOES_ON: [&str; 8] = [
    "account_inactive",
    "authorization_not_found",
    "invalid_refresh_token",
    "token_revoked",
    "invalid_token",
    "no_permission",
    "missing_scope",
    "token_expired",
];

/// Error codes that say nothing about the token.
const STOPS: [&str; 11] = [
    "invalid_auth",
    "fatal_error",
    "internal_error",
    "service_unavailable",
    "ratelimited",
    "org_login_required",
    "access_denied",
    "bad_client_secret",
    "not_authed",
    "team_access_not_granted",
    "some_new_error",
];

#[tokio::test(start_paused = true)]
async fn where_a_token_may_not_uninstall_each_token_is_revoked_and_where_slack_fails_nothing_is() {
    let cases = GOES_ON.map(|code| (code, true)).into_iter();
    for (code, goes_on) in cases.chain(STOPS.map(|code| (code, false))) {
        let life = Life::standing().await;
        life.install(ADA).await;
        let before = (
            life.bot_token(ALPHA).await,
            life.user_token(ALPHA, ADA).await,
        );
        let fault = Fault::error(code).always();
        life.app.fake.inject("apps.uninstall", fault);
        let outcome = revoked(&life, &life.app.slack).await;
        match outcome {
            Ok(outcome) => {
                assert_eq!(outcome, RevokeOutcome::TokensRevoked, "{code}");
                assert!(!life.app.fake.is_installed(ALPHA), "{code}");
                assert_eq!(life.slots(ALPHA).await, [""; 0], "{code}");
                assert_eq!(life.host.tenants(), [ALPHA], "{code}");
            }
            Err(error) => {
                assert_matches!(error, OperateError::Slack(_), "{code}");
                assert_eq!(life.app.fake.calls("auth.revoke"), 0, "{code}");
                assert!(life.app.fake.is_installed(ALPHA), "{code}");
                let kept = life.app.stored(ALPHA, Some(ADA)).await;
                assert!(kept.is_on_hold(), "{code}");
                let tokens = (
                    life.bot_token(ALPHA).await,
                    life.user_token(ALPHA, ADA).await,
                );
                assert_eq!(tokens, before, "{code}");
                assert_eq!(life.host.tenants(), [""; 0], "{code}");
                assert!(!goes_on, "{code}");
                continue;
            }
        }
        assert!(goes_on, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_dead_already_stops_no_revocation_and_a_failure_of_slacks_does() {
    let cases = GOES_ON.map(|code| (code, true)).into_iter();
    for (code, goes_on) in cases.chain(STOPS.map(|code| (code, false))) {
        for rotates in [false, true] {
            let life = Life::standing().await;
            if rotates {
                life.app.fake.rotate_tokens(Rotation::default());
            }
            life.install(ADA).await;
            let no = Fault::error("no_permission").always();
            life.app.fake.inject("apps.uninstall", no);
            life.app
                .fake
                .inject("auth.revoke", Fault::error(code).always());
            let outcome = revoked(&life, &life.app.slack).await;
            let case = format!("{code}, rotates: {rotates}");
            assert_eq!(outcome.is_ok(), goes_on, "{case}");
            assert_eq!(life.slots(ALPHA).await.is_empty(), goes_on, "{case}");
            if !goes_on {
                let stopped = matches!(outcome, Err(OperateError::Slack(_)));
                assert!(stopped, "{case}: {outcome:?}");
                assert_eq!(refusal(&life, ALPHA).await, "the tenant is on hold");
                assert_eq!(life.host.tenants(), [""; 0], "{case}");
                life.app.fake.clear_faults();
                let again = revoked(&life, &life.app.slack).await;
                assert_eq!(again.expect("done"), RevokeOutcome::Uninstalled);
            }
            assert_eq!(life.host.tenants(), [ALPHA], "{case}");
        }
    }
}

#[tokio::test]
async fn the_bot_is_asked_to_uninstall_first_then_the_installer() {
    for (may, expected) in [("bot", [1, 0]), ("user", [1, 1])] {
        let life = Life::standing().await;
        life.install(BEN).await;
        life.install(ADA).await;
        let bot = life.bot_token(ALPHA).await.expect("installed");
        let ada = life.user_token(ALPHA, ADA).await.expect("installed");
        if may == "user" {
            let no = Fault::error("no_permission");
            life.app.fake.inject("apps.uninstall", no);
        }
        let outcome = revoked(&life, &life.app.slack).await;
        assert_eq!(outcome.expect("done"), RevokeOutcome::Uninstalled, "{may}");
        let calls = [&bot, &ada].map(|token| life.app.fake.calls_with("apps.uninstall", token));
        assert_eq!(calls, expected, "{may}");
        assert_eq!(life.app.fake.calls("auth.revoke"), 0, "{may}");
        assert_eq!(life.slots(ALPHA).await, [""; 0]);
        assert_eq!(life.host.tenants(), [ALPHA]);
    }
}

#[tokio::test]
async fn an_app_without_a_bot_is_uninstalled_by_its_installer() {
    let life = Life::standing().await;
    life.install_without_bot(ADA).await;
    let outcome = revoked(&life, &life.app.slack).await;
    assert_eq!(outcome.expect("done"), RevokeOutcome::Uninstalled);
    assert!(!life.app.fake.is_installed(ALPHA));
}

/// Returns a client that records the token of each call of `auth.revoke`.
fn listening(life: &Life) -> (SlackClient, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heard);
    let slack = scripted(&life.app.fake, move |method, token| {
        if method == "auth.revoke" {
            kept.lock().expect("no test panics with it").push(token);
        }
        async { None }
    });
    (slack, heard)
}

#[tokio::test]
async fn every_token_of_the_bot_and_of_each_user_is_revoked_once_refresh_tokens_first() {
    let life = Life::standing().await;
    let fake = &life.app.fake;
    fake.rotate_tokens(Rotation::default());
    for person in [BEN, ADA, BOB] {
        life.install(person).await;
    }
    let installed = async |user: &str| {
        let installation = life.app.stored(ALPHA, Some(user)).await;
        let pair = |grant: Grant| {
            let refresh = grant.refresh_token.expect("it rotates");
            [
                refresh.expose().to_owned(),
                grant.access_token.expose().to_owned(),
            ]
        };
        let bot = installation.installation.bot.expect("a bot").grant;
        [
            pair(bot),
            pair(installation.installation.user.expect("a user").grant),
        ]
    };
    let ([bot, ada], [_, ben]) = (installed(ADA).await, installed(BEN).await);
    // Ben's installation came with the bot's first pair. It was replaced, and is kept as an
    // alternate or has expired.
    fake.inject("apps.uninstall", Fault::error("no_permission").always());
    let before = others(&life).await;
    let (slack, heard) = listening(&life);
    let outcome = revoked(&life, &slack).await;
    assert_eq!(outcome.expect("done"), RevokeOutcome::TokensRevoked);
    let heard = heard.lock().expect("no test panics with it").clone();
    for [refresh, access] in [&bot, &ada, &ben] {
        let nth = |token: &String| {
            let times = heard.iter().filter(|other| *other == token).count();
            assert_eq!(times, 1, "each token is revoked once");
            heard.iter().position(|other| other == token)
        };
        assert!(nth(refresh) < nth(access));
        assert!(!fake.is_refreshable(refresh));
        assert!(!fake.is_live(access));
    }
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(others(&life).await, before, "no other tenant's row changed");
    let bob = life.bot_token(BRAVO).await.expect("not deleted");
    assert!(fake.is_live(&bob));
}

/// Replaces the bot's pair, as a refresh does that was in progress.
async fn refreshed(life: &Life, number: usize) {
    let next = Grant {
        access_token: AccessToken::new(format!("xoxe.xoxb-1-next{number}")).expect("a token"),
        refresh_token: RefreshToken::new(format!("xoxe-1-next{number}")).ok(),
        expires_at: None,
        scopes: Scopes::from("commands"),
    };
    let chain_key = ChainKey {
        credential: Credential::Bot,
        tenant: key(ALPHA),
    };
    let mut moved = |chain: Option<&Chain>| {
        let refresh = next.refresh_token.as_ref().map(Mark::of);
        chain.cloned().map(|chain| Chain { refresh, ..chain })
    };
    let store = &life.app.store;
    let moved = store.update(&chain_key, Some(&next), &mut moved).await;
    moved.expect("responds").expect("it exists");
}

#[tokio::test]
async fn a_pair_that_comes_during_a_revocation_is_revoked_too() {
    for pairs in [1, 4] {
        let life = Arc::new(Life::standing().await);
        life.app.fake.rotate_tokens(Rotation::default());
        life.install_without_user(ADA).await;
        let no = Fault::error("no_permission").always();
        life.app.fake.inject("apps.uninstall", no);
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (live, kept) = (Arc::clone(&life), Arc::clone(&heard));
        let came = Arc::new(AtomicUsize::new(0));
        let slack = scripted(&life.app.fake, move |method, token| {
            let (life, came) = (Arc::clone(&live), Arc::clone(&came));
            let is_revocation = method == "auth.revoke";
            let is_access = is_revocation && token.starts_with("xoxe.xoxb-");
            if is_revocation {
                kept.lock().expect("no test panics with it").push(token);
            }
            async move {
                let number = came.load(SeqCst) + usize::from(is_access);
                if is_access && number <= pairs {
                    came.store(number, SeqCst);
                    refreshed(&life, number).await;
                }
                // The fake Slack does not know these tokens.
                is_revocation.then(|| error("token_revoked"))
            }
        });
        let outcome = revoked(&life, &slack).await;
        assert_eq!(outcome.expect("done"), RevokeOutcome::TokensRevoked);
        let heard = heard.lock().expect("no test panics with it").clone();
        for number in 1..=pairs {
            for token in ["xoxe.xoxb-1-next", "xoxe-1-next"] {
                let token = format!("{token}{number}");
                let times = heard.iter().filter(|other| **other == token).count();
                assert_eq!(times, 1, "{token} of {pairs}");
            }
        }
        assert_eq!(life.slots(ALPHA).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_tenant_is_on_hold_before_slack_is_asked_for_anything() {
    let life = Arc::new(Life::standing().await);
    life.install(ADA).await;
    let held = Arc::new(Mutex::new(Vec::new()));
    let (live, kept) = (Arc::clone(&life), Arc::clone(&held));
    let slack = scripted(&life.app.fake, move |_, _| {
        let (life, held) = (Arc::clone(&live), Arc::clone(&kept));
        async move {
            let installation = life.app.fetch(ALPHA, None).await;
            let is_held = installation.is_some_and(|it| it.is_on_hold());
            held.lock().expect("no test panics with it").push(is_held);
            None
        }
    });
    revoked(&life, &slack).await.expect("done");
    assert_eq!(*held.lock().expect("no test panics with it"), [true]);
}

/// Runs `act` once, during the call of `apps.uninstall`.
fn during_uninstall<L>(
    life: &Arc<Life>,
    act: impl Fn(Arc<Life>) -> L + Send + Sync + 'static,
) -> SlackClient
where
    L: Future<Output = ()> + Send + 'static,
{
    let (live, is_done) = (Arc::clone(life), AtomicBool::new(false));
    scripted(&life.app.fake, move |method, _| {
        let is_meant = method == "apps.uninstall" && !is_done.swap(true, SeqCst);
        let acting = is_meant.then(|| act(Arc::clone(&live)));
        async move {
            if let Some(acting) = acting {
                acting.await;
            }
            None
        }
    })
}

#[tokio::test]
async fn slacks_own_event_may_be_faster_than_the_operator() {
    for fails in [false, true] {
        let life = Arc::new(Life::standing().await);
        life.install(ADA).await;
        life.advance(3600);
        let slack = during_uninstall(&life, move |life| async move {
            life.host.set_failing(fails);
            let outcome = life.deliver(&life.app.fake.app_uninstalled(ALPHA)).await;
            assert_eq!(outcome.is_err(), fails);
            life.host.set_failing(false);
        });
        let outcome = revoked(&life, &slack).await;
        assert_eq!(outcome.expect("done"), RevokeOutcome::Uninstalled);
        // If the hook of the event failed, the operator calls it, and no worker is needed.
        let told = (ALPHA.to_owned(), "app_uninstalled".to_owned(), false);
        assert_eq!(life.host.departures(), [told], "fails: {fails}");
        assert_eq!(life.slots(ALPHA).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_tenant_that_is_installed_again_during_a_revocation_is_kept_on_hold() {
    let life = Arc::new(Life::standing().await);
    life.install(ADA).await;
    let slack = during_uninstall(&life, |life| async move { life.install(BEN).await });
    let error = revoked(&life, &slack).await.expect_err("another install");
    let conflict = matches!(
        error,
        OperateError::Purge(LifecycleError::Store(store::Error::Conflict))
    );
    assert!(conflict, "{error:?}");
    let kept = life.app.stored(ALPHA, Some(BEN)).await;
    assert!(kept.is_on_hold() && kept.bot.is_some() && kept.user.is_some());
    assert_eq!(life.host.tenants(), [""; 0]);
    revoked(&life, &slack).await.expect("repeatable");
    // The hold is not of the attempt that ended.
    assert_eq!(life.slots(ALPHA).await, ["hold"]);
}

#[tokio::test]
async fn a_database_that_goes_away_midway_leaves_a_hold_and_a_revocation_to_repeat() {
    let backend = Unreliable::new(Arc::new(MemoryBackend::default()));
    let life = Arc::new(Life::with(world(), Arc::new(backend.clone())).await);
    life.install(ADA).await;
    life.install(BOB).await;
    let before = others(&life).await;
    let unplugged = backend.clone();
    let slack = during_uninstall(&life, move |_| {
        unplugged.set_down(true);
        async {}
    });
    let error = revoked(&life, &slack).await.expect_err("unavailable");
    assert_matches!(error, OperateError::Purge(_));
    let error = revoked(&life, &slack).await.expect_err("unavailable");
    let is_store = matches!(error, OperateError::Store(store::Error::Unavailable(_)));
    assert!(is_store, "{error:?}");
    let purge = operator(&life).purge(&key(ALPHA), REASON).await;
    let is_store = matches!(purge, Err(OperateError::Store(_)));
    assert!(is_store, "{purge:?}");
    backend.set_down(false);
    assert_eq!(refusal(&life, ALPHA).await, "the tenant is on hold");
    assert!(life.bot_token(ALPHA).await.is_some());
    // Slack has already uninstalled the app. Its tokens are dead, which does not stop the
    // revocation.
    let outcome = revoked(&life, &slack).await;
    assert_eq!(outcome.expect("done"), RevokeOutcome::TokensRevoked);
    assert_eq!(life.slots(ALPHA).await, ["hold"]);
    let told = (ALPHA.to_owned(), REASON.to_owned(), false);
    assert_eq!(life.host.departures(), [told]);
    assert_eq!(others(&life).await, before);
}

#[tokio::test]
async fn a_departure_that_waits_is_told_by_a_revocation_and_by_a_purge() {
    for purges in [false, true] {
        let life = Life::standing().await;
        life.install(ADA).await;
        life.host.set_failing(true);
        let operator = operator(&life);
        let error = if purges {
            operator.purge(&key(ALPHA), REASON).await.err()
        } else {
            operator.revoke(&key(ALPHA), REASON).await.err()
        };
        let hook = matches!(error, Some(OperateError::Purge(LifecycleError::Hook(_))));
        assert!(hook, "{error:?}");
        assert_eq!(life.slots(ALPHA).await, ["departure"]);
        life.host.set_failing(false);
        for is_told_now in [true, false] {
            if purges {
                let purged = operator.purge(&key(ALPHA), "once more").await;
                assert_eq!(purged.expect("responds"), is_told_now);
            } else {
                let outcome = operator.revoke(&key(ALPHA), "once more").await;
                let expected = if is_told_now {
                    RevokeOutcome::Uninstalled
                } else {
                    RevokeOutcome::NotInstalled
                };
                assert_eq!(outcome.expect("responds"), expected);
            }
            let told = (ALPHA.to_owned(), REASON.to_owned(), false);
            assert_eq!(life.host.departures(), [told]);
        }
        assert_eq!(life.slots(ALPHA).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_purge_takes_what_does_not_open_and_no_other_tenant() {
    for slot in ["install", "bot", "user/U0ADMIN0001"] {
        let life = Life::standing().await;
        life.install(ADA).await;
        life.install(BOB).await;
        let db = Db::of(life.app.fake.client_id(), Arc::clone(&life.backend));
        let (row_key, row) = db.row(ALPHA, slot).await;
        let version = Version::mint();
        db.overwrite(&row_key, Row { version, ..row }).await;
        let before = others(&life).await;
        let operator = operator(&life);
        let purged = operator.purge(&key(ALPHA), REASON).await;
        assert!(purged.expect("responds"), "{slot}");
        assert_eq!(life.slots(ALPHA).await, [""; 0], "{slot}");
        assert_eq!(others(&life).await, before, "{slot}");
        let told = (ALPHA.to_owned(), REASON.to_owned(), false);
        assert_eq!(life.host.departures(), [told]);
    }
}

#[tokio::test]
async fn a_tenant_that_was_never_there_is_no_error_for_a_purge_or_a_revocation() {
    let life = Life::standing().await;
    life.install(BOB).await;
    let before = all_rows(&*life.backend).await;
    let operator = operator(&life);
    let purged = operator.purge(&key(ALPHA), REASON).await;
    assert!(!purged.expect("responds"));
    let outcome = operator.revoke(&key(ALPHA), REASON).await;
    assert_eq!(outcome.expect("responds"), RevokeOutcome::NotInstalled);
    for held in [
        operator.freeze(&key(ALPHA), REASON).await,
        operator.unfreeze(&key(ALPHA), REASON).await,
    ] {
        assert_matches!(held, Err(OperateError::NotInstalled));
    }
    assert_eq!(all_rows(&*life.backend).await, before);
    assert_eq!(life.host.tenants(), [""; 0]);
}

#[tokio::test]
async fn a_hold_is_put_taken_back_and_put_again_each_with_its_reason_and_time() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.install(BOB).await;
    let before = others(&life).await;
    let operator = operator(&life);
    let held = async || {
        let installation = life.app.stored(ALPHA, None).await;
        let is_on_hold = installation.is_on_hold();
        let hold = installation
            .hold
            .map(|hold| (hold.is_on, hold.reason, hold.at));
        assert_eq!(is_on_hold, hold.as_ref().is_some_and(|hold| hold.0));
        hold
    };
    let at = |life: &Life| {
        let since = life
            .app
            .fake
            .clock()
            .now()
            .duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.expect("after 1970").as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    operator.unfreeze(&key(ALPHA), "none").await.expect("no-op");
    assert_eq!(held().await, None, "no hold existed");
    let tokens = (
        life.bot_token(ALPHA).await,
        life.user_token(ALPHA, ADA).await,
    );
    for round in 1..=2 {
        life.advance(60);
        let (on, on_at) = (format!("on {round}"), at(&life));
        operator.freeze(&key(ALPHA), &on).await.expect("installed");
        assert_eq!(held().await, Some((true, on.clone(), on_at)));
        life.advance(60);
        operator.freeze(&key(ALPHA), "late").await.expect("no-op");
        assert_eq!(held().await, Some((true, on, on_at)));
        assert_eq!(refusal(&life, ALPHA).await, "the tenant is on hold");
        let (off, off_at) = (format!("off {round}"), at(&life));
        operator.unfreeze(&key(ALPHA), &off).await.expect("on hold");
        assert_eq!(held().await, Some((false, off.clone(), off_at)));
        life.advance(60);
        operator.unfreeze(&key(ALPHA), "late").await.expect("no-op");
        assert_eq!(held().await, Some((false, off, off_at)));
        assert_eq!(refusal(&life, ALPHA).await, "served");
    }
    let after = (
        life.bot_token(ALPHA).await,
        life.user_token(ALPHA, ADA).await,
    );
    assert_eq!(after, tokens);
    assert_eq!(others(&life).await, before);
}

#[tokio::test]
async fn a_reason_is_kept_to_500_characters() {
    let life = Life::standing().await;
    life.install(ADA).await;
    let operator = operator(&life);
    let (long, kept) = ("ä".repeat(501), "ä".repeat(500));
    operator
        .freeze(&key(ALPHA), &long)
        .await
        .expect("installed");
    let installation = life.app.stored(ALPHA, None).await;
    assert_eq!(installation.hold.expect("a hold").reason, kept);
    assert!(operator.purge(&key(ALPHA), &long).await.expect("responds"));
    assert_eq!(
        life.host.departures(),
        [(ALPHA.to_owned(), kept.clone(), false)]
    );
    let departure = Departure::new(key(ALPHA), &long, SystemTime::UNIX_EPOCH);
    assert_eq!(departure.reason, kept);
    let departure = Departure::new(key(ALPHA), "short", SystemTime::UNIX_EPOCH);
    assert_eq!(departure.reason, "short");
}

#[tokio::test]
async fn a_hold_outlives_its_tenant_and_whatever_else_happens_to_it() {
    let life = Life::standing().await;
    life.install(ADA).await;
    let operator = operator(&life);
    operator
        .freeze(&key(ALPHA), REASON)
        .await
        .expect("installed");
    life.advance(3600);
    // A user's token is revoked, the workspace migrates, and the app is installed again.
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    for event in life.app.fake.take_events() {
        assert_eq!(life.handled(&event).await, Handled::Revoked);
    }
    life.app.fake.join_org(ALPHA, ORG);
    let moved = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
        event["event"] = json!({"type": "grid_migration_finished", "enterprise_id": ORG});
    });
    assert_eq!(life.handled(&moved).await, Handled::Noted);
    life.install(BEN).await;
    let kept = life.app.stored(ALPHA, None).await;
    assert_eq!(kept.hold.expect("it is kept").reason, REASON);
    let users = life.app.store.users(&key(ALPHA)).await.expect("responds");
    assert_eq!(users, [user_id(BEN)]);
    life.advance(3600);
    life.app.fake.uninstall(ALPHA);
    let event = life.app.fake.app_uninstalled(ALPHA);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.slots(ALPHA).await, ["hold"]);
}

#[tokio::test]
async fn a_tenant_that_cannot_be_put_on_hold_is_not_revoked() {
    let backend = Unreliable::new(Arc::new(MemoryBackend::default()));
    let life = Life::with(world(), Arc::new(backend.clone())).await;
    life.install(ADA).await;
    // Reads work, and every commit is lost.
    backend.lose_commits(usize::MAX);
    let error = revoked(&life, &life.app.slack).await.expect_err("no hold");
    assert_matches!(error, OperateError::Store(_));
    assert_eq!(life.app.fake.calls("apps.uninstall"), 0);
    assert!(life.app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn an_installer_who_may_not_uninstall_an_app_without_a_bot_is_revoked() {
    let life = Life::standing().await;
    life.install_without_bot(ADA).await;
    let no = Fault::error("no_permission").always();
    life.app.fake.inject("apps.uninstall", no);
    let outcome = revoked(&life, &life.app.slack).await;
    assert_eq!(outcome.expect("done"), RevokeOutcome::TokensRevoked);
    assert!(!life.app.fake.is_installed(ALPHA));
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
}

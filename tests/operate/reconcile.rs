//! What a sweep concludes from each of Slack's responses, and what it does about it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::Value;
use slack_installs::backend::{Row, Version};
use slack_installs::operate::Reconciled;
use slack_installs::slack::{ErrorCode, SlackClient};
use slack_installs::store::{self, Credential, LifecycleStore as _};
use slack_installs::testing::Rotation;
use slack_installs::{Delete, InstallationStore as _, RotationConfig, TokenRotator};

use super::*;
use crate::support::Db;
use crate::support::app::{credentials, user_id};
use crate::support::backends::{Paged, Unreliable};
use crate::support::hooked::Hooked;
use crate::support::script::{error, ok, rate_limited, scripted};

/// Returns a client whose `auth.test` returns these error codes for these tokens, in order; the
/// last code repeats. For an empty code, and for other tokens, the fake Slack returns the real
/// state.
pub(super) fn saying<T: AsRef<str>>(
    life: &Life,
    words: &[(&Option<T>, &[&'static str])],
) -> SlackClient {
    let words: HashMap<String, Vec<&'static str>> = words
        .iter()
        .filter_map(|(token, codes)| Some((token.as_ref()?.as_ref().to_owned(), codes.to_vec())))
        .collect();
    let asked: Mutex<HashMap<String, usize>> = Mutex::default();
    scripted(&life.app.fake, move |method, token| {
        let mut response = None;
        if let Some(codes) = words.get(&token).filter(|_| method == "auth.test") {
            let mut asked = asked.lock().expect("no test panics with it");
            let times = asked.entry(token).or_default();
            let code = codes[(*times).min(codes.len() - 1)];
            *times += 1;
            response = (!code.is_empty()).then(|| error(code));
        }
        async move { response }
    })
}

pub(super) async fn swept(
    life: &Life,
    slack: &SlackClient,
    config: &ReconcileConfig,
) -> Reconciled {
    let report = operator_over(life, slack).reconcile(config).await;
    report.expect("the database responds")
}

pub(super) fn verdicts(report: &Reconciled) -> Vec<Verdict> {
    let findings = report.findings.iter();
    findings.map(|found| found.verdict.clone()).collect()
}

fn unclear(code: &str) -> Verdict {
    Verdict::Unclear(Some(ErrorCode::new(code)))
}

/// Installs the app for Ada in Alpha, and returns the bot's token and hers.
async fn alpha() -> (Life, Option<String>, Option<String>) {
    let life = Life::new().await;
    life.install(ADA).await;
    let bot = life.bot_token(ALPHA).await;
    let user = life.user_token(ALPHA, ADA).await;
    (life, bot, user)
}

#[tokio::test(start_paused = true)]
async fn each_word_about_one_token_brings_its_verdict_and_only_death_takes_it() {
    let unclear_codes = [
        "invalid_auth",
        "invalid_token",
        "org_login_required",
        "team_added_to_org",
        "access_denied",
        "bad_client_secret",
        "missing_scope",
        "fatal_error",
        "not_authed",
        "team_access_not_granted",
        "some_new_error",
    ];
    let cases = unclear_codes
        .map(|code| (code, Some(unclear(code))))
        .into_iter()
        .chain([
            ("account_inactive", Some(Verdict::Gone)),
            ("authorization_not_found", Some(Verdict::Gone)),
            ("token_revoked", Some(Verdict::Gone)),
            ("token_expired", Some(Verdict::Expired)),
            ("", None),
        ]);
    for (code, verdict) in cases {
        for has_bot in [true, false] {
            let life = Life::new().await;
            let token = if has_bot {
                life.install_without_user(ADA).await;
                life.bot_token(ALPHA).await
            } else {
                life.install_without_bot(ADA).await;
                life.user_token(ALPHA, ADA).await
            };
            assert!(token.is_some());
            let slack = saying(&life, &[(&token, &[code])]);
            let before = life.slots(ALPHA).await;
            let report = swept(&life, &slack, &sweep(true)).await;
            let found: Vec<_> = verdict.clone().into_iter().collect();
            assert_eq!(verdicts(&report), found, "{code}, bot: {has_bot}");
            let is_gone = verdict == Some(Verdict::Gone);
            assert_eq!(report.purged, usize::from(is_gone), "{code}");
            assert_eq!(report.repaired, 0, "{code}");
            let left = if is_gone { vec![] } else { before };
            assert_eq!(life.slots(ALPHA).await, left, "{code}, bot: {has_bot}");
            assert_eq!(life.host.tenants().len(), usize::from(is_gone));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_tokens_are_weighed_together() {
    let (alive, dead, expired) = ("", "account_inactive", "token_expired");
    let (open, other) = ("some_new_error", "invalid_auth");
    for (bot_says, user_says, verdict) in [
        (alive, alive, None),
        (alive, expired, None),
        (expired, alive, None),
        (alive, open, None),
        (open, alive, None),
        (alive, dead, Some(Verdict::PartlyGone)),
        (dead, alive, Some(Verdict::PartlyGone)),
        (dead, dead, Some(Verdict::Gone)),
        (dead, expired, Some(Verdict::Expired)),
        (expired, dead, Some(Verdict::Expired)),
        (expired, expired, Some(Verdict::Expired)),
        (dead, open, Some(unclear(open))),
        (open, dead, Some(unclear(open))),
        (expired, open, Some(unclear(open))),
        (open, expired, Some(unclear(open))),
        (open, other, Some(unclear(open))),
        (other, open, Some(unclear(other))),
    ] {
        let (life, bot, user) = alpha().await;
        let words: [(_, &[_]); 2] = [(&bot, &[bot_says]), (&user, &[user_says])];
        let slack = saying(&life, &words);
        let report = swept(&life, &slack, &sweep(true)).await;
        let case = format!("bot: {bot_says}, user: {user_says}");
        let found: Vec<_> = verdict.clone().into_iter().collect();
        assert_eq!(verdicts(&report), found, "{case}");
        let is_partly = verdict == Some(Verdict::PartlyGone);
        let is_gone = verdict == Some(Verdict::Gone);
        let done = (report.purged, report.repaired);
        let expected = (usize::from(is_gone), usize::from(is_partly));
        assert_eq!(done, expected, "{case}");
        let bot_stays = !(is_gone || is_partly && bot_says == dead);
        let user_stays = !(is_gone || is_partly && user_says == dead);
        let is_bot_left = life.bot_token(ALPHA).await.is_some();
        assert_eq!(is_bot_left, bot_stays, "{case}");
        let is_user_left = life.user_token(ALPHA, ADA).await.is_some();
        assert_eq!(is_user_left, user_stays, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_tokens_rotate_is_never_gone_by_token_revoked_alone() {
    for (codes, verdict) in [
        (["token_revoked"; 2], unclear("token_revoked")),
        (
            ["account_inactive", "token_revoked"],
            unclear("token_revoked"),
        ),
        (
            ["token_revoked", "account_inactive"],
            unclear("token_revoked"),
        ),
        (["account_inactive"; 2], Verdict::Gone),
    ] {
        let life = Life::new().await;
        life.app.fake.rotate_tokens(Rotation::default());
        life.install(ADA).await;
        let bot = life.bot_token(ALPHA).await;
        let user = life.user_token(ALPHA, ADA).await;
        let words: [(_, &[_]); 2] = [(&bot, &[codes[0]]), (&user, &[codes[1]])];
        let slack = saying(&life, &words);
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(
            verdicts(&report),
            std::slice::from_ref(&verdict),
            "{codes:?}"
        );
        let is_gone = verdict == Verdict::Gone;
        assert_eq!(report.purged, usize::from(is_gone), "{codes:?}");
        assert_eq!(life.slots(ALPHA).await.is_empty(), is_gone, "{codes:?}");
    }
    // If the user's token is alive, the bot's `token_revoked` is no finding either.
    let life = Life::new().await;
    life.app.fake.rotate_tokens(Rotation::default());
    life.install(ADA).await;
    let bot = life.bot_token(ALPHA).await;
    let slack = saying(&life, &[(&bot, &["token_revoked"])]);
    let report = swept(&life, &slack, &sweep(true)).await;
    assert_eq!((report.findings.len(), report.repaired), (0, 0));
    assert_eq!(life.bot_token(ALPHA).await, bot);
}

#[tokio::test(start_paused = true)]
async fn a_second_response_that_is_not_dead_spares_a_tenant() {
    let dead = "account_inactive";
    for second in ["", "token_expired", "invalid_auth", "some_new_error"] {
        for spares_bot in [true, false] {
            let (life, bot, user) = alpha().await;
            let turns: [&[_]; 2] = [&[dead, second], &[dead, dead]];
            let [bot_says, user_says] = if spares_bot {
                turns
            } else {
                [turns[1], turns[0]]
            };
            let slack = saying(&life, &[(&bot, bot_says), (&user, user_says)]);
            let before = all_rows(&*life.backend).await;
            let report = swept(&life, &slack, &sweep(true)).await;
            let case = format!("{second}, bot: {spares_bot}");
            assert_eq!(verdicts(&report), [Verdict::Gone], "{case}");
            assert_eq!((report.purged, report.repaired), (0, 0), "{case}");
            assert_eq!(all_rows(&*life.backend).await, before, "{case}");
            assert_eq!(life.host.tenants(), [""; 0], "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_response_that_is_not_dead_spares_a_token() {
    let dead = "token_revoked";
    for second in ["", "token_expired", "invalid_auth"] {
        for spares_bot in [true, false] {
            let (life, bot, user) = alpha().await;
            let spared = if spares_bot { &bot } else { &user };
            let slack = saying(&life, &[(spared, &[dead, second])]);
            let report = swept(&life, &slack, &sweep(true)).await;
            assert_eq!(verdicts(&report), [Verdict::PartlyGone]);
            assert_eq!(report.repaired, 0, "{second}, bot: {spares_bot}");
            assert_eq!(life.bot_token(ALPHA).await, bot);
            assert_eq!(life.user_token(ALPHA, ADA).await, user);
        }
    }
}

/// Returns a client whose `auth.test` calls fail with `account_inactive`, and which runs `act`
/// during the nth of them.
fn meanwhile<L>(
    life: &Arc<Life>,
    dead: Option<String>,
    nth: usize,
    act: impl Fn(Arc<Life>) -> L + Clone + Send + Sync + 'static,
) -> SlackClient
where
    L: Future<Output = ()> + Send + 'static,
{
    let (live, asked) = (Arc::clone(life), Arc::new(AtomicUsize::new(0)));
    scripted(&life.app.fake, move |method, token| {
        let (life, asked, act) = (Arc::clone(&live), Arc::clone(&asked), act.clone());
        let is_meant = method == "auth.test" && dead.as_ref().is_none_or(|dead| *dead == token);
        async move {
            if !is_meant {
                return None;
            }
            if asked.fetch_add(1, SeqCst) + 1 == nth {
                act(life).await;
            }
            Some(error("account_inactive"))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refreshed_while_it_was_judged_stays() {
    for credential in [Credential::Bot, Credential::User(user_id(ADA))] {
        let life = Arc::new(Life::new().await);
        life.app.fake.rotate_tokens(Rotation::default());
        life.install(ADA).await;
        let before = life.app.stored(ALPHA, Some(ADA)).await;
        let is_bot = credential == Credential::Bot;
        let tokens = async || {
            if is_bot {
                life.bot_token(ALPHA).await
            } else {
                life.user_token(ALPHA, ADA).await
            }
        };
        let old = tokens().await;
        let asked_for = credential.clone();
        let slack = meanwhile(&life, old.clone(), 2, move |life| {
            let credential = asked_for.clone();
            async move {
                // The token has expired, and a caller requests it.
                life.advance(13 * 3600);
                let credentials = credentials(&life.app.fake);
                let (slack, store) = (life.app.slack.clone(), life.app.store.clone());
                let rotator = TokenRotator::new(RotationConfig::new(credentials), slack, store)
                    .with_clock(life.app.fake.clock());
                let token = rotator.token_for(&key(ALPHA), credential).await;
                assert!(token.is_ok(), "{token:?}");
            }
        });
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(verdicts(&report), [Verdict::PartlyGone], "{credential:?}");
        assert_eq!((report.purged, report.repaired), (0, 0), "{credential:?}");
        let after = life.app.stored(ALPHA, Some(ADA)).await;
        assert_eq!(
            after.revision, before.revision,
            "a refresh keeps the revision"
        );
        let new = tokens().await;
        assert_ne!(new, old, "{credential:?}");
        let new = new.expect("not deleted");
        assert!(life.app.fake.is_live(&new), "{credential:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_installed_again_while_it_is_judged_stays() {
    // Both tokens are dead at the first and at the second check. So the fourth call is the last.
    for nth in 3..=4 {
        let life = Arc::new(Life::new().await);
        life.install(ADA).await;
        let reinstall = |life: Arc<Life>| async move { life.install(ADA).await };
        let slack = meanwhile(&life, None, nth, reinstall);
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(verdicts(&report), [Verdict::Gone], "{nth}");
        assert_eq!(report.purged, 0, "{nth}");
        assert!(life.bot_token(ALPHA).await.is_some(), "{nth}");
        assert!(life.user_token(ALPHA, ADA).await.is_some(), "{nth}");
        assert_eq!(life.host.tenants(), [""; 0], "{nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_granted_again_while_it_was_judged_stays() {
    for is_bot in [true, false] {
        let life = Arc::new(Life::new().await);
        life.install(ADA).await;
        let token = if is_bot {
            life.bot_token(ALPHA).await
        } else {
            life.user_token(ALPHA, ADA).await
        };
        // Without rotation a reinstallation brings the same token.
        let reinstall = |life: Arc<Life>| async move { life.install(ADA).await };
        let slack = meanwhile(&life, token, 2, reinstall);
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(verdicts(&report), [Verdict::PartlyGone]);
        assert_eq!(report.repaired, 0, "bot: {is_bot}");
        assert!(life.bot_token(ALPHA).await.is_some());
        assert!(life.user_token(ALPHA, ADA).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn another_user_whose_token_is_not_dead_for_certain_keeps_the_tenant() {
    let dead = "account_inactive";
    for (code, rotates, is_purged) in [
        ("", false, false),
        ("token_expired", false, false),
        ("invalid_auth", false, false),
        ("some_new_error", false, false),
        ("token_revoked", true, false),
        ("token_revoked", false, true),
        (dead, true, true),
        (dead, false, true),
    ] {
        let life = Life::new().await;
        if rotates {
            life.app.fake.rotate_tokens(Rotation::default());
        }
        life.install(BEN).await;
        life.install(ADA).await;
        let bot = life.bot_token(ALPHA).await;
        let ada = life.user_token(ALPHA, ADA).await;
        let ben = life.user_token(ALPHA, BEN).await;
        let words: [(_, &[_]); 3] = [(&bot, &[dead]), (&ada, &[dead]), (&ben, &[code])];
        let slack = saying(&life, &words);
        let report = swept(&life, &slack, &sweep(true)).await;
        let case = format!("{code}, rotates: {rotates}");
        assert_eq!(verdicts(&report), [Verdict::Gone], "{case}");
        assert_eq!(report.purged, usize::from(is_purged), "{case}");
        assert_eq!(life.slots(ALPHA).await.is_empty(), is_purged, "{case}");
    }
}

/// Replaces the version of a row, so that the row does not open.
async fn damage(life: &Life, tenant: &str, slot: &str) {
    let db = Db::of(life.app.fake.client_id(), Arc::clone(&life.backend));
    let (key, row) = db.row(tenant, slot).await;
    let version = Version::mint();
    db.overwrite(&key, Row { version, ..row }).await;
}

#[tokio::test(start_paused = true)]
async fn another_user_whose_token_does_not_open_keeps_the_tenant() {
    let life = Life::new().await;
    life.install(BEN).await;
    life.install(ADA).await;
    damage(&life, ALPHA, &format!("user/{BEN}")).await;
    life.app.fake.uninstall(ALPHA);
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!(verdicts(&report), [Verdict::Gone]);
    assert_eq!(report.purged, 0);
    assert!(life.bot_token(ALPHA).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_does_not_open_is_reported_and_the_others_are_judged() {
    for damaged in ["install", "bot", "user/U0ADMIN0001"] {
        let life = many().await;
        damage(&life, ALPHA, damaged).await;
        life.app.fake.uninstall("T0MANY3");
        let before = life.slots(ALPHA).await;
        let report = swept(&life, &life.app.slack, &sweep(true)).await;
        assert_eq!(report.examined, 21);
        let mut found = verdicts(&report);
        found.sort_by_key(|verdict| *verdict == Verdict::Gone);
        assert_eq!(found, [Verdict::Unreadable, Verdict::Gone], "{damaged}");
        assert_eq!(report.purged, 1);
        assert_eq!(life.slots(ALPHA).await, before);
        assert_eq!(life.host.tenants(), ["T0MANY3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_tokens_is_reported_and_kept() {
    let life = Life::new().await;
    life.install(ADA).await;
    for delete in [Delete::bot(), Delete::user(user_id(ADA))] {
        let deleted = life.app.store.delete(&key(ALPHA), &delete).await;
        assert!(deleted.expect("responds"));
    }
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!(verdicts(&report), [Verdict::Tokenless]);
    assert_eq!((report.purged, report.repaired), (0, 0));
    assert_eq!(life.slots(ALPHA).await, ["install"]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_leaves_during_a_sweep_is_no_finding() {
    let life = Arc::new(Life::new().await);
    life.install(ADA).await;
    life.install(BOB).await;
    // Both tenants are listed at once. While one is checked, the other one leaves.
    let live = Arc::clone(&life);
    let slack = scripted(&life.app.fake, move |_, token| {
        let life = Arc::clone(&live);
        async move {
            let is_alphas = life.bot_token(ALPHA).await.as_ref() == Some(&token)
                || life.user_token(ALPHA, ADA).await.as_ref() == Some(&token);
            let other = if is_alphas { BRAVO } else { ALPHA };
            if life.app.fetch(other, None).await.is_some() {
                let purged = operator(&life).purge(&key(other), "x").await;
                assert!(purged.expect("responds"));
            }
            None
        }
    });
    let report = swept(&life, &slack, &sweep(true)).await;
    assert_eq!((report.examined, report.findings.len()), (2, 0));
    assert_eq!(report.purged, 0);
}

#[tokio::test(start_paused = true)]
async fn while_slack_cannot_be_reached_nothing_is_concluded() {
    for fault in [
        Fault::lost(),
        Fault::unavailable(),
        Fault::rate_limited(Duration::from_secs(1)),
    ] {
        let life = many().await;
        let rows = all_rows(&*life.backend).await;
        life.app.fake.inject("auth.test", fault.always());
        let report = swept(&life, &life.app.slack, &sweep(true)).await;
        assert_eq!(report.examined, 21);
        let all = vec![Verdict::Unclear(None); 21];
        assert_eq!(verdicts(&report), all);
        assert_eq!((report.purged, report.repaired), (0, 0));
        assert_eq!(all_rows(&*life.backend).await, rows);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_waited_for_twice_and_a_minute_at_most() {
    for (said, waited) in [
        (Some(0), 0),
        (Some(7), 7),
        (Some(60), 60),
        (Some(600), 60),
        (None, 60),
    ] {
        let life = Life::new().await;
        life.install_without_user(ADA).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let slack = scripted(&life.app.fake, move |_, _| {
            counted.fetch_add(1, SeqCst);
            async move { Some(rate_limited(said)) }
        });
        let begun = tokio::time::Instant::now();
        let report = swept(&life, &slack, &sweep(false)).await;
        assert_eq!(verdicts(&report), [Verdict::Unclear(None)]);
        assert_eq!(asked.load(SeqCst), 3);
        // The clock is paused, so the elapsed time is the time waited, not the real duration.
        assert_eq!(begun.elapsed().as_secs(), 2 * waited, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_goes_away_ends_a_sweep_with_an_error() {
    let backend = Unreliable::new(Arc::new(MemoryBackend::default()));
    let life = Arc::new(Life::with(world(), Arc::new(backend.clone())).await);
    life.install(ADA).await;
    life.install(BOB).await;
    backend.set_down(true);
    let unavailable = |outcome: Result<Reconciled, OperateError>| {
        let error = outcome.expect_err("unavailable");
        let expected = matches!(error, OperateError::Store(store::Error::Unavailable(_)));
        assert!(expected, "{error}");
    };
    unavailable(operator(&life).reconcile(&sweep(true)).await);
    backend.set_down(false);
    // The database becomes unavailable while the first tenant is judged.
    let unplugged = backend.clone();
    let slack = scripted(&life.app.fake, move |_, _| {
        unplugged.set_down(true);
        async { Some(error("account_inactive")) }
    });
    for repairs in [false, true] {
        let operator = operator_over(&life, &slack);
        unavailable(operator.reconcile(&sweep(repairs)).await);
        backend.set_down(false);
    }
    backend.set_down(false);
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.bot_token(BRAVO).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_on_hold_is_judged_like_others_and_stays_on_hold() {
    let (life, bot, user) = alpha().await;
    let operator = operator(&life);
    let held = operator.freeze(&key(ALPHA), "ticket 1").await;
    held.expect("installed");
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!(report.findings.len(), 0);
    let slack = saying(&life, &[(&user, &["token_revoked"])]);
    let report = swept(&life, &slack, &sweep(true)).await;
    assert_eq!(report.repaired, 1);
    life.app.fake.join_org(ALPHA, ORG);
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!(report.repaired, 1);
    let kept = life.app.stored(ALPHA, None).await;
    assert!(kept.is_on_hold());
    assert_eq!(kept.hold.expect("a hold").reason, "ticket 1");
    assert_eq!(life.bot_token(ALPHA).await, bot);
    life.app.fake.uninstall(ALPHA);
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!(report.purged, 1);
    assert_eq!(life.host.tenants(), [ALPHA]);
}

#[tokio::test(start_paused = true)]
async fn each_bound_on_purges_counts_by_itself() {
    for (gone, most_purges, most_percent, is_tripped) in [
        (1, 10, 5, false),
        (2, 10, 5, true),
        // Ten percent of 21 is two.
        (2, 10, 10, false),
        (3, 10, 10, true),
        (2, 2, 100, false),
        (2, 1, 100, true),
        (1, 10, 0, false),
        (1, 0, 100, true),
    ] {
        let life = many().await;
        for number in 0..gone {
            life.app.fake.uninstall(&format!("T0MANY{number}"));
        }
        // Other repairs are made even if the guard prevents the purges.
        life.app.fake.join_org(ALPHA, ORG);
        let config = ReconcileConfig {
            most_purges,
            most_percent,
            ..sweep(true)
        };
        let case = format!("{gone} of 21, at most {most_purges} and {most_percent} %");
        let dry = ReconcileConfig {
            repairs: false,
            ..config.clone()
        };
        let report = swept(&life, &life.app.slack, &dry).await;
        assert_eq!(report.is_guard_tripped, is_tripped, "{case}, only reported");
        let report = swept(&life, &life.app.slack, &config).await;
        assert_eq!(report.is_guard_tripped, is_tripped, "{case}");
        let purged = if is_tripped { 0 } else { gone };
        assert_eq!((report.purged, report.repaired), (purged, 1), "{case}");
        assert_eq!(life.host.tenants().len(), purged, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_sweep_only_reports_and_would_purge_little() {
    let config = ReconcileConfig::default();
    assert!(!config.repairs);
    assert_eq!(config.pause, Duration::from_millis(200));
    assert_eq!((config.most_purges, config.most_percent), (10, 5));
    let (life, _, user) = alpha().await;
    life.app.fake.join_org(ALPHA, ORG);
    let before = all_rows(&*life.backend).await;
    for words in ["", "token_revoked"] {
        let slack = saying(&life, &[(&user, &[words])]);
        let report = swept(&life, &slack, &config).await;
        assert_eq!(report.findings.len(), 1);
        assert_eq!((report.purged, report.repaired), (0, 0));
        assert!(!report.is_guard_tripped);
    }
    assert_eq!(all_rows(&*life.backend).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_stops_no_sweep_and_is_called_later() {
    let life = many().await;
    for number in 0..2 {
        life.app.fake.uninstall(&format!("T0MANY{number}"));
    }
    life.host.set_failing(true);
    let config = ReconcileConfig {
        most_percent: 100,
        ..sweep(true)
    };
    let report = swept(&life, &life.app.slack, &config).await;
    assert_eq!(report.purged, 2, "their data is deleted");
    for number in 0..2 {
        let slots = life.slots(&format!("T0MANY{number}")).await;
        assert_eq!(slots, ["departure"]);
    }
    life.host.set_failing(false);
    life.advance(61);
    let told = life.lifecycle.resume_pending().await;
    assert_eq!(told.expect("responds"), 2);
    let reason = "reconcile: its tokens are dead";
    assert!(life.host.departures().iter().all(|told| told.1 == reason));
}

/// Returns a client to which Slack returns these fields for every token.
fn telling(life: &Life, fields: &Value) -> SlackClient {
    let fields = fields.clone();
    scripted(&life.app.fake, move |_, _| {
        let fields = fields.clone();
        async move { Some(ok(fields)) }
    })
}

#[tokio::test(start_paused = true)]
async fn what_slack_says_anew_of_an_installation_is_stored_and_nothing_that_it_leaves_out() {
    let url = "https://renamed.slack.com/";
    for (is_bot, fields, is_outdated) in [
        (true, json!({"team_id": ALPHA}), false),
        (false, json!({"team_id": ALPHA}), false),
        (true, json!({"team_id": ALPHA, "url": url}), true),
        (false, json!({"team_id": ALPHA, "url": url}), true),
        (
            true,
            json!({"team_id": ALPHA, "bot_id": "B0RENEWED01"}),
            true,
        ),
        (true, json!({"url": url, "bot_id": "B0RENEWED01"}), true),
        // The organisation of another workspace does not apply to this one.
        (true, json!({"team_id": BRAVO, "enterprise_id": ORG}), false),
        (true, json!({"enterprise_id": ORG}), false),
        (true, json!({"team_id": ALPHA, "enterprise_id": ORG}), true),
        (false, json!({"team_id": ALPHA, "enterprise_id": ORG}), true),
    ] {
        let life = Life::new().await;
        if is_bot {
            life.install(ADA).await
        } else {
            life.install_without_bot(ADA).await
        }
        let before = life.app.stored(ALPHA, Some(ADA)).await;
        let slack = telling(&life, &fields);
        let report = swept(&life, &slack, &sweep(true)).await;
        let found = vec![Verdict::Outdated; usize::from(is_outdated)];
        assert_eq!(verdicts(&report), found, "{fields}");
        assert_eq!(report.repaired, usize::from(is_outdated), "{fields}");
        let after = life.app.stored(ALPHA, Some(ADA)).await;
        let said = |name: &str| fields[name].as_str().map(str::to_owned);
        let url = said("url").or_else(|| before.url.clone());
        assert_eq!(after.url, url, "{fields}");
        let org = after.home.enterprise().map(|org| org.id.as_str());
        let org_said = said("enterprise_id").filter(|_| is_outdated);
        assert_eq!(org, org_said.as_deref(), "{fields}");
        let bot_id = |bot: Option<slack_installs::Bot>| {
            let id = bot?.id?;
            Some(id.as_str().to_owned())
        };
        assert_eq!(
            bot_id(after.installation.bot),
            said("bot_id").or_else(|| bot_id(before.installation.bot))
        );
        // Nothing is left to repair.
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(report.findings.len(), 0, "{fields}");
        assert!(life.user_token(ALPHA, ADA).await.is_some());
        assert_eq!(life.bot_token(ALPHA).await.is_some(), is_bot);
    }
}

#[tokio::test(start_paused = true)]
async fn a_workspace_that_has_left_its_organisation_is_brought_up_to_date() {
    let life = Life::new().await;
    life.install("U0GRIDUSR02").await;
    let installed = life.app.stored(SALES, None).await;
    assert!(installed.home.enterprise().is_some());
    let url = installed
        .url
        .clone()
        .map(|url| url.replace("https://", "https://new-"));
    assert!(url.is_some());
    let slack = telling(&life, &json!({"team_id": SALES, "url": url}));
    // Two fields changed, and each sweep stores one of them.
    for sweeps in 1..=2 {
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(verdicts(&report), [Verdict::Outdated], "{sweeps}");
        assert_eq!(report.repaired, 1, "{sweeps}");
        let after = life.app.stored(SALES, None).await;
        assert!(after.home.enterprise().is_none());
        assert_eq!(after.url == url, sweeps == 2);
    }
    let report = swept(&life, &slack, &sweep(true)).await;
    assert_eq!(report.findings.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_organisations_own_id_is_never_brought_up_to_date() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    for fields in [
        json!({"enterprise_id": "E0OTHER0001"}),
        json!({"team_id": SALES, "enterprise_id": "E0OTHER0001"}),
        json!({}),
    ] {
        let report = swept(&life, &telling(&life, &fields), &sweep(true)).await;
        assert_eq!(report.findings.len(), 0, "{fields}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_outdated_stays_while_slack_does_not_repeat_it() {
    for second in ["account_inactive", "token_expired", "fatal_error"] {
        let (life, bot, _) = alpha().await;
        life.app.fake.join_org(ALPHA, ORG);
        let slack = saying(&life, &[(&bot, &["", second])]);
        let before = all_rows(&*life.backend).await;
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(verdicts(&report), [Verdict::Outdated], "{second}");
        assert_eq!(report.repaired, 0, "{second}");
        assert_eq!(all_rows(&*life.backend).await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_purges_touches_no_other_tenant() {
    let life = many().await;
    life.app.fake.uninstall(ALPHA);
    let partition = format!("{}/{ALPHA}", life.app.fake.client_id());
    let others = async || {
        let mut rows = all_rows(&*life.backend).await;
        rows.retain(|(key, _)| key.partition.as_str() != partition);
        rows
    };
    let before = others().await;
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!(report.purged, 1);
    assert_eq!(others().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_reads_every_page() {
    let life = Life::with(
        many_world(),
        Arc::new(Hooked::over(Arc::new(MemoryBackend::default()), Paged(4))),
    )
    .await;
    life.install(BEN).await;
    life.install(ADA).await;
    for number in 0..20 {
        life.install(format!("U0MANY{number}").as_str()).await;
    }
    life.app.fake.uninstall("T0MANY19");
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!((report.examined, report.purged), (21, 1));
    let users = life.app.store.users(&key(ALPHA)).await.expect("responds");
    assert_eq!(users.len(), 2);
    // Ben's token is alive. The sweep finds it on any page, so the tenant is not purged.
    for token in [
        life.app.fake.bot_token(ALPHA),
        life.app.fake.user_token(ALPHA, ADA),
    ] {
        let token = token.expect("installed");
        let revoked = life.app.slack.auth_revoke(&token).await;
        revoked.expect("revoked");
    }
    let report = swept(&life, &life.app.slack, &sweep(true)).await;
    assert_eq!((verdicts(&report), report.purged), (vec![Verdict::Gone], 0));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_purged_by_two_sure_responses_and_not_by_the_second_alone() {
    let dead = "account_inactive";
    for first in ["token_expired", "invalid_auth", "some_new_error"] {
        let (life, bot, user) = alpha().await;
        let codes = [first, dead];
        let slack = saying(&life, &[(&bot, &codes), (&user, &codes)]);
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(report.findings.len(), 1, "{first}");
        assert_eq!((report.purged, report.repaired), (0, 0), "{first}");
        assert_eq!(life.bot_token(ALPHA).await, bot, "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_that_was_removed_counts_though_the_other_went_by_itself() {
    let (life, bot, user) = alpha().await;
    let life = Arc::new(life);
    let (live, asked) = (Arc::clone(&life), Arc::new(AtomicUsize::new(0)));
    let slack = scripted(&life.app.fake, move |_, token| {
        let (life, asked) = (Arc::clone(&live), Arc::clone(&asked));
        let is_users = user.as_ref() == Some(&token);
        async move {
            if is_users {
                if asked.fetch_add(1, SeqCst) == 0 {
                    return None;
                }
                let delete = Delete::user(user_id(ADA));
                let deleted = life.app.store.delete(&key(ALPHA), &delete).await;
                assert!(deleted.expect("responds"));
            }
            Some(error("account_inactive"))
        }
    });
    assert!(bot.is_some());
    let report = swept(&life, &slack, &sweep(true)).await;
    assert_eq!(verdicts(&report), [Verdict::PartlyGone]);
    assert_eq!(report.repaired, 1);
    assert_eq!(life.slots(ALPHA).await, ["install"]);
}

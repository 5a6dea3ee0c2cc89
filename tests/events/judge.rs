//! Which installation an event concerns: decided by its time, and in doubt by Slack's response for
//! a token.

use slack_installs::testing::{Delivery, Fault};
use slack_installs::{Delete, Handled, InstallationStore as _, LifecycleError};

use super::*;
use crate::support::app::{key, user_id};

/// Returns what was done, or why nothing was done.
fn done(outcome: &Result<Handled, LifecycleError>) -> &'static str {
    match outcome {
        Ok(Handled::Ignored) => "ignored",
        Ok(Handled::Purged) => "purged",
        Ok(Handled::Revoked) => "revoked",
        Err(LifecycleError::Slack(_)) => "an error",
        other => panic!("{other:?}"),
    }
}

/// An event up to 5 s before the installation or 300 s after it is in doubt.
const TIMES: [(i64, &str); 9] = [
    (-3600, "earlier"),
    (-6, "earlier"),
    (-5, "in doubt"),
    (-1, "in doubt"),
    (0, "in doubt"),
    (299, "in doubt"),
    (300, "in doubt"),
    (301, "later"),
    (3600, "later"),
];

#[tokio::test]
async fn an_uninstall_is_judged_by_its_time_and_only_within_the_margin_by_slack() {
    for (seconds, age) in TIMES {
        for is_dead in [false, true] {
            let life = Life::standing().await;
            life.install(ADA).await;
            let event = life.app.fake.app_uninstalled(ALPHA);
            let event = life.dispatched(event, ALPHA, seconds).await;
            if is_dead {
                life.app.fake.uninstall(ALPHA);
            }
            let before = life.app.fake.calls("auth.test");
            let outcome = life.deliver(&event).await;
            let calls = life.app.fake.calls("auth.test") - before;
            let expected = match (age, is_dead) {
                ("earlier", _) => ("ignored", 0),
                ("in doubt", false) => ("ignored", 1),
                ("in doubt", true) => ("purged", 1),
                _ => ("purged", 0),
            };
            let case = format!("{seconds} s, dead: {is_dead}");
            assert_eq!((done(&outcome), calls), expected, "{case}");
            let is_left = !life.slots(ALPHA).await.is_empty();
            assert_eq!(is_left, expected.0 == "ignored", "{case}");
        }
    }
}

/// Slack's error codes for a token: which show that it is dead, and which prove nothing.
const DOUBTS: [(&str, &str); 18] = [
    ("account_inactive", "purged"),
    ("authorization_not_found", "purged"),
    ("token_revoked", "purged"),
    ("invalid_token", "purged"),
    ("invalid_auth", "an error"),
    ("token_expired", "an error"),
    ("org_login_required", "an error"),
    ("team_added_to_org", "an error"),
    ("access_denied", "an error"),
    ("two_factor_setup_required", "an error"),
    ("bad_client_secret", "an error"),
    ("missing_scope", "an error"),
    ("ratelimited", "an error"),
    ("service_unavailable", "an error"),
    ("fatal_error", "an error"),
    ("not_authed", "an error"),
    ("team_access_not_granted", "an error"),
    ("some_new_error", "an error"),
];

#[tokio::test]
async fn in_doubt_a_dead_token_ends_the_installation_and_nothing_else_does() {
    for has_bot in [true, false] {
        for (code, expected) in DOUBTS {
            let life = Life::standing().await;
            if has_bot {
                life.install(ADA).await
            } else {
                life.install_without_bot(ADA).await
            }
            let fault = Fault::error(code).always();
            life.app.fake.inject("auth.test", fault);
            let outcome = life.deliver(&life.app.fake.app_uninstalled(ALPHA)).await;
            assert_eq!(done(&outcome), expected, "{code}, bot: {has_bot}");
            let is_left = !life.slots(ALPHA).await.is_empty();
            assert_eq!(is_left, expected != "purged", "{code}, bot: {has_bot}");
            let told = life.host.tenants().len();
            assert_eq!(told, usize::from(expected == "purged"), "{code}");
        }
    }
}

#[tokio::test]
async fn while_slack_cannot_be_reached_a_doubtful_event_ends_nothing() {
    for fault in [Fault::lost(), Fault::unavailable()] {
        let life = Life::standing().await;
        life.install(ADA).await;
        life.app.fake.uninstall(ALPHA);
        life.app.fake.inject("auth.test", fault.always());
        let bot = life.app.fake.bot_user(ALPHA);
        for event in [
            life.app.fake.app_uninstalled(ALPHA),
            life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]),
            life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]),
        ] {
            let outcome = life.deliver(&event).await;
            assert_eq!(done(&outcome), "an error");
            assert!(outcome.is_err_and(|error| error.is_transient()));
        }
        assert!(life.bot_token(ALPHA).await.is_some());
        assert!(life.user_token(ALPHA, ADA).await.is_some());
    }
}

#[tokio::test]
async fn without_a_bot_the_last_installers_token_is_asked_about_and_no_other() {
    for (dead, expected) in [(ADA, Handled::Ignored), (BEN, Handled::Purged)] {
        let life = Life::standing().await;
        life.install_without_bot(ADA).await;
        life.install_without_bot(BEN).await;
        assert!(life.app.fake.revoke_user(ALPHA, dead));
        let event = life.app.fake.app_uninstalled(ALPHA);
        assert_eq!(life.handled(&event).await, expected, "{dead}");
    }
}

#[tokio::test]
async fn an_installation_without_any_token_is_ended_without_asking() {
    let life = Life::standing().await;
    life.install(ADA).await;
    for delete in [Delete::bot(), Delete::user(user_id(ADA))] {
        let deleted = life.app.store.delete(&key(ALPHA), &delete).await;
        assert!(deleted.expect("responds"));
    }
    let before = life.app.fake.calls("auth.test");
    let event = life.app.fake.app_uninstalled(ALPHA);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.app.fake.calls("auth.test"), before);
}

/// A revocation of a token: for each response of Slack, the result for an earlier event, for one in
/// doubt, and for a later one.
const WORDS: [(&str, [&str; 3]); 14] = [
    ("", ["ignored", "ignored", "ignored"]),
    ("account_inactive", ["revoked", "revoked", "revoked"]),
    ("authorization_not_found", ["revoked", "revoked", "revoked"]),
    ("token_revoked", ["revoked", "revoked", "revoked"]),
    ("invalid_token", ["revoked", "revoked", "revoked"]),
    ("invalid_auth", ["an error", "an error", "revoked"]),
    ("token_expired", ["ignored", "an error", "revoked"]),
    ("team_added_to_org", ["an error", "an error", "an error"]),
    ("access_denied", ["an error", "an error", "an error"]),
    ("bad_client_secret", ["an error", "an error", "an error"]),
    ("missing_scope", ["an error", "an error", "an error"]),
    ("ratelimited", ["an error", "an error", "an error"]),
    ("fatal_error", ["an error", "an error", "an error"]),
    ("some_new_error", ["an error", "an error", "an error"]),
];

fn of_the_bot(life: &Life) -> Delivery {
    let bot = life.app.fake.bot_user(ALPHA);
    life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()])
}

fn of_ada(life: &Life) -> Delivery {
    life.app.fake.tokens_revoked(ALPHA, &[ADA], &[])
}

#[tokio::test]
async fn a_revoked_token_goes_by_slacks_word_and_the_time_counts_where_that_is_unclear() {
    for (is_bot, (code, by_age)) in [true, false]
        .into_iter()
        .flat_map(|is_bot| WORDS.map(|words| (is_bot, words)))
    {
        for (seconds, age) in TIMES {
            let life = Life::standing().await;
            life.install(ADA).await;
            if !code.is_empty() {
                let fault = Fault::error(code).always();
                life.app.fake.inject("auth.test", fault);
            }
            let event = if is_bot { of_the_bot } else { of_ada };
            let event = life.dispatched(event(&life), ALPHA, seconds).await;
            let expected = match age {
                "earlier" => by_age[0],
                "in doubt" => by_age[1],
                _ => by_age[2],
            };
            let case = format!("{code}, {seconds} s, bot: {is_bot}");
            assert_eq!(done(&life.deliver(&event).await), expected, "{case}");
            let goes = expected == "revoked";
            let bot = life.bot_token(ALPHA).await.is_some();
            assert_eq!(bot, !(goes && is_bot), "{case}");
            let user = life.user_token(ALPHA, ADA).await.is_some();
            assert_eq!(user, !goes || is_bot, "{case}");
        }
    }
}

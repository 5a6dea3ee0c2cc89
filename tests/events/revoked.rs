//! `tokens_revoked`: deletes exactly the listed tokens, and only if they are dead.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;
use slack_installs::slack::SlackClient;
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, Rotation, Who};
use slack_installs::{Delete, Handled, InstallationStore as _, LifecycleError};

use super::*;
use crate::support::app::{key, user_id};
use crate::support::script::{error, scripted};
use crate::support::serving::rotator;

#[tokio::test]
async fn the_bots_revocation_leaves_the_users() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app
        .fake
        .inject("auth.test", Fault::error("account_inactive"));
    let bot = life.app.fake.bot_user(ALPHA);
    let event = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    assert_eq!(life.handled(&event).await, Handled::Revoked);
    assert_eq!(life.bot_token(ALPHA).await, None);
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn a_bot_that_is_not_ours_is_nobodys_business() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app
        .fake
        .inject("auth.test", Fault::error("account_inactive").always());
    // The event lists Ada as a bot and the bot as a user. Neither entry names a token of this app.
    let bot = life.app.fake.bot_user(ALPHA);
    let event = life
        .app
        .fake
        .tokens_revoked(ALPHA, &[bot.as_str()], &["U0OTHERBOT1", ADA]);
    assert_eq!(life.handled(&event).await, Handled::Ignored);
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn the_echo_of_a_token_that_was_replaced_takes_no_live_one() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    let bot = life.app.fake.bot_user(ALPHA);
    let echo = life.app.fake.tokens_revoked(ALPHA, &[ADA], &[bot.as_str()]);
    assert_eq!(life.handled(&echo).await, Handled::Ignored);
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn a_dead_token_goes_though_somebody_else_has_installed_since() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    let events = life.app.fake.take_events();
    life.advance(3600);
    life.install(BEN).await;
    for event in events {
        assert_eq!(life.handled(&event).await, Handled::Revoked);
    }
    assert_eq!(life.user_token(ALPHA, ADA).await, None);
    assert!(life.user_token(ALPHA, BEN).await.is_some());
}

#[tokio::test]
async fn an_expired_token_is_judged_by_the_time_of_the_event() {
    let life = Life::new().await;
    life.install(ADA).await;
    let bot = life.app.fake.bot_user(ALPHA);
    life.app
        .fake
        .inject("auth.test", Fault::error("token_expired").always());
    let doubtful = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    life.deliver(&doubtful).await.expect_err("it is unknown");
    assert!(life.bot_token(ALPHA).await.is_some());
    life.advance(3600);
    let event = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    assert_eq!(life.handled(&event).await, Handled::Revoked);
}

#[tokio::test]
async fn an_organisations_revocation_touches_no_workspace() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    life.app.fake.revoke_user(ORG, OLGA);
    for event in life.app.fake.take_events() {
        assert_eq!(life.handled(&event).await, Handled::Revoked);
    }
    assert_eq!(life.user_token(ORG, OLGA).await, None);
    assert!(life.bot_token(ORG).await.is_some());
    assert!(life.bot_token(SALES).await.is_some());
}

#[tokio::test]
async fn an_address_that_is_not_on_the_allow_list_takes_no_token() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(60);
    let bot = life.app.fake.bot_user(ALPHA);
    let echo = life.app.fake.tokens_revoked(ALPHA, &[ADA], &[bot.as_str()]);
    let fault = Fault::error("invalid_auth").always();
    life.app.fake.inject("auth.test", fault);
    life.deliver(&echo).await.expect_err("it is unknown");
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn a_user_who_cannot_be_judged_keeps_no_other_token_alive() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.install(BEN).await;
    life.advance(3600);
    for user in [ADA, BEN] {
        assert!(life.app.fake.revoke_user(ALPHA, user));
    }
    life.app.fake.inject("auth.test", Fault::unavailable());
    let event = life.app.fake.tokens_revoked(ALPHA, &[ADA, BEN], &[]);
    life.deliver(&event).await.expect_err("Ada is not judged");
    assert_eq!(life.user_token(ALPHA, BEN).await, None);
    assert!(life.user_token(ALPHA, ADA).await.is_some());
    assert_eq!(life.handled(&event).await, Handled::Revoked);
    assert_eq!(life.user_token(ALPHA, ADA).await, None);
}

#[tokio::test]
async fn a_token_that_was_refreshed_while_it_was_judged_stays() {
    for credential in [Credential::Bot, Credential::User(user_id(ADA))] {
        let life = Arc::new(Life::new().await);
        life.app.fake.rotate_tokens(Rotation::default());
        life.install(ADA).await;
        let bot = life.app.fake.bot_user(ALPHA);
        let (users, bots) = match credential {
            Credential::Bot => (vec![], vec![bot.as_str()]),
            Credential::User(_) => (vec![ADA], vec![]),
        };
        let installed = life.app.stored(ALPHA, Some(ADA)).await;
        // The token has expired. The event is later than the installation, so the token counts as
        // revoked.
        life.advance(13 * 3600);
        let event = life.app.fake.tokens_revoked(ALPHA, &users, &bots);
        let asked = Arc::new(AtomicUsize::new(0));
        let slack = {
            let (life, asked) = (Arc::clone(&life), Arc::clone(&asked));
            let credential = credential.clone();
            scripted(&life.app.fake.clone(), move |method, _| {
                let (life, asked) = (Arc::clone(&life), Arc::clone(&asked));
                let credential = credential.clone();
                async move {
                    let is_first = method == "auth.test" && asked.fetch_add(1, SeqCst) == 0;
                    if !is_first {
                        return None;
                    }
                    let token = rotator(&life.app).token_for(&key(ALPHA), credential).await;
                    assert!(token.is_ok(), "{token:?}");
                    Some(error("token_expired"))
                }
            })
        };
        let handled = life.deliver_over(&slack, &event).await;
        let handled = handled.expect("it can be handled");
        assert_eq!(handled, Handled::Ignored, "{credential:?}");
        assert_eq!(asked.load(SeqCst), 2, "the new token is checked separately");
        let current = life.app.stored(ALPHA, Some(ADA)).await;
        assert_eq!(
            current.revision, installed.revision,
            "a refresh keeps the revision"
        );
        let tokens = [
            life.bot_token(ALPHA).await.expect("the bot's token"),
            life.user_token(ALPHA, ADA).await.expect("Ada's token"),
        ];
        let refreshed = usize::from(credential != Credential::Bot);
        assert!(life.app.fake.is_live(&tokens[refreshed]), "{credential:?}");
    }
}

/// Returns a client of Slack, and the number of its `auth.test` calls. During each of its first
/// `times` calls Ada installs the app again. Without rotation this brings the same tokens, and the
/// response describes the time before.
fn reinstalled_meanwhile(life: &Arc<Life>, times: usize) -> (SlackClient, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (live, counted) = (Arc::clone(life), Arc::clone(&asked));
    let slack = scripted(&life.app.fake, move |method, _| {
        let (life, asked) = (Arc::clone(&live), Arc::clone(&counted));
        async move {
            let is_meant = method == "auth.test" && asked.fetch_add(1, SeqCst) < times;
            if !is_meant {
                return None;
            }
            // The installation calls `auth.test` for its bot too, but with another client.
            life.install(ADA).await;
            Some(error("account_inactive"))
        }
    });
    (slack, asked)
}

#[tokio::test]
async fn an_installation_that_is_renewed_while_it_is_judged_is_judged_again() {
    for what in ["bot", "user", "uninstall"] {
        let life = Arc::new(Life::new().await);
        life.install(ADA).await;
        let bot = life.app.fake.bot_user(ALPHA);
        let event = match what {
            "bot" => life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]),
            "user" => life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]),
            _ => life.app.fake.app_uninstalled(ALPHA),
        };
        let before = life.bot_token(ALPHA).await;
        let (slack, asked) = reinstalled_meanwhile(&life, 1);
        let handled = life.deliver_over(&slack, &event).await;
        let handled = handled.expect("it can be handled");
        assert_eq!(handled, Handled::Ignored, "{what}");
        assert_eq!(asked.load(SeqCst), 2, "{what}");
        assert_eq!(life.bot_token(ALPHA).await, before, "{what}");
        assert!(life.user_token(ALPHA, ADA).await.is_some(), "{what}");
        assert_eq!(life.host.tenants(), [""; 0], "{what}");
    }
}

#[tokio::test]
async fn an_installation_that_is_renewed_again_and_again_is_an_error_that_passes() {
    let life = Arc::new(Life::new().await);
    life.install(ADA).await;
    let event = life.app.fake.app_uninstalled(ALPHA);
    let (slack, asked) = reinstalled_meanwhile(&life, usize::MAX);
    let outcome = life.deliver_over(&slack, &event).await;
    let outcome = outcome.expect_err("it is unknown");
    assert_matches!(outcome, LifecycleError::Moved);
    assert!(outcome.is_transient());
    assert!(asked.load(SeqCst) > 2, "it is judged more than twice");
    assert!(life.bot_token(ALPHA).await.is_some());
    // Nine reinstallations are within the limit.
    let (slack, _) = reinstalled_meanwhile(&life, 9);
    let outcome = life.deliver_over(&slack, &event).await;
    assert_eq!(outcome.expect("within the limit"), Handled::Ignored);
}

#[tokio::test]
async fn of_a_list_exactly_the_dead_go_in_whatever_order_they_are_named() {
    let lists: [(&[&str], bool); 4] = [
        (&[ADA, "not an id", BEN, "U0STRANGER1"], true),
        (&["U0STRANGER1", BEN, "not an id", ADA], true),
        (&[BEN, ADA], false),
        (&[ADA], true),
    ];
    for (users, names_bot) in lists {
        let life = Life::new().await;
        life.install(ADA).await;
        life.install(BEN).await;
        life.advance(3600);
        assert!(life.app.fake.revoke_user(ALPHA, ADA));
        let bot = life.bot_token(ALPHA).await;
        // The event also lists the bot, last. The bot's token is valid.
        let bot_user = life.app.fake.bot_user(ALPHA);
        let bots = if names_bot {
            vec!["U0OTHERBOT1", bot_user.as_str()]
        } else {
            vec![]
        };
        let event = life.app.fake.tokens_revoked(ALPHA, &[], &bots);
        let event = event.edit(|event| event["event"]["tokens"]["oauth"] = users.into());
        assert_eq!(life.handled(&event).await, Handled::Revoked, "{users:?}");
        assert_eq!(life.user_token(ALPHA, ADA).await, None, "{users:?}");
        assert!(life.user_token(ALPHA, BEN).await.is_some(), "{users:?}");
        assert_eq!(life.bot_token(ALPHA).await, bot, "{users:?}");
        // When the event is delivered again, nothing is left to do.
        assert_eq!(life.handled(&event).await, Handled::Ignored, "{users:?}");
    }
}

#[tokio::test]
async fn a_bot_among_others_goes_with_the_users_that_are_named_beside_it() {
    for others_first in [true, false] {
        let life = Life::new().await;
        life.install(ADA).await;
        life.install(BEN).await;
        life.advance(3600);
        let bot = life.app.fake.bot_user(ALPHA);
        let mut bots = vec![bot.as_str(), "U0OTHERBOT1"];
        if others_first {
            bots.reverse();
        }
        let event = life.app.fake.tokens_revoked(ALPHA, &[ADA], &bots);
        life.app.fake.uninstall(ALPHA);
        assert_eq!(life.handled(&event).await, Handled::Revoked);
        assert_eq!(life.bot_token(ALPHA).await, None);
        assert_eq!(life.user_token(ALPHA, ADA).await, None);
        assert!(
            life.user_token(ALPHA, BEN).await.is_some(),
            "Ben is not listed"
        );
    }
}

#[tokio::test]
async fn of_several_that_cannot_be_judged_the_first_is_reported() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.install(BEN).await;
    for code in ["org_login_required", "some_new_error"] {
        life.app.fake.inject("auth.test", Fault::error(code));
    }
    let event = life.app.fake.tokens_revoked(ALPHA, &[ADA, BEN], &[]);
    let error = life.deliver(&event).await.expect_err("it is unknown");
    assert!(error.is_transient(), "{error:?}");
    assert!(
        format!("{error:?}").contains("org_login_required"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_event_that_lists_nothing_takes_nothing_and_a_wrong_form_is_an_error() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app.fake.uninstall(ALPHA);
    let bot = life.app.fake.bot_user(ALPHA);
    let event = || life.app.fake.tokens_revoked(ALPHA, &[ADA], &[bot.as_str()]);
    for tokens in [json!({}), json!({"oauth": []}), json!({"bot": []})] {
        let event = event().edit(|event| event["event"]["tokens"] = tokens);
        assert_eq!(life.handled(&event).await, Handled::Ignored);
    }
    let without = event().edit(|event| {
        let event = event["event"].as_object_mut().expect("an object");
        event.remove("tokens");
    });
    assert_eq!(life.handled(&without).await, Handled::Ignored);
    for tokens in [json!("all"), json!({"oauth": ADA}), json!({"bot": [1]})] {
        let event = event().edit(|event| event["event"]["tokens"] = tokens);
        let error = life.deliver(&event).await.expect_err("not readable");
        assert_matches!(error, LifecycleError::Event(_));
        assert!(!error.is_transient());
    }
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
    // One list alone is valid.
    let event = event().edit(|event| event["event"]["tokens"] = json!({"oauth": [ADA]}));
    assert_eq!(life.handled(&event).await, Handled::Revoked);
}

#[tokio::test]
async fn a_workspace_with_its_own_install_never_loses_its_organisations_tokens() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    // Olga's token is dead, and the event names her, the workspace and the organisation.
    assert!(life.app.fake.revoke_user(ORG, OLGA));
    let event = life.app.fake.tokens_revoked(SALES, &[OLGA], &[]);
    let event = event.edit(|event| event["enterprise_id"] = ORG.into());
    assert_eq!(life.handled(&event).await, Handled::Ignored);
    assert!(life.user_token(ORG, OLGA).await.is_some());
}

#[tokio::test]
async fn a_token_that_goes_while_it_is_judged_is_nothing_that_the_event_did() {
    for is_bot in [true, false] {
        let life = Arc::new(Life::new().await);
        life.install(ADA).await;
        let bot = life.app.fake.bot_user(ALPHA);
        let (event, delete) = if is_bot {
            let event = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
            (event, Delete::bot())
        } else {
            let event = life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]);
            (event, Delete::user(user_id(ADA)))
        };
        let live = Arc::clone(&life);
        let slack = scripted(&life.app.fake, move |_, _| {
            let (life, delete) = (Arc::clone(&live), delete.clone());
            async move {
                let deleted = life.app.store.delete(&key(ALPHA), &delete).await;
                assert!(deleted.expect("responds"));
                Some(error("account_inactive"))
            }
        });
        let handled = life.deliver_over(&slack, &event).await;
        let handled = handled.expect("it can be handled");
        assert_eq!(handled, Handled::Ignored, "bot: {is_bot}");
    }
}

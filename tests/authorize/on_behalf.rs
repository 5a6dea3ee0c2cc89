//! The user who acts, and the user for whom Slack delivers an event.

use serde_json::Value;
use slack_installs::testing::{Delivery, Fault};
use slack_installs::{AuthorizeResult, InstallationStore as _};

use super::support::installs::{With as _, in_workspace};
use super::support::serving::{Token, hold, interrupted, keep, rotator};
use super::*;

const BOB: &str = "U0BOB000001";
const CAROL: &str = "U0CAROL0001";

/// Returns a life in which these users of Alpha authorised the app, with or without a bot.
async fn life_of(users: &[&str], has_bot: bool) -> Life {
    let life = Life::new().await;
    for user in users {
        let mut install = in_workspace(ALPHA).with_user(user, &format!("xoxp-{user}"));
        install.app_id = life.app.fake.app_id();
        if has_bot {
            install = install.with_bot("xoxb-alpha");
        }
        life.app.store.store(&install).await.expect("stored");
    }
    life
}

fn on_behalf_of(life: &Life, user: &str, event: Value) -> Delivery {
    life.app.fake.event(ALPHA, event).edit(|event| {
        event["authorizations"][0]["user_id"] = json!(user);
        event["authorizations"][0]["is_bot"] = json!(false);
    })
}

/// The acting user's token, and the authorizing user's.
type Tokens<'a> = (Option<&'a str>, Option<&'a str>);

fn tokens(served: &AuthorizeResult) -> Tokens<'_> {
    let acting = served.user_token().map(|token| token.expose());
    let authorizing = served.authorizing_user_token();
    (acting, authorizing.map(|token| token.expose()))
}

#[tokio::test]
async fn the_authorizing_users_token_is_available_under_that_name_only() {
    let (bob, carol) = ("xoxp-U0BOB000001", "xoxp-U0CAROL0001");
    let cases: [(&[&str], Tokens<'_>); 3] = [
        (&[BOB], (None, Some(bob))),
        (&[BOB, CAROL], (Some(carol), Some(bob))),
        (&[CAROL], (Some(carol), None)),
    ];
    for (users, expected) in cases {
        for has_bot in [false, true] {
            let life = life_of(users, has_bot).await;
            let event = json!({"type": "message", "user": CAROL});
            let served = life.authorize(&on_behalf_of(&life, BOB, event)).await;
            let served = served.expect("a token fits");
            assert_eq!(tokens(&served), expected, "{users:?} {has_bot}");
            assert_eq!(served.bot_token().is_some(), has_bot);
        }
    }
}

#[tokio::test]
async fn an_event_without_an_actor_has_its_authorizing_user() {
    let life = life_of(&[BOB], false).await;
    for event in [
        json!({"type": "channel_rename", "channel": {"id": "C1"}}),
        json!({"type": "user_change", "user": {"id": CAROL}}),
        json!({"type": "message", "user": 7}),
        json!({"type": "file_shared", "user_id": CAROL}),
    ] {
        let served = life.authorize(&on_behalf_of(&life, BOB, event)).await;
        let served = served.expect("Bob's token");
        assert_eq!(tokens(&served), (None, Some("xoxp-U0BOB000001")));
    }
}

#[tokio::test]
async fn a_user_who_acts_and_authorizes_has_one_token_under_both_names_in_one_read() {
    let (life, backend) = interrupted().await;
    keep(&life.app, Token::Missing, Token::Live).await;
    let event = json!({"type": "message", "user": ADA});
    let request = life.request(&on_behalf_of(&life, ADA, event));
    let before = backend.reads();
    let served = life.authorizer.authorize(&request).await;
    let served = served.expect("Ada's token");
    let (acting, authorizing) = tokens(&served);
    assert!(acting.is_some() && acting == authorizing);
    assert_eq!(backend.reads() - before, 1);
}

#[tokio::test]
async fn the_invited_users_token_is_not_offered() {
    let life = life_of(&[BOB, CAROL], true).await;
    let joined = |inviter: Value| {
        let event = json!({"type": "member_joined_channel", "user": BOB, "inviter": inviter});
        life.app.fake.event(ALPHA, event)
    };
    let served = life.authorize(&joined(json!(CAROL))).await;
    let served = served.expect("the bot's token");
    assert_eq!(tokens(&served), (Some("xoxp-U0CAROL0001"), None));
    let served = life.authorize(&joined(Value::Null)).await;
    assert_eq!(tokens(&served.expect("the bot's token")), (None, None));
}

#[tokio::test]
async fn an_authorizing_user_without_a_token_is_no_token() {
    let life = life_of(&[CAROL], false).await;
    let event = json!({"type": "channel_rename"});
    let outcome = life.authorize(&on_behalf_of(&life, BOB, event)).await;
    assert_matches!(outcome, Err(AuthorizeError::NoToken));
}

#[tokio::test]
async fn the_authorizing_users_token_is_refreshed_and_its_error_is_the_requests_if_no_other_serves()
{
    for (bot, is_refused) in [(Token::Missing, true), (Token::Lasting, false)] {
        let (life, _) = interrupted().await;
        keep(&life.app, bot, Token::Over).await;
        let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
        let event = json!({"type": "message", "user": CAROL});
        let request = life.request(&on_behalf_of(&life, ADA, event));
        life.app
            .fake
            .inject("oauth.v2.access", Fault::unavailable().always());
        match authorizer.authorize(&request).await {
            Ok(served) => {
                assert!(!is_refused);
                assert!(served.authorizing_user().is_none());
            }
            Err(AuthorizeError::Refresh(error)) => {
                assert!(is_refused && error.is_transient(), "{error:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_hold_between_the_two_reads_is_heeded() {
    let (life, backend) = interrupted().await;
    keep(&life.app, Token::Lasting, Token::Lasting).await;
    let event = json!({"type": "message", "user": CAROL});
    let request = life.request(&on_behalf_of(&life, ADA, event));
    let store = life.app.store.clone();
    let at = life.app.fake.clock().now();
    backend.before_read(2, async move {
        let hold = slack_installs::Hold {
            is_on: true,
            reason: "ticket 1".to_owned(),
            at,
        };
        let tenant = support::app::key(ALPHA);
        let held = slack_installs::LifecycleStore::hold(&store, &tenant, &hold).await;
        assert!(held.expect("the store responds"));
    });
    let outcome = life.authorizer.authorize(&request).await;
    assert_matches!(outcome, Err(AuthorizeError::OnHold));
    hold(&life.app, ALPHA, false).await;
    assert!(life.authorizer.authorize(&request).await.is_ok());
}

//! The response to the user and to Slack if a request cannot be served: for each reason and each
//! kind of request. The response and its log contain no secret.

use std::pin::Pin;

use serde_json::json;
use slack_installs::backend::{Backend as _, Change, Expect, Row, Version};
use slack_installs::testing::{Delivery, Fault, Who};
use slack_installs::{Hold, LifecycleStore as _, store};

use super::front::{Front, text};
use super::support::app::{ADA, ALPHA, OLGA, ORG, SALES};
use super::support::life::Life;
use super::support::serving::{Token, hold, interrupted, keep, rotator};
use super::*;
use crate::support::hooked::Hooked;
use crate::support::log::Log;
use crate::support::serving::Between;

const REFRESH: &str = "oauth.v2.access";

/// How a refusal appears.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// Permanent: the user gets this text, and Slack does not repeat the event.
    Lasting(&'static str),
    /// Temporary: the user gets this text, and Slack repeats the event.
    Passing(&'static str),
    /// As [`Passing`](Self::Passing), but a person must repair the cause.
    Stuck(&'static str),
    /// No token fits: the user gets this text, and your app gets the event.
    Tokenless(&'static str),
}

/// Returns one request of each kind, by this user in this workspace.
fn deliveries(life: &Life, who: &str, team: &str) -> Vec<(&'static str, Delivery)> {
    let fake = &life.app.fake;
    let person = || Who::user(who).at(team);
    let event = || fake.event(team, json!({"type": "app_mention", "user": who}));
    vec![
        ("command", fake.slash_command(person(), "/x", "text-CANARY")),
        ("event", event()),
        (
            "event",
            event().edit(|event| event["event"]["type"] = json!("function_executed")),
        ),
        (
            "limit",
            event().edit(|event| {
                *event = json!({"type": "app_rate_limited", "team_id": team,
                    "enterprise_id": event["enterprise_id"],
                    "api_app_id": event["api_app_id"], "minute_rate_limited": 1});
            }),
        ),
        ("click", fake.block_action(person(), "x")),
        ("click", fake.shortcut(person(), "x")),
        ("click", fake.message_shortcut(person(), "x")),
        ("click", fake.view_submission(person(), "x")),
    ]
}

/// Delivers one request of each kind, each after `prepare`, and checks the responses.
async fn check(front: &Front, who: &str, team: &str, shown: Shown, prepare: impl AsyncFn(&Front)) {
    let (log, logging) = Log::of_this_thread();
    let mut answers = String::new();
    let mut passed = 0;
    for (number, (kind, delivery)) in deliveries(&front.life, who, team).into_iter().enumerate() {
        let request = front.life.request(&delivery);
        if request
            .tenant()
            .is_some_and(|tenant| tenant.team().is_none())
        {
            // The request names only the organisation, which has the app.
            continue;
        }
        prepare(front).await;
        let response = front.respond(front.request(&delivery)).await;
        let case = format!("{kind} {number}, {shown:?}");
        let reaches = kind == "limit" || (kind == "event" && matches!(shown, Shown::Tokenless(_)));
        passed += usize::from(reaches);
        assert_eq!(front.handler.calls(), passed, "{case}");
        if reaches {
            assert_eq!(response.status(), StatusCode::OK, "{case}");
            let (told, _) = front.handler.last();
            assert!(told.starts_with("no token: "), "{told}, {case}");
            continue;
        }
        let expected = match (kind, shown) {
            (
                "command",
                Shown::Lasting(told)
                | Shown::Passing(told)
                | Shown::Stuck(told)
                | Shown::Tokenless(told),
            ) => (StatusCode::OK, told),
            (_, Shown::Passing(_) | Shown::Stuck(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "not done yet")
            }
            ("event", Shown::Lasting(_)) => (StatusCode::OK, ""),
            (_, Shown::Lasting(_) | Shown::Tokenless(_)) => (StatusCode::FORBIDDEN, "refused"),
        };
        let status = response.status();
        let content_type = response.headers()["content-type"].clone();
        assert_eq!(content_type, "text/plain; charset=utf-8", "{case}");
        let body = text(response).await;
        assert_eq!((status, body.as_str()), expected, "{case}");
        answers.push_str(&body);
    }
    drop(logging);
    let seen = log.text() + &answers;
    let level = match shown {
        Shown::Lasting(_) | Shown::Tokenless(_) => " INFO ",
        Shown::Passing(_) => " WARN ",
        Shown::Stuck(_) => "ERROR ",
    };
    assert!(
        seen.contains(level),
        "the refusal is logged at the right level, {shown:?}"
    );
    let mut secrets = front.life.app.fake.secrets();
    secrets.extend(["text-CANARY", "xoxb-alpha", "xoxp-ada"].map(str::to_owned));
    for secret in secrets {
        assert!(!seen.contains(&secret), "{} leaks, {shown:?}", &secret[..4]);
    }
}

async fn nothing(_: &Front) {}

/// Returns Alpha with expired tokens, and a rotator.
async fn expired() -> Front {
    let (mut life, backend) = interrupted().await;
    keep(&life.app, Token::Over, Token::Missing).await;
    life.authorizer = life.authorizer.with_rotator(&rotator(&life.app));
    Front::of(life, backend, true)
}

const BUSY: Shown = Shown::Passing("This app is busy. Please try again in a moment.");
const ENDED: Shown = Shown::Tokenless("This app's access has ended. Please install it again.");
const DAMAGED: Shown = Shown::Stuck("This app is busy. Please try again in a moment.");
const MISCONFIGURED: Shown =
    Shown::Stuck("This app does not work at the moment. Please contact the people who provide it.");
const NOT_GRANTED: Shown = Shown::Lasting(
    "Your organisation has not added this app to this workspace. Please ask an admin.",
);
const NOT_INSTALLED: Shown =
    Shown::Lasting("This app is not installed here. Please install it first.");
const NO_TOKEN: Shown = Shown::Tokenless(
    "This app is installed here, but you have not connected your account. Please connect it first.",
);
const ON_HOLD: Shown =
    Shown::Lasting("This app is on hold here. Please contact the people who provide it.");

#[tokio::test]
async fn who_has_not_installed_the_app_is_told_so() {
    let front = Front::new(true).await;
    check(&front, ADA, ALPHA, NOT_INSTALLED, nothing).await;
}

#[tokio::test]
async fn who_has_neither_a_bot_nor_a_token_is_told_to_connect_their_account() {
    let front = Front::new(true).await;
    keep(&front.life.app, Token::Missing, Token::Missing).await;
    check(&front, ADA, ALPHA, NO_TOKEN, nothing).await;
}

#[tokio::test]
async fn who_is_on_hold_is_told_so() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    hold(&front.life.app, ALPHA, true).await;
    check(&front, ADA, ALPHA, ON_HOLD, nothing).await;
}

#[tokio::test]
async fn who_is_put_on_hold_before_the_refresh_is_told_so() {
    let front = expired().await;
    check(&front, ADA, ALPHA, ON_HOLD, async |front: &Front| {
        hold(&front.life.app, ALPHA, false).await;
        let store = front.life.app.store.clone();
        let at = front.life.app.fake.clock().now();
        front.backend.before_read(2, async move {
            let hold = Hold {
                is_on: true,
                reason: "ticket 1".to_owned(),
                at,
            };
            let held = store.hold(&key(ALPHA), &hold).await;
            assert!(held.expect("the store responds"));
        });
    })
    .await;
}

#[tokio::test]
async fn a_workspace_that_was_taken_away_is_told_to_ask_an_admin() {
    let front = Front::new(true).await;
    front.life.install(Who::user(OLGA).at(ORG)).await;
    let access = store::Access {
        teams: vec![slack_installs::TeamId::new(SALES).expect("an id")],
        is_granted: false,
        at_micros: 1,
    };
    let org = slack_installs::EnterpriseId::new(ORG).expect("an id");
    let kept = front.life.app.store.set_access(&org, &access).await;
    assert!(kept.expect("the store responds"));
    check(&front, OLGA, SALES, NOT_GRANTED, nothing).await;
}

#[tokio::test]
async fn whose_tokens_have_expired_is_told_to_install_again() {
    let front = Front::new(true).await;
    keep(&front.life.app, Token::Over, Token::Over).await;
    check(&front, ADA, ALPHA, ENDED, nothing).await;
}

#[tokio::test]
async fn whose_refresh_tokens_slack_refuses_is_told_to_install_again() {
    let front = expired().await;
    let fault = Fault::error("invalid_refresh_token").always();
    front.life.app.fake.inject(REFRESH, fault);
    check(&front, ADA, ALPHA, ENDED, nothing).await;
}

#[tokio::test]
async fn our_own_misconfiguration_is_not_taken_for_an_app_that_is_not_installed() {
    for code in [
        "bad_client_secret",
        "invalid_client_id",
        "token_rotation_not_enabled",
    ] {
        let front = expired().await;
        let fault = Fault::error(code).always();
        front.life.app.fake.inject(REFRESH, fault);
        check(&front, ADA, ALPHA, MISCONFIGURED, nothing).await;
    }
}

#[tokio::test]
async fn slacks_outage_is_told_as_something_that_passes() {
    for fault in [
        Fault::unavailable(),
        Fault::lost(),
        Fault::error("ratelimited"),
        Fault::error("internal_error"),
    ] {
        let front = expired().await;
        front.life.app.fake.inject(REFRESH, fault.always());
        check(&front, ADA, ALPHA, BUSY, nothing).await;
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_told_as_something_that_passes() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    check(&front, ADA, ALPHA, BUSY, async |front: &Front| {
        front.backend.fail_read(1);
    })
    .await;
    let front = expired().await;
    check(&front, ADA, ALPHA, BUSY, async |front: &Front| {
        front.backend.fail_read(2);
    })
    .await;
}

/// Replaces the row of Alpha's bot with one that does not open.
async fn damage(backend: &Hooked<Between>) {
    let rows = support::all_rows(backend).await.into_iter();
    let of_bot = rows
        .filter(|(key, _)| key.partition.as_str().ends_with(ALPHA))
        .find(|(key, _)| key.slot.as_str() == "bot");
    let (place, row) = of_bot.expect("a bot");
    overwrite(
        backend,
        &place,
        Row {
            version: Version::mint(),
            ..row
        },
    )
    .await;
}

async fn overwrite(backend: &Hooked<Between>, place: &slack_installs::backend::Key, row: Row) {
    let put = Change::Put {
        slot: place.slot.clone(),
        row,
        expect: Expect::Any,
    };
    let committed = backend.commit(&place.partition, &[put]).await;
    committed.expect("the database responds");
}

#[tokio::test]
async fn what_does_not_open_is_told_as_something_that_passes() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    damage(&front.backend).await;
    check(&front, ADA, ALPHA, DAMAGED, nothing).await;

    // The row is damaged between the fetch and the refresh.
    let front = expired().await;
    let rows = support::all_rows(&front.backend).await.into_iter();
    let of_bot = rows
        .filter(|(key, _)| key.partition.as_str().ends_with(ALPHA))
        .find(|(key, _)| key.slot.as_str() == "bot");
    let (place, row) = of_bot.expect("a bot");
    let (place, row) = (&place, &row);
    check(&front, ADA, ALPHA, DAMAGED, async |front: &Front| {
        overwrite(&front.backend, place, row.clone()).await;
        let backend = front.backend.clone();
        let damaged: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { damage(&backend).await });
        front.backend.before_read(2, damaged);
    })
    .await;
}

#[tokio::test]
async fn a_request_for_another_app_is_refused() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let other = |delivery: Delivery| delivery.edit(|it| it["api_app_id"] = json!("A0OTHERAPP1"));
    let event = other(front.mention());
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    let click = other(front.life.app.fake.view_submission(ADA, "x"));
    assert_eq!(front.deliver(&click).await, StatusCode::FORBIDDEN);
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn a_click_that_names_no_tenant_is_refused_and_nothing_is_looked_up() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let before = front.reads();
    let foreign = front.life.app.fake.block_action(ADA, "x");
    let foreign = foreign.edit(|payload| payload["message"]["app_id"] = json!("A0OTHER0001"));
    let foreign = foreign.edit(|payload| payload["message"]["team"] = json!("T0XTERN0009"));
    assert_eq!(front.deliver(&foreign).await, StatusCode::FORBIDDEN);
    assert_eq!((front.reads(), front.handler.calls()), (before, 0));
}

#[tokio::test]
async fn an_interaction_of_an_unknown_type_reaches_the_app_with_the_tenant_if_it_is_certain() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let unknown = || {
        let click = front.life.app.fake.block_action(ADA, "x");
        click.edit(|payload| payload["type"] = json!("a_new_kind"))
    };
    let foreign = unknown().edit(|payload| payload["user"]["team_id"] = json!("T0XTERN0009"));
    for (delivery, tenant) in [
        (unknown(), ALPHA),
        (foreign, "no token: the request names no tenant"),
    ] {
        assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
        assert_eq!(front.handler.last().0, tenant);
    }
    assert_eq!(front.handler.calls(), 2);
}

#[tokio::test]
async fn an_event_that_names_no_tenant_reaches_the_app() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let shared = front.mention().edit(|event| {
        event["is_ext_shared_channel"] = json!(true);
        for name in ["authorizations", "context_team_id", "context_enterprise_id"] {
            event[name] = json!(null);
        }
    });
    assert_eq!(front.deliver(&shared).await, StatusCode::OK);
    assert_eq!(
        front.handler.last().0,
        "no token: the request names no tenant"
    );
}

#[tokio::test]
async fn an_event_on_behalf_of_bob_and_caused_by_carol_reaches_the_app() {
    // bolt-js#2067, #1298 and #2271, bolt-python#1049.
    let front = Front::new(true).await;
    front.life.install_without_bot(ADA).await;
    let about = |event: serde_json::Value| {
        let event = front.life.app.fake.event(ALPHA, event);
        event.edit(|event| {
            event["authorizations"][0]["user_id"] = json!(ADA);
            event["authorizations"][0]["is_bot"] = json!(false);
        })
    };
    let events = [
        json!({"type": "message", "user": "U0CAROL0001"}),
        json!({"type": "file_shared", "user_id": "U0CAROL0001"}),
        json!({"type": "message", "subtype": "message_changed",
            "message": {"user": "U0CAROL0001"}}),
        json!({"type": "user_change", "user": {"id": "U0CAROL0001"}}),
        json!({"type": "channel_rename", "channel": {"id": "C1"}}),
    ];
    for event in events {
        assert_eq!(front.deliver(&about(event.clone())).await, StatusCode::OK);
        assert_eq!(front.handler.last().0, ALPHA, "{event}");
        // Of an authorizing user without a token, the app gets the event all the same.
        let revoked = about(event.clone()).edit(|event| {
            event["authorizations"][0]["user_id"] = json!("U0NOBODY001");
        });
        assert_eq!(front.deliver(&revoked).await, StatusCode::OK);
        let (told, _) = front.handler.last();
        assert!(told.starts_with("no token: "), "{told} {event}");
    }
    assert_eq!(front.handler.calls(), 10);
}

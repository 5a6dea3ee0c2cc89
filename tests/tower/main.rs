//! The layer in front of your app's service: which requests reach it, how often, and how the layer
//! responds without it.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod first;
mod front;
mod lifecycle;
mod once;
mod refusals;
mod responses;

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use front::Front;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use slack_installs::operate::Operator;
use slack_installs::replay::{CLAIM, RETENTION, ReplayGuard};
use slack_installs::testing::{Faults, Who};
use support::app::{ADA, ALPHA, OLGA, ORG, SALES, key};
use tower_service::Service as _;
use url::Url;

use crate::support::app::credentials;

#[tokio::test]
async fn a_request_of_a_tenant_reaches_the_host_unchanged_with_that_tenants_installation() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let command = front
        .life
        .app
        .fake
        .slash_command(ADA, "/x", "payload={}&team_id=T1");
    for delivery in [command, front.mention()] {
        assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
        let last = front.handler.last();
        assert_eq!(last, (ALPHA.to_owned(), delivery.body()));
    }
}

#[tokio::test]
async fn what_is_not_slacks_is_refused_and_nothing_is_looked_up() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let good = || front.request(&front.life.app.fake.slash_command(ADA, "/x", ""));
    let change = |change: &dyn Fn(&mut Request<Full<Bytes>>)| {
        let mut request = good();
        change(&mut request);
        request
    };
    let header = |name: &'static str, value: &'static str| {
        change(&|request| {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        })
    };
    let body_of = |body: Bytes| change(&|request| *request.body_mut() = Full::new(body.clone()));
    let command = front.life.app.fake.slash_command(ADA, "/x", "");
    let body = command.body();
    let recoded = String::from_utf8(body.to_vec())
        .expect("ASCII")
        .replace("%2F", "%2f");
    let stale = front.life.app.fake.clock().now() - std::time::Duration::from_secs(301);
    let url = Url::parse("https://bot.example.com/slack/events").expect("a URL");
    let forged = "v0=0000000000000000000000000000000000000000000000000000000000000000";
    let huge = command
        .clone()
        .with_body("application/json", vec![b' '; 1024 * 1024 + 1]);
    let no_json = command.clone().with_body("application/json", "{\"type\":");
    let cases = [
        (
            StatusCode::UNAUTHORIZED,
            header("x-slack-signature", forged),
        ),
        (
            StatusCode::UNAUTHORIZED,
            change(&|request| {
                request.headers_mut().remove("x-slack-signature");
            }),
        ),
        (
            StatusCode::UNAUTHORIZED,
            command.clone().sent_at(stale).request(&url).map(Full::new),
        ),
        (StatusCode::UNAUTHORIZED, body_of(recoded.into())),
        (
            StatusCode::UNAUTHORIZED,
            body_of(body.slice(..body.len() - 1)),
        ),
        (
            StatusCode::UNAUTHORIZED,
            body_of([&body[..], b"&ssl_check=1"].concat().into()),
        ),
        (
            StatusCode::BAD_REQUEST,
            header("x-slack-signature", "v0=zz"),
        ),
        (
            StatusCode::BAD_REQUEST,
            header("x-slack-request-timestamp", "now"),
        ),
        (StatusCode::BAD_REQUEST, front.request(&no_json)),
        (StatusCode::PAYLOAD_TOO_LARGE, front.request(&huge)),
        (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            header("content-type", "text/plain"),
        ),
    ];
    let before = front.reads();
    for (number, (expected, request)) in cases.into_iter().enumerate() {
        assert_eq!(front.send(request).await.0, expected, "case {number}");
    }
    assert_eq!(front.reads(), before, "no read is made");
    assert_eq!(front.handler.calls(), 0);
    assert_eq!(front.send(good()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn slacks_own_questions_are_answered_without_the_host() {
    let front = Front::new(false).await;
    let before = front.reads();
    let asked = front.request(&front.life.app.fake.url_verification("a challenge"));
    assert_eq!(
        front.send(asked).await,
        (StatusCode::OK, "a challenge".to_owned())
    );
    let mut probe = front.request(&front.life.app.fake.ssl_check());
    assert_eq!(
        front.send(probe.clone()).await,
        (StatusCode::OK, String::new())
    );
    probe.headers_mut().remove("x-slack-signature");
    assert_eq!(front.send(probe).await, (StatusCode::OK, String::new()));
    // An unsigned `url_verification` gets no challenge back. Otherwise anyone could choose the
    // response's text.
    let asked = front.life.app.fake.url_verification("a challenge");
    let mut unsigned = front.request(&asked);
    unsigned.headers_mut().remove("x-slack-signature");
    let (status, answer) = front.send(unsigned).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(!answer.contains("challenge"), "{answer}");
    assert_eq!((front.reads(), front.handler.calls()), (before, 0));
}

#[tokio::test]
async fn an_uninstall_is_answered_when_it_is_durable_and_repeated_otherwise() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    front.life.advance(3600);
    let event = front.life.app.fake.app_uninstalled(ALPHA);
    front.backend.set_faults(Faults {
        lost_commits: 1,
        ..Faults::none()
    });
    assert_eq!(front.deliver(&event).await, StatusCode::SERVICE_UNAVAILABLE);
    front.backend.set_faults(Faults {
        lost_reads: 1,
        ..Faults::none()
    });
    assert_eq!(front.deliver(&event).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(front.life.host.tenants(), [""; 0]);
    front.backend.set_faults(Faults::none());
    front.life.host.set_failing(true);
    assert_eq!(front.deliver(&event).await, StatusCode::SERVICE_UNAVAILABLE);
    front.life.host.set_failing(false);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.life.host.tenants(), [ALPHA]);
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn an_uninstall_goes_on_when_slack_hangs_up() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    front.life.advance(3600);
    let request = front.request(&front.life.app.fake.app_uninstalled(ALPHA));
    {
        let mut call = pin!(front.service.clone().call(request));
        let mut context = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    while front.life.host.tenants().is_empty() {
        tokio::task::yield_now().await;
    }
    while !front.life.slots(ALPHA).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_workspace_that_was_granted_is_told_to_the_host_as_well() {
    let front = Front::new(false).await;
    front.life.install(Who::user(OLGA).at(ORG)).await;
    let granted = front.life.app.fake.app_uninstalled(ORG).edit(|event| {
        event["event"] = json!({"type": "team_access_granted", "team_ids": [SALES]});
    });
    assert_eq!(front.deliver(&granted).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
}

#[tokio::test]
async fn a_person_of_a_tenant_on_hold_is_told_so_and_the_host_is_not_called() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let credentials = credentials(&front.life.app.fake);
    let (store, slack) = (front.life.app.store.clone(), front.life.app.slack.clone());
    let operator = Operator::new(store, slack, front.life.lifecycle.clone(), credentials);
    operator
        .freeze(&key(ALPHA), "ticket 1")
        .await
        .expect("installed");
    let command = front.request(&front.life.app.fake.slash_command(ADA, "/x", ""));
    let (status, text) = front.send(command).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.contains("on hold") && !text.contains("ticket"),
        "{text}"
    );
    assert_eq!(front.deliver(&front.mention()).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn a_repeated_request_is_handled_once_for_a_day_and_an_hour() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let command = front.life.app.fake.slash_command(ADA, "/x", "");
    for (nth, delivery) in [front.mention(), command].into_iter().enumerate() {
        for retry in 1..4 {
            assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
            let again = delivery.clone().retry(retry, "http_timeout");
            assert_eq!(front.deliver(&again).await, StatusCode::OK);
            assert_eq!(front.handler.calls(), nth + 1);
        }
    }
    let event = front.mention();
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    front.life.advance(25 * 3600);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 3);
    front.life.advance(RETENTION.as_secs());
    front
        .life
        .app
        .store
        .sweep_expired_states()
        .await
        .expect("responds");
    let rows = support::all_rows(&*front.life.backend).await;
    assert!(
        rows.iter().all(|(key, _)| key.slot.as_str() != "seen"),
        "the request is forgotten"
    );
}

#[tokio::test]
async fn without_the_guard_every_delivery_reaches_the_host() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let event = front.mention();
    for calls in 1..3 {
        assert_eq!(front.deliver(&event).await, StatusCode::OK);
        assert_eq!(front.handler.calls(), calls);
    }
}

#[tokio::test]
async fn a_request_whose_handling_failed_is_not_remembered_as_done() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let event = front.mention();
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::NOT_FOUND] {
        front.handler.answer(status);
        assert_eq!(front.deliver(&event).await, status);
    }
    front.handler.answer(StatusCode::ACCEPTED);
    assert_eq!(front.deliver(&event).await, StatusCode::ACCEPTED);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 3);
}

#[tokio::test]
async fn a_request_that_was_cut_off_may_be_handled_again_and_while_it_is_handled_it_may_not() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let event = front.mention();
    {
        let mut call = pin!(front.service.clone().call(front.request(&event)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            call.as_mut().poll(&mut context).is_pending(),
            "the handler yields"
        );
        assert_eq!(front.handler.calls(), 1);
        assert_eq!(front.deliver(&event).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    // A dropped request releases its claim in a separate task.
    for _ in 0..100 {
        if front.deliver(&event).await == StatusCode::OK {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(front.handler.calls(), 2);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 2);
}

#[tokio::test]
async fn a_claim_of_a_process_that_ended_is_over_before_slacks_last_repetition() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let guard = ReplayGuard::new(front.life.app.store.clone());
    let guard = guard.with_clock(front.life.app.fake.clock());
    let event = front.mention();
    let entry = guard
        .enter(&front.life.request(&event))
        .await
        .expect("responds");
    std::mem::forget(entry);
    assert_eq!(front.deliver(&event).await, StatusCode::SERVICE_UNAVAILABLE);
    front.life.advance(CLAIM.as_secs());
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
}

#[tokio::test]
async fn a_revoked_user_is_told_to_the_host_as_well() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    front.life.advance(3600);
    assert!(front.life.app.fake.revoke_user(ALPHA, ADA));
    let event = front.life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.life.user_token(ALPHA, ADA).await, None);
    assert_eq!(front.handler.calls(), 1);
}

#[tokio::test]
async fn a_modal_that_cannot_be_served_is_not_closed_as_if_it_were() {
    let front = Front::new(false).await;
    let modal = front.life.app.fake.view_submission(ADA, "settings");
    assert_eq!(front.deliver(&modal).await, StatusCode::FORBIDDEN);
    front.life.install(ADA).await;
    assert_eq!(front.deliver(&modal).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
}

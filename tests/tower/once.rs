//! Each request is handled once: what counts as the same request, what counts as handled, and for
//! how long.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::json;
use slack_installs::replay::Entry;
use slack_installs::store::SeenId;
use slack_installs::testing::{Delivery, Faults};

use super::front::{Front, guard};
use super::support::app::ADA;
use super::*;

/// Returns one delivery of each kind that has an id.
fn deliveries(front: &Front) -> Vec<Delivery> {
    let fake = &front.life.app.fake;
    vec![
        front.mention(),
        front
            .mention()
            .edit(|event| event["event"]["type"] = json!("function_executed")),
        fake.slash_command(ADA, "/x", ""),
        fake.block_action(ADA, "x"),
        fake.shortcut(ADA, "x"),
        fake.message_shortcut(ADA, "x"),
        fake.view_submission(ADA, "x"),
    ]
}

/// Delivers until the dropped request has released its claim in a separate task.
async fn deliver_after_drop(front: &Front, delivery: &Delivery) -> StatusCode {
    for _ in 0..100 {
        match front.deliver(delivery).await {
            StatusCode::SERVICE_UNAVAILABLE => tokio::task::yield_now().await,
            status => return status,
        }
    }
    StatusCode::SERVICE_UNAVAILABLE
}

#[tokio::test]
async fn a_request_that_cannot_be_claimed_is_asked_for_again_and_not_handled() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    for delivery in deliveries(&front) {
        let calls = front.handler.calls();
        front.backend.set_faults(Faults {
            lost_commits: 1,
            ..Faults::none()
        });
        let status = front.deliver(&delivery).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{delivery:?}");
        assert_eq!(front.handler.calls(), calls, "{delivery:?}");
        front.backend.set_faults(Faults::none());
        assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
        assert_eq!(front.handler.calls(), calls + 1, "{delivery:?}");
    }
}

#[tokio::test]
async fn a_read_that_fails_at_the_claim_lets_nothing_through() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    // The first read is of the installation, the second of the claim.
    front.backend.fail_read(2);
    let event = front.mention();
    let status = front.deliver(&event).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn a_repetition_of_every_kind_is_answered_and_not_handled() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    for (nth, delivery) in deliveries(&front).into_iter().enumerate() {
        for number in 1..3 {
            let again = delivery.clone().retry(number, "http_timeout");
            let answer = front.send(front.request(&again)).await;
            assert_eq!(answer, (StatusCode::OK, String::new()), "{nth}");
            assert_eq!(front.handler.calls(), nth + 1, "{nth}");
        }
    }
}

#[tokio::test]
async fn an_events_id_and_a_trigger_are_told_apart_and_the_events_id_counts() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let event = front.mention().edit(|event| {
        event["event_id"] = json!("Ev0SAME");
        event["trigger_id"] = json!("1.2.first");
    });
    let same_event = event
        .clone()
        .edit(|event| event["trigger_id"] = json!("1.2.second"));
    let same_trigger = event
        .clone()
        .edit(|event| event["event_id"] = json!("Ev0OTHER"));
    let click = front.life.app.fake.block_action(ADA, "x");
    let click = click.edit(|payload| payload["trigger_id"] = json!("Ev0SAME"));
    for (delivery, calls) in [(event, 1), (same_event, 1), (same_trigger, 2), (click, 3)] {
        assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
        assert_eq!(front.handler.calls(), calls);
    }
}

#[tokio::test]
async fn a_request_without_an_id_always_passes() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let closed = front
        .life
        .app
        .fake
        .view_submission(ADA, "x")
        .edit(|payload| {
            payload["type"] = json!("view_closed");
            let payload = payload.as_object_mut().expect("an object");
            payload.remove("trigger_id").expect("present");
        });
    for calls in 1..4 {
        assert_eq!(front.deliver(&closed).await, StatusCode::OK);
        assert_eq!(front.handler.calls(), calls);
    }
}

#[tokio::test]
async fn the_services_status_says_whether_a_request_was_handled() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    for (status, is_handled) in [
        (101, true),
        (200, true),
        (299, true),
        (302, true),
        (400, false),
        (499, false),
        (500, false),
        (503, false),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        front.handler.answer(status);
        let event = front.mention();
        let calls = front.handler.calls();
        assert_eq!(front.deliver(&event).await, status);
        let repeated = front.deliver(&event).await;
        let expected = if is_handled { StatusCode::OK } else { status };
        assert_eq!(repeated, expected, "after {status}");
        let again = usize::from(!is_handled);
        assert_eq!(front.handler.calls(), calls + 1 + again, "after {status}");
    }
}

#[tokio::test]
async fn a_request_whose_handler_panicked_may_be_handled_again() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let event = front.mention();
    front.handler.set_panicking(true);
    let call = front.service.clone().call(front.request(&event));
    let ended = tokio::spawn(call).await;
    assert!(ended.is_err_and(|error| error.is_panic()));
    front.handler.set_panicking(false);
    assert_eq!(deliver_after_drop(&front, &event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 2);
}

#[tokio::test]
async fn what_was_handled_when_slack_hung_up_is_remembered() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    front.backend.yield_in_commits();
    let event = front.mention();
    {
        let mut call = pin!(front.service.clone().call(front.request(&event)));
        let mut context = Context::from_waker(Waker::noop());
        while front.handler.calls() == 0 {
            assert!(call.as_mut().poll(&mut context).is_pending());
            tokio::task::yield_now().await;
        }
        // The handler has returned, and its result is being stored.
        assert_matches!(call.as_mut().poll(&mut context), Poll::Pending);
    }
    assert_eq!(deliver_after_drop(&front, &event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1, "the request was handled once");
}

#[tokio::test]
async fn an_answer_is_passed_on_though_it_could_not_be_remembered() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    front.handler.answer(StatusCode::ACCEPTED);
    let event = front.mention();
    // The first commit is the claim, and the second stores its result.
    front.backend.set_faults(Faults {
        lost_commits: 2,
        lost_reads: 4,
        ..Faults::none()
    });
    assert_eq!(front.deliver(&event).await, StatusCode::ACCEPTED);
    front.backend.set_faults(Faults::none());
    let status = front.deliver(&event).await;
    assert_eq!(
        status,
        StatusCode::SERVICE_UNAVAILABLE,
        "the request stays claimed"
    );
    front.life.advance(120);
    assert_eq!(front.deliver(&event).await, StatusCode::ACCEPTED);
    assert_eq!(front.handler.calls(), 2);
}

#[tokio::test]
async fn a_refused_request_claims_nothing() {
    let front = Front::new(true).await;
    let commits = front.backend.counts().commits;
    let command = front.life.app.fake.slash_command(ADA, "/x", "");
    assert_eq!(front.deliver(&command).await, StatusCode::OK);
    assert_eq!(front.backend.counts().commits, commits);
    front.life.install(ADA).await;
    assert_eq!(front.deliver(&command).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
}

#[tokio::test]
async fn a_claim_stands_for_two_minutes_and_no_longer() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    // Moves the fake clock away from the system's clock.
    front.life.advance(7 * 24 * 3600);
    let event = front.mention();
    let entry = guard(&front.life).enter(&front.life.request(&event)).await;
    assert_matches!(entry, Ok(Entry::New(_)));
    std::mem::forget(entry);
    front.life.advance(115);
    assert_eq!(front.deliver(&event).await, StatusCode::SERVICE_UNAVAILABLE);
    front.life.advance(5);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
}

#[tokio::test]
async fn what_was_handled_is_remembered_for_as_long_as_slack_repeats_it_and_then_forgotten() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    // Moves the fake clock away from the system's clock.
    front.life.advance(7 * 24 * 3600);
    let event = front.mention();
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    // If an app uses delayed events, Slack repeats an event for 24 hours.
    front.life.advance(25 * 3600);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
    front.life.advance(3 * 3600);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn claiming_a_request_sweeps_what_is_forgotten() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let seen = async || {
        let rows = support::all_rows(&*front.life.backend).await.into_iter();
        rows.filter(|(key, _)| key.slot.as_str() == "seen").count()
    };
    for expected in [1, 1] {
        assert_eq!(front.deliver(&front.mention()).await, StatusCode::OK);
        // The sweep runs in a separate task.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen().await, expected);
        front.life.advance(28 * 3600);
        // The sweep runs at most once a minute.
        tokio::time::advance(Duration::from_secs(61)).await;
    }
}

#[test]
fn a_pass_may_be_dropped_outside_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    let (front, event, entry) = runtime.block_on(async {
        let front = Front::new(true).await;
        front.life.install(ADA).await;
        let event = front.mention();
        let entry = guard(&front.life).enter(&front.life.request(&event)).await;
        (front, event, entry.expect("the store responds"))
    });
    assert_matches!(entry, Entry::New(_));
    drop(entry);
    runtime.block_on(async {
        let status = front.deliver(&event).await;
        assert_eq!(
            status,
            StatusCode::SERVICE_UNAVAILABLE,
            "the request stays claimed"
        );
        front.life.advance(120);
        assert_eq!(front.deliver(&event).await, StatusCode::OK);
    });
}

#[tokio::test]
async fn of_what_was_handled_the_database_knows_a_hash_under_the_apps_name() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    let event = front
        .mention()
        .edit(|event| event["event_id"] = json!("Ev0CANARY01"));
    let click = front.life.app.fake.block_action(ADA, "x");
    let click = click.edit(|payload| payload["trigger_id"] = json!("1.2.canary"));
    for delivery in [event, click] {
        assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
    }
    let rows = support::all_rows(&*front.life.backend).await;
    let ours = format!("{}/seen/", front.life.app.fake.client_id());
    let mut seen = 0;
    for (place, row) in &rows {
        let shown = format!("{place:?} {row:?} {}", row.metadata.as_str()).to_lowercase();
        for id in ["ev0canary01", "1.2.canary"] {
            let hex: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(!shown.contains(id) && !shown.contains(&hex), "{shown}");
        }
        seen += usize::from(place.partition.as_str().starts_with(&ours));
    }
    assert_eq!(
        seen, 2,
        "another app in the same database has its own record"
    );
}

#[tokio::test]
async fn a_guard_over_a_shared_store_is_as_good() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let shared = Arc::new(front.life.app.store.clone());
    let guard = ReplayGuard::new(shared).with_clock(front.life.app.fake.clock());
    let event = front.life.request(&front.mention());
    let pass = async || match guard.enter(&event).await.expect("responds") {
        Entry::New(pass) => pass,
        entry => panic!("{entry:?}"),
    };
    let first = pass().await;
    let meanwhile = guard.enter(&event).await;
    assert_matches!(meanwhile, Ok(Entry::InProgress));
    first.failed().await.expect("responds");
    pass().await.done().await.expect("responds");
    let afterwards = guard.enter(&event).await;
    assert_matches!(afterwards, Ok(Entry::Repeated));
    assert_eq!(format!("{:?}", SeenId([0x41; 32])), "SeenId(…)");
}

//! Lifecycle events are handled before authorization, and are passed on or not.

use serde_json::json;
use slack_installs::testing::{Rotation, Who};

use super::front::Front;
use super::support::app::{ADA, ALPHA, OLGA, ORG, SALES};
use super::support::serving::hold;
use super::*;

#[tokio::test]
async fn a_tenant_that_cannot_be_served_is_purged_all_the_same() {
    for is_on_hold in [true, false] {
        let front = Front::new(true).await;
        front.life.app.fake.rotate_tokens(Rotation::default());
        front.life.install(ADA).await;
        front.life.advance(3600);
        if is_on_hold {
            hold(&front.life.app, ALPHA, true).await;
        } else {
            // The tokens have expired, and there is no rotator.
            front.life.advance(24 * 3600);
        }
        let event = front.life.app.fake.app_uninstalled(ALPHA);
        assert_eq!(front.deliver(&event).await, StatusCode::OK);
        let left: &[&str] = if is_on_hold { &["hold"] } else { &[] };
        assert_eq!(front.life.slots(ALPHA).await, left);
        assert_eq!(front.life.host.tenants(), [ALPHA]);
        assert_eq!(front.handler.calls(), 0);
    }
}

#[tokio::test]
async fn an_uninstall_of_an_earlier_installation_is_answered_and_goes_no_further() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let late = front.life.app.fake.app_uninstalled(ALPHA);
    front.life.advance(3600);
    front.life.install(ADA).await;
    assert_eq!(front.deliver(&late).await, StatusCode::OK);
    assert!(
        front.life.bot_token(ALPHA).await.is_some(),
        "the new installation is kept"
    );
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn an_uninstall_is_not_passed_on_though_the_organisation_has_the_app_as_well() {
    let front = Front::new(false).await;
    front.life.install("U0GRIDUSR02").await;
    front.life.install(Who::user(OLGA).at(ORG)).await;
    front.life.advance(3600);
    let event = front.life.app.fake.app_uninstalled(SALES).edit(|event| {
        event["enterprise_id"] = json!(ORG);
        event["authorizations"] = json!([{"enterprise_id": ORG, "team_id": SALES,
            "user_id": OLGA, "is_bot": true, "is_enterprise_install": false}]);
    });
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert!(front.life.slots(SALES).await.is_empty());
    assert!(front.life.bot_token(ORG).await.is_some(), "the token stays");
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn an_event_that_is_passed_on_reaches_the_service_once() {
    let front = Front::new(true).await;
    front.life.install(ADA).await;
    front.life.advance(3600);
    assert!(front.life.app.fake.revoke_user(ALPHA, ADA));
    let event = front.life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]);
    // A repeated `tokens_revoked` has nothing left to revoke, so it is not passed on in any case.
    // The second event also shows that a repetition is not passed on.
    let granted = front.mention().edit(|event| {
        event["event"] = json!({"type": "grid_migration_started", "enterprise_id": ORG});
    });
    for event in [event, granted] {
        let calls = front.handler.calls();
        for _ in 0..3 {
            assert_eq!(front.deliver(&event).await, StatusCode::OK);
            assert_eq!(front.handler.calls(), calls + 1);
        }
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_judged_is_asked_for_again() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    front.life.advance(3600);
    let event = front.life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]);
    let malformed = event.edit(|event| event["event"]["tokens"] = json!({"oauth": "all"}));
    let status = front.deliver(&malformed).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn a_store_that_panics_ends_neither_the_layer_nor_the_event() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    front.life.advance(3600);
    let event = front.life.app.fake.app_uninstalled(ALPHA);
    front.backend.before_read(1, async {
        // Panics on purpose, without printing a message.
        std::panic::resume_unwind(Box::new("the database's driver panics"));
    });
    let status = front.deliver(&event).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(front.handler.calls(), 0);
    assert_eq!(front.deliver(&event).await, StatusCode::OK);
    assert_eq!(front.life.host.tenants(), [ALPHA]);
}

#[tokio::test]
async fn tokens_revoked_and_app_rate_limited_always_reach_the_app() {
    // Nothing is stored for the event; the last token is revoked; the tenant is on hold.
    for case in ["not installed", "last token", "on hold", "no time"] {
        let front = Front::new(true).await;
        if case != "not installed" {
            front.life.install_without_bot(ADA).await;
            front.life.advance(3600);
        }
        match case {
            "last token" => assert!(front.life.app.fake.revoke_user(ALPHA, ADA)),
            "on hold" => hold(&front.life.app, ALPHA, true).await,
            _ => {}
        }
        let revoked = front.life.app.fake.tokens_revoked(ALPHA, &[ADA], &[]);
        let revoked = match case {
            "no time" => revoked.edit(|event| event["event_time"] = json!("soon")),
            _ => revoked,
        };
        assert_eq!(front.deliver(&revoked).await, StatusCode::OK, "{case}");
        assert_eq!(front.handler.calls(), 1, "{case}");
        let limited = front.mention().edit(|event| {
            *event = json!({"type": "app_rate_limited", "team_id": ALPHA,
                "api_app_id": event["api_app_id"], "minute_rate_limited": 1});
        });
        assert_eq!(front.deliver(&limited).await, StatusCode::OK, "{case}");
        assert_eq!(front.handler.calls(), 2, "{case}");
    }
}

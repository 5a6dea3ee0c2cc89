//! What a request states about its workspace's organisation, and which payloads state nothing.

use serde_json::Value;
use slack_installs::testing::Delivery;
use slack_installs::{InstallationStore as _, LifecycleStore as _};

use super::support::installs::enterprise;
use super::support::serving::interrupted;
use super::*;

const BEFORE: &str = "E0BEFORE001";

fn org(served: &slack_installs::AuthorizeResult) -> (Option<&str>, Option<&str>) {
    let stored = served.installation.home.enterprise();
    (
        served.enterprise_id().map(|id| id.as_str()),
        stored.map(|org| org.id.as_str()),
    )
}

/// Returns an event which states that Alpha belongs to no organisation.
fn left(life: &Life) -> Delivery {
    life.mention(ALPHA).edit(|event| {
        event["enterprise_id"] = Value::Null;
        event["context_enterprise_id"] = Value::Null;
        event["authorizations"][0]["enterprise_id"] = Value::Null;
    })
}

/// Returns Alpha with an installation that is stored as part of the organisation.
async fn joined() -> Life {
    let life = Life::new().await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    assert!(life.authorize(&life.mention(ALPHA)).await.is_ok());
    assert_eq!(stored(&life).await.as_deref(), Some(ORG));
    life
}

#[tokio::test]
async fn the_absence_of_an_organisations_id_says_nothing() {
    let life = joined().await;
    let ours = |enterprise: Option<Value>| {
        let mut ours = json!({"team_id": ALPHA, "user_id": "U0BOT", "is_bot": true,
            "is_enterprise_install": false});
        if let Some(enterprise) = enterprise {
            ours["enterprise_id"] = enterprise;
        }
        ours
    };
    let of_nobody = json!({"enterprise_id": null, "team_id": null});
    for authorizations in [
        json!([ours(None)]),
        json!([ours(None), ours(Some(Value::Null))]),
        json!([of_nobody]),
        json!([of_nobody, ours(Some(Value::Null))]),
        Value::Null,
        json!([]),
    ] {
        let case = authorizations.to_string();
        let silent = left(&life).edit(|event| event["authorizations"] = authorizations);
        let served = life.authorize(&silent).await.expect(&case);
        assert_eq!(org(&served), (Some(ORG), Some(ORG)), "{case}");
        assert_eq!(stored(&life).await.as_deref(), Some(ORG), "{case}");
    }
    let without = left(&life).edit(|event| {
        let event = event.as_object_mut().expect("an object");
        event.remove("authorizations").expect("it has some");
    });
    assert!(life.authorize(&without).await.is_ok());
    // Slack documents the meaning of null only for events.
    let click = life.app.fake.block_action(ADA, "x").edit(|payload| {
        payload["enterprise"] = Value::Null;
        payload["team"] = json!({ "id": ALPHA });
        payload["authorizations"] = json!([ours(Some(Value::Null))]);
    });
    assert!(life.authorize(&click).await.is_ok());
    assert_eq!(stored(&life).await.as_deref(), Some(ORG));
}

#[tokio::test]
async fn an_event_or_a_function_whose_authorization_says_so_ends_the_membership() {
    for event_type in ["app_mention", "function_executed"] {
        let life = joined().await;
        let left = left(&life).edit(|event| {
            event["event"]["type"] = json!(event_type);
            // Only the first authorization belongs to this installation.
            let others = json!({"enterprise_id": "E0XTERN0009", "team_id": "T0XTERN0009"});
            let authorizations = event["authorizations"].as_array_mut();
            authorizations.expect("a list").push(others);
        });
        let served = life.authorize(&left).await.expect("its own install");
        assert_eq!(org(&served), (None, None), "{event_type}");
        assert_eq!(stored(&life).await, None, "{event_type}");
    }
}

#[tokio::test]
async fn a_request_that_says_what_is_stored_writes_nothing() {
    let (life, backend) = interrupted().await;
    life.install(ADA).await;
    for is_inside in [false, true] {
        if is_inside {
            life.app.fake.join_org(ALPHA, ORG);
            assert!(life.authorize(&life.mention(ALPHA)).await.is_ok());
        }
        let (reads, commits) = (backend.reads(), backend.counts().commits);
        assert!(life.authorize(&life.mention(ALPHA)).await.is_ok());
        assert_eq!(
            (backend.reads(), backend.counts().commits),
            (reads + 1, commits)
        );
    }
}

#[tokio::test]
async fn what_a_request_says_counts_for_it_and_what_is_stored_is_told_as_it_is() {
    let (life, backend) = interrupted().await;
    life.install(ADA).await;
    let revision = life.app.fetch(ALPHA, None).await.map(|it| it.revision);
    let (key, before) = (support::app::key(ALPHA), enterprise(BEFORE));
    let revision = revision.expect("stored");
    let set = life.app.store.set_enterprise(&key, revision, Some(&before));
    assert!(set.await.expect("the store responds"));

    // If the event does not name the organisation, the stored one counts.
    let silent = left(&life).edit(|event| {
        let ours = event["authorizations"][0].as_object_mut();
        ours.expect("an object").remove("enterprise_id");
    });
    let served = life.authorize(&silent).await.expect("its own install");
    assert_eq!(org(&served), (Some(BEFORE), Some(BEFORE)));

    // The event names another organisation, which cannot be stored.
    life.app.fake.join_org(ALPHA, ORG);
    backend.set_faults(Faults {
        lost_commits: 1,
        ..Faults::none()
    });
    let served = life.authorize(&life.mention(ALPHA)).await.expect("served");
    assert_eq!(org(&served), (Some(ORG), Some(BEFORE)));
    backend.set_faults(Faults::none());

    // A reinstallation happens between the fetch and the change.
    let store = life.app.store.clone();
    backend.before_read(2, async move {
        let key = support::app::key(ALPHA);
        let installation = store.fetch(&key, None).await.expect("responds");
        let installation = installation.expect("installed");
        store.store(&installation).await.expect("stored");
    });
    let served = life
        .authorize(&life.mention(ALPHA))
        .await
        .expect("its own install");
    assert_eq!(org(&served), (Some(ORG), Some(BEFORE)));
    assert_eq!(stored(&life).await.as_deref(), Some(BEFORE));

    let served = life
        .authorize(&life.mention(ALPHA))
        .await
        .expect("its own install");
    assert_eq!(org(&served), (Some(ORG), Some(ORG)));
    assert_eq!(stored(&life).await.as_deref(), Some(ORG));
}

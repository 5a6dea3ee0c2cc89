//! Workspaces to which an organisation grants access, from which it revokes access, or which join
//! it.

use std::sync::Arc;

use serde_json::json;
use slack_installs::backend::MemoryBackend;
use slack_installs::testing::{Delivery, Fault, Who};
use slack_installs::{AuthorizeError, Delete, Handled, InstallationStore as _, ResolvedVia};

use super::*;
use crate::support::app::{key, world};
use crate::support::backends::Interrupted;
use crate::support::script::{error, ok, scripted};

fn access(life: &Life, what: &str, teams: &[&str]) -> Delivery {
    life.app.fake.app_uninstalled(ORG).edit(|event| {
        let seconds = event["event_time"].as_u64().expect("a time");
        event["event"] = json!({"type": what, "team_ids": teams,
            "event_ts": format!("{seconds}.000100")});
    })
}

fn mention(life: &Life, team: &str) -> Delivery {
    life.app
        .fake
        .event(team, json!({"type": "app_mention", "user": OLGA}))
}

#[tokio::test]
async fn a_workspace_that_is_taken_away_is_not_served_until_it_is_granted_again() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    assert!(life.authorize(&mention(&life, SALES)).await.is_ok());
    let revoked = access(&life, "team_access_revoked", &[SALES]);
    assert_eq!(life.handled(&revoked).await, Handled::Noted);
    for (team, served) in [(SALES, false), (SUPPORT, true)] {
        let outcome = life.authorize(&mention(&life, team)).await;
        assert_eq!(outcome.is_ok(), served, "{team}");
        if let Err(error) = outcome {
            assert_matches!(error, AuthorizeError::NotGranted);
        }
    }
    assert!(
        life.bot_token(ORG).await.is_some(),
        "the installation stays"
    );

    life.advance(60);
    let granted = access(&life, "team_access_granted", &[SALES, SUPPORT]);
    assert_eq!(life.handled(&granted).await, Handled::Noted);
    assert!(life.authorize(&mention(&life, SALES)).await.is_ok());
    // The older event is delivered again, late.
    assert_eq!(life.handled(&revoked).await, Handled::Noted);
    assert!(life.authorize(&mention(&life, SALES)).await.is_ok());
}

#[tokio::test]
async fn a_workspace_that_is_taken_away_is_served_by_its_own_install() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    life.handled(&access(&life, "team_access_revoked", &[SALES]))
        .await;
    let own = life
        .authorize(&mention(&life, SALES))
        .await
        .expect("installed");
    assert!(!own.installation.home.is_enterprise_install());
}

#[tokio::test]
async fn slacks_nested_form_of_the_event_is_read_as_well() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let nested = access(&life, "team_access_revoked", &[SALES]).edit(|event| {
        let inner = event["event"].take();
        event["event"] = json!({ "event": inner });
        event["team_id"] = SALES.into();
        event["authorizations"] = json!([{"enterprise_id": ORG, "team_id": SALES,
            "user_id": OLGA, "is_bot": false, "is_enterprise_install": false}]);
    });
    assert_eq!(life.handled(&nested).await, Handled::Noted);
    assert!(life.authorize(&mention(&life, SALES)).await.is_err());
}

#[tokio::test]
async fn what_an_earlier_installation_lost_is_not_kept_from_the_next() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let revoked = access(&life, "team_access_revoked", &[SALES]);
    life.handled(&revoked).await;
    life.handled(&life.app.fake.app_uninstalled(ORG)).await;
    assert_eq!(life.slots(ORG).await, [""; 0]);
    assert_eq!(
        life.handled(&revoked).await,
        Handled::Ignored,
        "no row is stored for an unknown tenant"
    );
    assert_eq!(life.slots(ORG).await, [""; 0]);
    life.app.fake.uninstall(ORG);
    life.advance(3600);
    life.install(Who::user(OLGA).at(ORG)).await;
    assert_eq!(life.handled(&revoked).await, Handled::Ignored);
    assert!(life.authorize(&mention(&life, SALES)).await.is_ok());
}

#[tokio::test]
async fn a_thousand_workspaces_are_taken_away_by_one_event() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let teams: Vec<_> = (0..1000).map(|number| format!("T0MANY{number}")).collect();
    let mut teams: Vec<_> = teams.iter().map(String::as_str).collect();
    teams.extend([SALES, SALES, "not an id"]);
    let event = access(&life, "team_access_revoked", &teams);
    assert_eq!(life.handled(&event).await, Handled::Noted);
    assert!(life.authorize(&mention(&life, SALES)).await.is_err());
    assert_eq!(life.slots(ORG).await.len(), 2 + 1 + 1001);
}

#[tokio::test]
async fn a_workspace_that_has_joined_an_organisation_keeps_its_tokens_and_learns_its_name() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    let token = life.bot_token(ALPHA).await;
    life.app.fake.join_org(ALPHA, ORG);
    for what in ["grid_migration_started", "grid_migration_finished"] {
        let event = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
            event["event"] = json!({"type": what, "enterprise_id": ORG});
        });
        assert_eq!(life.handled(&event).await, Handled::Noted);
        assert_eq!(
            life.handled(&event).await,
            Handled::Noted,
            "the event is delivered twice"
        );
        let installation = life.app.stored(ALPHA, None).await;
        let enterprise = installation.home.enterprise().map(|org| org.id.as_str());
        let expected = (what == "grid_migration_finished").then_some(ORG);
        assert_eq!(enterprise, expected);
    }
    assert_eq!(life.bot_token(ALPHA).await, token);
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn an_old_migrations_event_does_not_undo_a_later_move() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    let event = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
        let before = json!({"type": "grid_migration_finished", "enterprise_id": "E0BEFORE001"});
        event["event"] = before;
    });
    assert_eq!(life.handled(&event).await, Handled::Noted);
    let installation = life.app.stored(ALPHA, None).await;
    let enterprise = installation.home.enterprise().expect("Slack was asked");
    assert_eq!(enterprise.id.as_str(), ORG);
}

#[tokio::test]
async fn while_slack_does_not_say_the_migrations_event_counts_if_it_is_not_older() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.app
        .fake
        .inject("auth.test", Fault::error("team_added_to_org").always());
    let early = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
        let time = event["event_time"].as_u64().expect("a time");
        event["event_time"] = (time - 3600).into();
        event["event"] = json!({"type": "grid_migration_finished", "enterprise_id": ORG});
    });
    assert_eq!(life.handled(&early).await, Handled::Ignored);
    let event = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
        event["event"] = json!({"type": "grid_migration_finished", "enterprise_id": ORG});
    });
    assert_eq!(life.handled(&event).await, Handled::Noted);
    let installation = life.app.stored(ALPHA, None).await;
    assert_eq!(
        installation.home.enterprise().expect("present").id.as_str(),
        ORG
    );
}

#[tokio::test]
async fn an_event_of_a_tenant_without_the_app_writes_nothing() {
    let life = Life::new().await;
    let rows = support::all_rows(&*life.backend).await.len();
    let migrated = life.app.fake.app_uninstalled(BRAVO).edit(|event| {
        event["event"] = json!({"type": "grid_migration_finished", "enterprise_id": ORG});
    });
    let events = [
        access(&life, "team_access_revoked", &[SALES]),
        access(&life, "team_access_granted", &[SALES]),
        life.app.fake.app_uninstalled(BRAVO),
        life.app
            .fake
            .tokens_revoked(BRAVO, &[ADA], &["U0BOT000001"]),
        migrated,
    ];
    for event in events {
        assert_eq!(life.handled(&event).await, Handled::Ignored);
    }
    assert_eq!(support::all_rows(&*life.backend).await.len(), rows);
    assert_eq!(life.host.tenants(), [""; 0]);
}

#[tokio::test]
async fn an_org_wide_install_that_serves_a_workspace_is_told_apart() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    let named = life
        .authorize(&mention(&life, SALES))
        .await
        .expect("the org's");
    assert_eq!(named.resolved_via, ResolvedVia::Named);
    assert_eq!(named.team_id().map(|team| team.as_str()), Some(SALES));
}

#[tokio::test]
async fn of_two_changes_in_one_second_the_microseconds_decide() {
    let life = Life::standing().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let change = |what: &str, fraction: &str| {
        access(&life, what, &[SALES]).edit(|event| {
            let stamp = event["event"]["event_ts"].as_str().expect("a stamp");
            let (seconds, _) = stamp.split_once('.').expect("a fraction");
            event["event"]["event_ts"] = format!("{seconds}.{fraction}").into();
        })
    };
    let revoked = change("team_access_revoked", "000100");
    let granted = change("team_access_granted", "000101");
    for order in [[&revoked, &granted], [&granted, &revoked]] {
        for event in order {
            assert_eq!(life.handled(event).await, Handled::Noted);
        }
        assert!(life.authorize(&mention(&life, SALES)).await.is_ok());
    }
}

#[tokio::test]
async fn without_a_finer_time_an_event_counts_from_its_second() {
    let life = Life::standing().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    let mut served = true;
    for (what, is_fine) in [
        ("team_access_revoked", true),
        ("team_access_granted", false),
        ("team_access_revoked", false),
        ("team_access_granted", true),
        ("team_access_revoked", false),
    ] {
        life.advance(60);
        let event = access(&life, what, &[SALES]).edit(|event| {
            if !is_fine {
                event["event"]["event_ts"] = json!(null);
            }
        });
        assert_eq!(life.handled(&event).await, Handled::Noted);
        served = !served;
        let outcome = life.authorize(&mention(&life, SALES)).await;
        assert_eq!(outcome.is_ok(), served, "{what}, fine: {is_fine}");
    }
}

#[tokio::test]
async fn what_is_taken_away_within_the_margin_of_the_installation_counts() {
    for (seconds, expected) in [
        (-6, Handled::Ignored),
        (-5, Handled::Noted),
        (0, Handled::Noted),
    ] {
        let life = Life::standing().await;
        life.install(Who::user(OLGA).at(ORG)).await;
        let event = access(&life, "team_access_revoked", &[SALES]);
        let event = life.dispatched(event, ORG, seconds).await;
        assert_eq!(life.handled(&event).await, expected, "{seconds} s");
        let is_served = life.authorize(&mention(&life, SALES)).await.is_ok();
        assert_eq!(is_served, expected == Handled::Ignored, "{seconds} s");
    }
}

fn migrated(life: &Life, event: serde_json::Value) -> Delivery {
    let mut event = event;
    event["type"] = "grid_migration_finished".into();
    let delivery = life.app.fake.app_uninstalled(ALPHA);
    delivery.edit(|envelope| envelope["event"] = event)
}

async fn enterprise(life: &Life) -> Option<String> {
    let installation = life.app.stored(ALPHA, None).await;
    let org = installation.home.enterprise()?;
    Some(org.id.as_str().to_owned())
}

#[tokio::test]
async fn a_migration_is_believed_by_slacks_word_on_this_very_workspace_or_by_the_events() {
    let another = json!({"team_id": BRAVO, "enterprise_id": "E0OTHER0001"});
    let this = json!({"team_id": ALPHA, "enterprise_id": "E0NEWEST001"});
    let nowhere = json!({"team_id": ALPHA});
    for (test, seconds, expected) in [
        (Some(&another), 0, Some(ORG)),
        (Some(&another), -3600, None),
        (Some(&this), 0, Some("E0NEWEST001")),
        (Some(&this), -3600, Some("E0NEWEST001")),
        (Some(&nowhere), 0, Some(ORG)),
        (None, 0, Some(ORG)),
        (None, -5, Some(ORG)),
        (None, -6, None),
    ] {
        let life = Life::standing().await;
        life.install(ADA).await;
        let event = migrated(&life, json!({"enterprise_id": ORG}));
        let event = life.dispatched(event, ALPHA, seconds).await;
        let said = test.cloned();
        let slack = scripted(&life.app.fake, move |_, _| {
            let said = said.clone();
            async move { Some(said.map_or_else(|| error("team_added_to_org"), ok)) }
        });
        let handled = life.deliver_over(&slack, &event).await;
        let handled = handled.expect("it can be handled");
        let noted = match expected {
            Some(_) => Handled::Noted,
            None => Handled::Ignored,
        };
        assert_eq!(handled, noted, "{test:?}, {seconds} s");
        assert_eq!(enterprise(&life).await.as_deref(), expected, "{test:?}");
        assert!(life.bot_token(ALPHA).await.is_some());
        assert!(life.user_token(ALPHA, ADA).await.is_some());
    }
}

#[tokio::test]
async fn a_migration_that_names_no_organisation_changes_nothing_unless_slack_names_one() {
    for event in [json!({}), json!({"enterprise_id": "no id"})] {
        let life = Life::standing().await;
        life.install_without_bot(ADA).await;
        let event = migrated(&life, event);
        assert_eq!(life.handled(&event).await, Handled::Ignored);
        assert_eq!(enterprise(&life).await, None);
    }
    let life = Life::standing().await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    let event = migrated(&life, json!({}));
    assert_eq!(life.handled(&event).await, Handled::Noted);
    assert_eq!(enterprise(&life).await.as_deref(), Some(ORG));
    // Without a bot token Slack cannot be asked, so the event counts.
    let life = Life::standing().await;
    life.install_without_bot(ADA).await;
    let event = migrated(&life, json!({"enterprise_id": ORG}));
    assert_eq!(life.handled(&event).await, Handled::Noted);
    assert_eq!(enterprise(&life).await.as_deref(), Some(ORG));
}

#[tokio::test]
async fn an_installation_that_is_renewed_while_slack_is_asked_keeps_its_own_organisation() {
    let life = Arc::new(Life::standing().await);
    life.install(ADA).await;
    let event = migrated(&life, json!({"enterprise_id": ORG}));
    let live = Arc::clone(&life);
    let slack = scripted(&life.app.fake, move |_, _| {
        let life = Arc::clone(&live);
        async move {
            life.install(BEN).await;
            None
        }
    });
    let handled = life.deliver_over(&slack, &event).await;
    let handled = handled.expect("it can be handled");
    assert_eq!(handled, Handled::Ignored);
    assert_eq!(
        enterprise(&life).await,
        None,
        "the later installation's organisation counts"
    );
}

#[tokio::test]
async fn a_migration_that_begins_says_nothing_yet() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    let before = life.app.fake.calls("auth.test");
    let event = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
        event["event"] = json!({"type": "grid_migration_started", "enterprise_id": ORG});
    });
    assert_eq!(life.handled(&event).await, Handled::Noted);
    assert_eq!(enterprise(&life).await, None);
    assert_eq!(life.app.fake.calls("auth.test"), before);
}

#[tokio::test]
async fn an_organisation_that_leaves_while_it_loses_a_workspace_keeps_nothing() {
    let backend = Arc::new(Interrupted::new(Arc::new(MemoryBackend::default())));
    let life = Life::with(world(), Arc::clone(&backend)).await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let event = access(&life, "team_access_revoked", &[SALES]);
    let store = life.app.store.clone();
    backend.meanwhile(move || {
        tokio::spawn(async move {
            let deleted = store.delete(&key(ORG), &Delete::all()).await;
            assert!(deleted.expect("responds"));
        })
    });
    assert_eq!(life.handled(&event).await, Handled::Ignored);
    assert_eq!(life.slots(ORG).await, [""; 0]);
}

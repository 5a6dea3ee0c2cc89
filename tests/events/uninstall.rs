//! `app_uninstalled`, and what the app's hooks are notified of.

use async_trait::async_trait;
use std::sync::Arc;

use slack_installs::backend::{Change, Expect, MemoryBackend, Metadata, Row, Sealed, Version};
use slack_installs::store;
use slack_installs::testing::{Fault, Who};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    Departure, Handled, Hold, InstallationStore as _, Lifecycle, LifecycleError, LifecycleHooks,
    LifecycleStore as _,
};

use super::*;
use crate::support::Db;
use crate::support::app::{key, world};
use crate::support::backends::{Interrupted, Unreliable};
use crate::support::life::Host;

#[tokio::test]
async fn in_doubt_slack_is_asked_and_while_it_does_not_say_nothing_is_purged() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(60);
    let event = life.app.fake.app_uninstalled(ALPHA);
    for code in [
        "org_login_required",
        "team_added_to_org",
        "fatal_error",
        "some_new_error",
        // Slack returns this code also to an IP address outside the app's allow-list.
        "invalid_auth",
    ] {
        life.app.fake.inject("auth.test", Fault::error(code));
        let error = life.deliver(&event).await.expect_err("Slack did not say");
        assert_matches!(error, LifecycleError::Slack(_), "{code}");
    }
    assert_eq!(
        life.handled(&event).await,
        Handled::Ignored,
        "the token is alive"
    );
    assert!(life.bot_token(ALPHA).await.is_some());
    life.app.fake.uninstall(ALPHA);
    assert_eq!(
        life.handled(&event).await,
        Handled::Purged,
        "the token is dead"
    );
}

#[tokio::test]
async fn a_workspaces_uninstall_leaves_the_org_wide_install_alone() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    assert_eq!(
        life.handled(&life.app.fake.app_uninstalled(SALES)).await,
        Handled::Purged
    );
    assert_eq!(
        life.handled(&life.app.fake.app_uninstalled(SUPPORT)).await,
        Handled::Ignored
    );
    assert!(life.bot_token(ORG).await.is_some());
    assert_eq!(life.host.tenants(), [SALES]);
}

#[tokio::test]
async fn an_uninstall_of_another_app_is_the_hosts_to_read() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    let event = serde_json::json!({"type": "app_uninstalled_team", "app_id": "A0OTHERAPP1",
        "team_id": ALPHA, "user_id": ADA});
    let event = life.app.fake.event(ALPHA, event);
    assert_eq!(life.handled(&event).await, Handled::NotLifecycle);
    assert!(life.bot_token(ALPHA).await.is_some());
}

#[tokio::test]
async fn a_host_that_fails_is_told_again_until_it_succeeds() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.host.set_failing(true);
    let event = life.app.fake.app_uninstalled(ALPHA);
    let error = life.deliver(&event).await.expect_err("the hook fails");
    assert_matches!(error, LifecycleError::Hook(_));
    assert_eq!(
        life.slots(ALPHA).await,
        ["departure"],
        "the tokens are deleted, the note is kept"
    );

    assert_eq!(
        life.lifecycle.resume_pending().await.expect("responds"),
        0,
        "not due yet"
    );
    life.advance(61);
    assert_eq!(
        life.lifecycle.resume_pending().await.expect("responds"),
        0,
        "the hook fails again"
    );
    life.host.set_failing(false);
    assert_eq!(
        life.lifecycle.resume_pending().await.expect("responds"),
        0,
        "the note was postponed"
    );
    life.advance(121);
    assert_eq!(life.lifecycle.resume_pending().await.expect("responds"), 1);
    assert_eq!(life.host.tenants(), [ALPHA]);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.lifecycle.resume_pending().await.expect("responds"), 0);
}

#[tokio::test]
async fn slacks_repetition_tells_the_host_as_well() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.host.set_failing(true);
    let event = life.app.fake.app_uninstalled(ALPHA);
    life.deliver(&event).await.expect_err("the hook fails");
    life.host.set_failing(false);
    assert_eq!(
        life.handled(&event.retry(1, "http_error")).await,
        Handled::Purged
    );
    assert_eq!(life.host.tenants(), [ALPHA]);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
}

#[tokio::test]
async fn a_host_that_is_told_late_learns_that_the_app_is_back() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app.fake.uninstall(ALPHA);
    life.host.set_failing(true);
    life.deliver(&life.app.fake.app_uninstalled(ALPHA))
        .await
        .expect_err("the hook fails");
    life.install(BEN).await;
    life.host.set_failing(false);
    life.advance(61);
    assert_eq!(life.lifecycle.resume_pending().await.expect("responds"), 1);
    assert_eq!(
        life.host.departures(),
        [(ALPHA.to_owned(), "app_uninstalled".to_owned(), true)]
    );
    assert!(
        life.bot_token(ALPHA).await.is_some(),
        "the new installation is kept"
    );
}

#[tokio::test]
async fn an_installation_that_does_not_open_is_judged_by_the_time_that_it_shows() {
    let life = Life::new().await;
    life.install(ADA).await;
    let backend = Arc::clone(&life.backend);
    let db = Db::of(life.app.fake.client_id(), backend);
    let (key, row) = db.row(ALPHA, "install").await;
    let broken = Row {
        version: Version::mint(),
        sealed: Sealed::from_stored(vec![1; 80]),
        ..row
    };
    let early = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
        let time = event["event_time"].as_u64().expect("a time");
        event["event_time"] = (time - 3600).into();
    });
    db.overwrite(&key, broken).await;
    assert_eq!(life.handled(&early).await, Handled::Ignored);
    let doubtful = life.app.fake.app_uninstalled(ALPHA);
    life.deliver(&doubtful).await.expect_err("no usable token");
    assert_ne!(life.slots(ALPHA).await, [""; 0]);
    life.advance(3600);
    assert_eq!(
        life.handled(&life.app.fake.app_uninstalled(ALPHA)).await,
        Handled::Purged
    );
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
}

#[tokio::test]
async fn an_organisations_uninstall_that_names_a_workspace_is_asked_about() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let event = life.app.fake.app_uninstalled(SUPPORT).edit(|event| {
        event["enterprise_id"] = ORG.into();
    });
    assert_eq!(
        life.handled(&event).await,
        Handled::Ignored,
        "the token is alive"
    );
    assert!(life.bot_token(ORG).await.is_some());
    life.app.fake.uninstall(ORG);
    let user = life.app.fake.tokens_revoked(SUPPORT, &[OLGA], &[]);
    let user = user.edit(|event| event["enterprise_id"] = ORG.into());
    assert_eq!(life.handled(&user).await, Handled::Revoked);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.slots(ORG).await, [""; 0]);
    assert_eq!(life.host.tenants(), [ORG]);
}

/// Replaces the version of a row, so that the row does not open.
async fn damage(life: &Life, tenant: &str, slot: &str) {
    let rows = support::all_rows(&*life.backend).await;
    let partition = format!("{}/{tenant}", life.app.fake.client_id());
    let (key, row) = rows
        .into_iter()
        .find(|(key, _)| key.partition.as_str() == partition && key.slot.as_str() == slot)
        .expect("the row exists");
    let put = Change::Put {
        slot: key.slot,
        row: Row {
            version: Version::mint(),
            ..row
        },
        expect: Expect::Any,
    };
    let committed = life.backend.commit(&key.partition, &[put]).await;
    committed.expect("committed");
}

#[tokio::test]
async fn a_note_that_does_not_open_keeps_no_other_host_from_being_told() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.install("U0BRAVO0001").await;
    life.host.set_failing(true);
    for tenant in [ALPHA, BRAVO] {
        life.advance(3600);
        let event = life.app.fake.app_uninstalled(tenant);
        life.deliver(&event).await.expect_err("the hook fails");
    }
    damage(&life, ALPHA, "departure").await;
    life.host.set_failing(false);
    life.advance(3600);
    assert_eq!(life.lifecycle.resume_pending().await.expect("responds"), 1);
    assert_eq!(life.host.tenants(), [BRAVO]);
}

#[tokio::test]
async fn a_hold_outlives_a_damaged_row_and_a_reinstall() {
    let life = Life::new().await;
    life.install(ADA).await;
    let hold = Hold {
        is_on: true,
        reason: "ticket 1".into(),
        at: life.app.fake.clock().now(),
    };
    let alpha = key(ALPHA);
    assert!(life.app.store.hold(&alpha, &hold).await.expect("responds"));
    damage(&life, ALPHA, "install").await;
    life.install(BEN).await;
    let installation = life.app.stored(ALPHA, None).await;
    assert!(installation.is_on_hold());
}

/// Panics for one tenant, and never returns for another.
#[derive(Debug)]
struct Wild(Host);

#[async_trait]
impl LifecycleHooks for Wild {
    async fn uninstalled(
        &self,
        departure: &Departure,
        is_installed_again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match departure.key.id() {
            ALPHA => panic!("a bug of the app"),
            SALES => std::future::pending().await,
            _ => self.0.uninstalled(departure, is_installed_again).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_or_never_ends_keeps_no_other_tenants_from_being_told() {
    let life = Life::new().await;
    let people = [(ALPHA, ADA), (SALES, "U0GRIDUSR02"), (BRAVO, "U0BRAVO0001")];
    life.host.set_failing(true);
    for (tenant, person) in people {
        life.install(person).await;
        life.advance(3600);
        let event = life.app.fake.app_uninstalled(tenant);
        life.deliver(&event).await.expect_err("the hook fails");
    }
    life.host.set_failing(false);
    life.advance(3600);
    let wild = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_hooks(Wild(life.host.clone()))
        .with_clock(life.app.fake.clock());
    assert_eq!(wild.resume_pending().await.expect("responds"), 1);
    assert_eq!(life.host.tenants(), [BRAVO]);
    for tenant in [ALPHA, SALES] {
        assert_eq!(
            life.slots(tenant).await,
            ["departure"],
            "the hook is notified again"
        );
    }
}

#[tokio::test]
async fn an_organisations_event_that_names_a_workspace_is_judged_by_its_time_as_well() {
    for (seconds, is_dead, expected) in [
        (-3600, true, Handled::Ignored),
        (-6, true, Handled::Ignored),
        (-5, true, Handled::Purged),
        (0, true, Handled::Purged),
        (0, false, Handled::Ignored),
        (3600, true, Handled::Purged),
        (3600, false, Handled::Ignored),
    ] {
        let life = Life::standing().await;
        life.install(Who::user(OLGA).at(ORG)).await;
        let event = life.app.fake.app_uninstalled(SUPPORT).edit(|event| {
            event["enterprise_id"] = ORG.into();
        });
        let event = life.dispatched(event, ORG, seconds).await;
        if is_dead {
            life.app.fake.uninstall(ORG);
        }
        let case = format!("{seconds} s, dead: {is_dead}");
        assert_eq!(life.handled(&event).await, expected, "{case}");
        let is_left = life.bot_token(ORG).await.is_some();
        assert_eq!(is_left, expected == Handled::Ignored, "{case}");
    }
}

#[tokio::test]
async fn an_organisations_departure_is_told_when_the_event_names_a_workspace_again() {
    let life = Life::standing().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    life.app.fake.uninstall(ORG);
    let event = life.app.fake.app_uninstalled(SUPPORT).edit(|event| {
        event["enterprise_id"] = ORG.into();
    });
    life.host.set_failing(true);
    life.deliver(&event).await.expect_err("the hook fails");
    life.host.set_failing(false);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.host.tenants(), [ORG]);
    assert_eq!(
        life.handled(&event).await,
        Handled::Ignored,
        "the hook was notified"
    );
    assert_eq!(life.host.tenants(), [ORG]);
}

#[tokio::test]
async fn an_event_without_a_time_or_a_tenant_does_nothing() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app.fake.uninstall(ALPHA);
    for missing in [&["event_time"][..], &["team_id", "authorizations"]] {
        let event = life.app.fake.app_uninstalled(ALPHA).edit(|event| {
            let event = event.as_object_mut().expect("an object");
            for name in missing {
                event.remove(*name);
            }
        });
        assert_eq!(life.handled(&event).await, Handled::Ignored, "{missing:?}");
        assert!(life.bot_token(ALPHA).await.is_some(), "{missing:?}");
    }
}

#[tokio::test]
async fn an_installation_that_shows_no_time_either_is_purged() {
    let life = Life::standing().await;
    life.install(ADA).await;
    let db = Db::of(life.app.fake.client_id(), Arc::clone(&life.backend));
    let (row_key, row) = db.row(ALPHA, "install").await;
    let broken = Row {
        metadata: Metadata::new("{}"),
        ..row
    };
    db.overwrite(&row_key, broken).await;
    let event = life.app.fake.app_uninstalled(ALPHA);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.host.tenants(), [ALPHA]);
}

#[tokio::test]
async fn an_installation_that_does_not_open_and_is_purged_meanwhile_is_judged_again() {
    let backend = Arc::new(MemoryBackend::default());
    let backend = Arc::new(Interrupted::new(backend));
    let life = Life::with(world(), Arc::clone(&backend)).await;
    life.install(ADA).await;
    damage(&life, ALPHA, "install").await;
    life.advance(3600);
    // Another process purges the installation and cannot notify the hook.
    let (store, now) = (life.app.store.clone(), life.app.fake.clock().now());
    backend.meanwhile(move || {
        tokio::spawn(async move {
            let found = store.glance(&key(ALPHA)).await.expect("responds");
            let (revision, _) = found.expect("it exists");
            let departure = Departure::new(key(ALPHA), "by another", now);
            let purged = store.purge(&departure, revision, Some(now)).await;
            assert!(purged.expect("purged").is_some());
        })
    });
    let event = life.app.fake.app_uninstalled(ALPHA);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    let told = (ALPHA.to_owned(), "by another".to_owned(), false);
    assert_eq!(life.host.departures(), [told]);
}

#[tokio::test]
async fn while_the_database_is_away_an_event_is_an_error_that_passes() {
    let backend = Unreliable::new(Arc::new(MemoryBackend::default()));
    let life = Life::with(world(), Arc::new(backend.clone())).await;
    life.install(ADA).await;
    life.advance(3600);
    life.app.fake.uninstall(ALPHA);
    let events = life.app.fake.take_events();
    backend.set_down(true);
    for event in &events {
        let error = life.deliver(event).await.expect_err("unavailable");
        let is_store = matches!(error, LifecycleError::Store(store::Error::Unavailable(_)));
        assert!(is_store && error.is_transient(), "{error}");
    }
    backend.set_down(false);
    assert!(life.bot_token(ALPHA).await.is_some());
    for event in &events {
        life.handled(event).await;
    }
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.host.tenants(), [ALPHA]);
}

#[tokio::test]
async fn a_purge_and_its_note_are_one_commit_and_telling_is_another() {
    let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
    let life = Life::with(world(), Arc::clone(&backend)).await;
    life.install(ADA).await;
    life.install(BEN).await;
    life.advance(3600);
    let before = backend.counts().commits;
    let event = life.app.fake.app_uninstalled(ALPHA);
    life.host.set_failing(true);
    life.deliver(&event).await.expect_err("the hook fails");
    assert_eq!(backend.counts().commits - before, 1);
    assert_eq!(life.slots(ALPHA).await, ["departure"]);
    life.host.set_failing(false);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(backend.counts().commits - before, 2);
}

#[tokio::test]
async fn an_uninstall_takes_its_tenant_and_no_byte_of_another() {
    let life = Life::standing().await;
    let people = [ADA, BEN, "U0BRAVO0001", "U0GRIDUSR02"];
    for person in people {
        life.install(person).await;
    }
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let partition = format!("{}/{ALPHA}", life.app.fake.client_id());
    let others = async || {
        let mut rows = support::all_rows(&*life.backend).await;
        rows.retain(|(key, _)| key.partition.as_str() != partition);
        rows
    };
    let before = others().await;
    let event = life.app.fake.app_uninstalled(ALPHA);
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(others().await, before);
    let found = life.app.store.fetch(&key(ALPHA), None).await;
    assert!(found.expect("responds").is_none());
}

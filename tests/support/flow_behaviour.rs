//! Installing and uninstalling over any backend: cases that failed in other libraries.
//!
//! Each check is a plain function over one database, which it may share with all other checks.
//! `tests/suite` runs them. Numbers refer to the issues of those libraries.

use std::sync::Arc;

use http::{HeaderMap, Method};
use serde_json::json;
use slack_installs::testing::{Person, Who, Workspace};
use slack_installs::{AuthorizeError, Handled, InstallOptions, ResolvedVia, Scopes};

use crate::support::all_rows;
use crate::support::app::{
    ADA, ALPHA, App, BEN, Browser, OLGA, ORG, SALES, installed, location, parameter, user_only,
    world,
};
use crate::support::checks::{Check, Database};
use crate::support::life::Life;
use crate::support::told::reinstall_lives;

/// All checks.
pub(crate) const FLOWS: &[Check<Database>] = &checks! {
    a_flood_of_strangers_leaves_no_row_and_20_honest_installs_succeed
    a_purge_takes_everything_of_the_tenant_and_nothing_of_its_look_alike
    a_reinstall_lives_whatever_is_told_of_the_uninstall_before_it
    a_reinstall_overwrites_cleanly
    a_user_only_install_after_a_bot_install_keeps_the_bot
    an_org_flag_finds_a_workspaces_own_install_once_it_is_known_to_be_inside
    an_org_wide_install_is_kept_under_the_organisation
    an_uninstalled_organisation_takes_no_workspaces_own_install_with_it
    of_64_callbacks_with_one_state_exactly_one_exchanges
    of_two_workers_one_tells_the_host
    one_users_revocation_leaves_the_bot_and_the_others
};

// Installing.

/// 2,000 requests of the install path, and 2,000 made-up callbacks, between 20 installs.
pub(crate) async fn a_flood_of_strangers_leaves_no_row_and_20_honest_installs_succeed(
    database: Database,
) {
    let app = app(database).await;
    let none = HeaderMap::new();
    let mut installs = 0;
    let rows = async || {
        let ours = format!("{}/", app.fake.client_id());
        let rows = all_rows(app.store.backend()).await;
        let names = rows.into_iter().map(|(key, _)| key.partition.to_string());
        let (states, others): (Vec<_>, Vec<_>) = names
            .filter_map(|name| name.strip_prefix(&ours).map(str::to_owned))
            .partition(|name| name.starts_with("state/"));
        (states.len(), others.len())
    };
    for number in 0..2000 {
        let uri = "/slack/install".parse().expect("a path");
        let begun = app.provider.install_response(&uri, &none).await;
        let state = parameter(&location(&begun), "state");
        // The state is the app's own, but the cookie is not.
        let made_up = format!("/slack/oauth_redirect?code=c&state={state}");
        let made_up = made_up.parse().expect("a path");
        let mut headers = HeaderMap::new();
        let cookie = format!("__Host-slack-oauth-{number:08x}={}", "A".repeat(300));
        headers.insert("cookie", cookie.parse().expect("ASCII"));
        let page = app
            .provider
            .callback_response(&Method::GET, &made_up, &headers);
        assert_eq!(page.await.status().as_u16(), 400);
        if number % 100 == 50 {
            let who = [ADA, "U0BRAVO0001", "U0GRIDUSR02"][installs % 3];
            assert!(installed(&app.install(who).await), "install {installs}");
            installs += 1;
        }
    }
    assert_eq!(installs, 20);
    let (states, others) = rows().await;
    // One for each install, until it expires.
    assert_eq!(states, 20);
    assert!(
        others < 20,
        "{others} rows of three tenants, and a data key"
    );
}

pub(crate) async fn a_user_only_install_after_a_bot_install_keeps_the_bot(database: Database) {
    // slackapi/python-slack-sdk#1441
    let app = app(database).await;
    assert!(installed(&app.install(ADA).await));
    assert!(installed(
        &app.install_with(user_only("search:read"), BEN).await
    ));
    let installation = app.stored(ALPHA, Some(BEN)).await;
    assert!(installation.bot.is_some(), "the bot is still stored");
    assert_eq!(
        installation
            .installation
            .user
            .expect("Ben's own")
            .id
            .as_str(),
        BEN
    );
    assert!(app.stored(ALPHA, Some(ADA)).await.user.is_none());
}

pub(crate) async fn an_org_wide_install_is_kept_under_the_organisation(database: Database) {
    let app = app(database).await;
    assert!(installed(&app.install(Who::user(OLGA).at(ORG)).await));
    let installation = app.stored(ORG, None).await;
    assert!(installation.home.is_enterprise_install());
    assert!(
        app.fetch(SALES, None).await.is_none(),
        "stored under the organisation, not the workspace"
    );
}

pub(crate) async fn a_reinstall_overwrites_cleanly(database: Database) {
    let app = app(database).await;
    assert!(installed(&app.install(ADA).await));
    let first = app.stored(ALPHA, None).await;
    let more = InstallOptions {
        scopes: Some(Scopes::from("files:read")),
        ..InstallOptions::default()
    };
    assert!(installed(&app.install_with(more, BEN).await));
    let second = app.stored(ALPHA, None).await;
    let scopes = second.installation.bot.expect("a bot").grant.scopes;
    assert!(scopes.contains("files:read"));
    assert_eq!(
        second.installation.installed_by.expect("known").as_str(),
        BEN
    );
    assert_ne!(first.revision, second.revision);
}

pub(crate) async fn of_64_callbacks_with_one_state_exactly_one_exchanges(database: Database) {
    let app = app(database).await;
    let browser = Arc::new(Browser::default());
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (provider, browser) = (app.provider.clone(), Arc::clone(&browser));
            let callback = callback.clone();
            tokio::spawn(async move { browser.request(&provider, &Method::GET, &callback).await })
        })
        .collect();
    let mut ok = 0;
    for task in tasks {
        ok += usize::from(installed(&task.await.expect("no panic")));
    }
    assert_eq!((ok, app.exchanges()), (1, 1));
}

pub(crate) async fn an_org_flag_finds_a_workspaces_own_install_once_it_is_known_to_be_inside(
    database: Database,
) {
    // slackapi/bolt-python#1408
    let life = life(database).await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    let flagged = life.mention(ALPHA).edit(|event| {
        event["authorizations"][0]["is_enterprise_install"] = json!(true);
        event["authorizations"][0]["team_id"] = json!(null);
    });
    let refused = life
        .authorize(&flagged)
        .await
        .expect_err("the workspace is not known to be in the organisation");
    assert_matches!(refused, AuthorizeError::NotInstalled { .. });
    life.authorize(&life.mention(ALPHA)).await.expect("its own");
    let served = life.authorize(&flagged).await.expect("its own");
    assert_eq!(served.resolved_via, ResolvedVia::OrgToWorkspace);
}

// Uninstalling.

pub(crate) async fn a_purge_takes_everything_of_the_tenant_and_nothing_of_its_look_alike(
    database: Database,
) {
    let look_alike = Workspace::new("T0ALPHA00012", "Alpha Too")
        .with_person(Person::admin("U0LOOKALIKE", "lou"));
    let life = Life::with(world().with_workspace(look_alike), database).await;
    for who in [ADA, BEN, "U0LOOKALIKE"] {
        life.install(who).await;
    }
    let before = life.slots("T0ALPHA00012").await;
    life.advance(3600);
    life.app.fake.uninstall(ALPHA);
    assert_eq!(
        life.handled(&life.app.fake.app_uninstalled(ALPHA)).await,
        Handled::Purged
    );
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.slots("T0ALPHA00012").await, before);
    assert!(life.bot_token("T0ALPHA00012").await.is_some());
    let told = (ALPHA.to_owned(), "app_uninstalled".to_owned(), false);
    assert_eq!(life.host.departures(), [told]);
}

pub(crate) async fn an_uninstalled_organisation_takes_no_workspaces_own_install_with_it(
    database: Database,
) {
    let life = life(database).await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    assert_eq!(
        life.handled(&life.app.fake.app_uninstalled(ORG)).await,
        Handled::Purged
    );
    assert_eq!(life.slots(ORG).await, [""; 0]);
    assert!(life.bot_token(SALES).await.is_some());
    assert_eq!(life.host.tenants(), [ORG]);
}

pub(crate) async fn one_users_revocation_leaves_the_bot_and_the_others(database: Database) {
    let life = life(database).await;
    life.install(ADA).await;
    life.install(BEN).await;
    life.advance(3600);
    assert!(life.app.fake.revoke_user(ALPHA, BEN));
    for event in life.app.fake.take_events() {
        assert_eq!(life.handled(&event).await, Handled::Revoked);
    }
    assert_eq!(life.user_token(ALPHA, BEN).await, None);
    assert!(life.user_token(ALPHA, ADA).await.is_some());
    assert!(life.bot_token(ALPHA).await.is_some());
    assert_eq!(life.host.tenants(), [""; 0]);
}

pub(crate) async fn of_two_workers_one_tells_the_host(database: Database) {
    let life = life(database).await;
    life.install(ADA).await;
    life.advance(3600);
    life.host.set_failing(true);
    life.deliver(&life.app.fake.app_uninstalled(ALPHA))
        .await
        .expect_err("the hook fails");
    life.host.set_failing(false);
    life.advance(61);
    let (one, other) = tokio::join!(
        life.lifecycle.resume_pending(),
        life.lifecycle.resume_pending()
    );
    assert_eq!(one.expect("available") + other.expect("available"), 1);
    assert_eq!(life.host.tenants(), [ALPHA]);
}

// slackapi/bolt-js#1558
pub(crate) async fn a_reinstall_lives_whatever_is_told_of_the_uninstall_before_it(
    database: Database,
) {
    reinstall_lives((60, 120), async || life(database.clone()).await).await;
}

async fn app(database: Database) -> App {
    App::with(world(), database, |_| {}).await
}

async fn life(database: Database) -> Life {
    Life::with(world(), database).await
}

//! The provided install policies, tested through the whole flow.

use crate::support::app::{ADA, ALPHA, App, BEN, BRAVO, Browser, OLGA, ORG, SALES, key};
use crate::support::hooked_transport::Rewritten;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;
use slack_installs::oauth::{
    AdminRequired, AllOf, AllowTenants, DenyTenants, InstallPolicy, OrgWide, RequiredScopes,
};
use slack_installs::testing::{Fault, Person, Who};
use slack_installs::{
    EnterpriseId, InstallOptions, InstallProvider, InstallationStore as _, Scopes, TeamId,
};

const BOB: &str = "U0BRAVO0001";
const GIL: &str = "U0GRIDUSR02";

/// Installs with these scopes under this policy, and returns the page.
async fn install(
    app: &App,
    policy: impl InstallPolicy,
    scopes: &str,
    who: impl Into<Who>,
) -> Response<String> {
    let provider = app.provider.clone().with_policy(policy);
    let browser = Browser::default();
    let options = InstallOptions {
        scopes: Some(Scopes::from(scopes)),
        ..InstallOptions::default()
    };
    let callback = app.allowed(&browser, options, who).await;
    browser.open(&provider, &callback).await
}

async fn assert_refused(app: &App, page: &Response<String>, tenant: &str, because: &str) {
    assert_eq!(page.status(), StatusCode::FORBIDDEN, "{}", page.body());
    assert!(page.body().contains(because), "{}", page.body());
    assert!(app.fetch(tenant, None).await.is_none(), "nothing is stored");
    assert!(
        !app.fake.is_installed(tenant),
        "the tokens just issued are revoked"
    );
}

fn assert_allowed(page: &Response<String>) {
    assert!(page.body().contains("is installed"), "{}", page.body());
}

fn team(id: &str) -> TeamId {
    TeamId::new(id).expect("an id")
}

fn org(id: &str) -> EnterpriseId {
    EnterpriseId::new(id).expect("an id")
}

#[tokio::test]
async fn only_listed_tenants_are_let_in_and_an_organisation_with_its_workspaces() {
    let app = App::new().await;
    let listed = AllowTenants::default()
        .with_team(team(ALPHA))
        .with_enterprise(org(ORG));
    assert_allowed(&install(&app, listed.clone(), "commands", ADA).await);
    assert_allowed(&install(&app, listed.clone(), "commands", GIL).await);
    assert_allowed(&install(&app, listed.clone(), "commands", Who::user(OLGA).at(ORG)).await);
    let page = install(&app, listed, "commands", BOB).await;
    assert_refused(&app, &page, BRAVO, "not open to your workspace").await;
}

#[tokio::test]
async fn a_denied_organisations_workspaces_are_denied_and_others_are_not() {
    let app = App::new().await;
    let denied = DenyTenants::default()
        .with_team(team(BRAVO))
        .with_enterprise(org(ORG));
    assert_allowed(&install(&app, denied.clone(), "commands", ADA).await);
    for (who, tenant) in [(Who::user(BOB), BRAVO), (Who::user(GIL), SALES)] {
        let page = install(&app, denied.clone(), "commands", who).await;
        assert_refused(&app, &page, tenant, "not open to your workspace").await;
    }
    let page = install(&app, denied, "commands", Who::user(OLGA).at(ORG)).await;
    assert_refused(&app, &page, ORG, "not open to your workspace").await;
}

#[tokio::test]
async fn sensitive_scopes_need_an_admin_of_the_place_where_it_is_installed() {
    let app = App::new().await;
    let required = AdminRequired::default;
    let sensitive = "channels:history,users:read";
    assert_allowed(&install(&app, required(), "commands", BEN).await);
    app.fake.uninstall(ALPHA);
    let all = slack_installs::Delete::all();
    app.store
        .delete(&key(ALPHA), &all)
        .await
        .expect("the store responds");

    let page = install(&app, required(), sensitive, BEN).await;
    assert_refused(&app, &page, ALPHA, "Only an admin of your workspace").await;
    assert_allowed(&install(&app, required(), sensitive, ADA).await);
    // Gil is an admin of Sales and not of the organisation. Olga is an admin of the organisation.
    assert_allowed(&install(&app, required(), sensitive, GIL).await);
    assert_allowed(&install(&app, required(), sensitive, Who::user(OLGA).at(ORG)).await);
    assert_allowed(&install(&app, required(), sensitive, Who::user(OLGA).at(SALES)).await);
}

#[tokio::test]
async fn an_org_wide_install_needs_an_admin_of_the_organisation() {
    let app = App::new().await;
    // Olga may install for the organisation when she begins. At the callback she is no longer its
    // admin.
    let browser = Browser::default();
    let options = InstallOptions {
        scopes: Some(Scopes::from("channels:history,users:read")),
        ..InstallOptions::default()
    };
    let callback = app
        .allowed(&browser, options, Who::user(OLGA).at(ORG))
        .await;
    app.fake.add_person(SALES, Person::owner(OLGA, "olga"));
    let provider = app.provider.clone().with_policy(AdminRequired::default());
    let page = browser.open(&provider, &callback).await;
    assert_refused(&app, &page, ORG, "Only an admin of your organisation").await;
}

/// Returns a provider that requires an admin, with a user record of `users.info` that `edit`
/// changed.
fn told_of(app: &App, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> InstallProvider {
    let told = Rewritten::over(app.fake.transport(), move |path: &str, body: Bytes| {
        if !path.ends_with("users.info") {
            return body;
        }
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        edit(&mut answer["user"]);
        answer.to_string().into()
    });
    let provider = app.provider_over(app.store.clone(), told);
    provider.with_policy(AdminRequired::default())
}

/// Installs with a sensitive scope, and returns the page.
async fn sensitive(app: &App, provider: &InstallProvider, who: impl Into<Who>) -> Response<String> {
    let browser = Browser::default();
    let options = InstallOptions {
        scopes: Some(Scopes::from("channels:history,users:read")),
        ..InstallOptions::default()
    };
    let callback = app.allowed(&browser, options, who).await;
    browser.open(provider, &callback).await
}

#[tokio::test]
async fn guests_and_people_who_left_are_no_admins_whatever_else_they_are() {
    let app = App::new().await;
    let by_flag = |flag: &'static str| {
        told_of(&app, move |ada| {
            assert_eq!(ada["is_admin"], true, "she is also an admin");
            ada[flag] = true.into();
        })
    };
    // Each user is Ada with this one flag set.
    for flag in [
        "deleted",
        "is_restricted",
        "is_stranger",
        "is_ultra_restricted",
    ] {
        let page = sensitive(&app, &by_flag(flag), ADA).await;
        assert_refused(&app, &page, ALPHA, "Only an admin of your workspace").await;
    }
    let elsewhere = told_of(&app, |ada| ada["team_id"] = BRAVO.into());
    let page = sensitive(&app, &elsewhere, ADA).await;
    assert_refused(&app, &page, ALPHA, "Only an admin of your workspace").await;
    assert_allowed(&sensitive(&app, &by_flag("is_bot"), ADA).await);
}

#[tokio::test]
async fn of_an_organisation_too_no_guest_and_nobody_who_left_is_an_admin() {
    let app = App::new().await;
    let olga = || Who::user(OLGA).at(ORG);
    for flag in [
        "deleted",
        "is_restricted",
        "is_stranger",
        "is_ultra_restricted",
    ] {
        let flagged = told_of(&app, move |olga| olga[flag] = true.into());
        let page = sensitive(&app, &flagged, olga()).await;
        assert_refused(&app, &page, ORG, "Only an admin of your organisation").await;
    }
    let elsewhere = told_of(&app, |olga| {
        olga["enterprise_user"]["enterprise_id"] = "E0OTHER0001".into();
    });
    let page = sensitive(&app, &elsewhere, olga()).await;
    assert_refused(&app, &page, ORG, "Only an admin of your organisation").await;
    let nobody = told_of(&app, |olga| {
        olga["enterprise_user"]["is_admin"] = false.into();
        olga["is_admin"] = true.into();
    });
    let page = sensitive(&app, &nobody, olga()).await;
    assert_refused(&app, &page, ORG, "Only an admin of your organisation").await;
    assert_allowed(&sensitive(&app, &told_of(&app, |_| {}), olga()).await);
}

#[tokio::test]
async fn an_owner_is_an_admin_whatever_slack_says_beside_it() {
    let app = App::new().await;
    for flag in ["is_admin", "is_owner", "is_primary_owner"] {
        let only = told_of(&app, move |ben| ben[flag] = true.into());
        assert_allowed(&sensitive(&app, &only, BEN).await);
        let only = told_of(&app, move |olga| {
            olga["enterprise_user"]["is_admin"] = false.into();
            olga["enterprise_user"][flag] = true.into();
        });
        assert_allowed(&sensitive(&app, &only, Who::user(OLGA).at(ORG)).await);
    }
}

/// Installs with these bot scopes and user scopes, and returns the page.
async fn install_both(app: &App, bot: &str, user: &str, who: &str) -> Response<String> {
    let provider = app.provider.clone().with_policy(AdminRequired::default());
    let browser = Browser::default();
    let options = InstallOptions {
        scopes: Some(Scopes::from(bot)),
        user_scopes: Some(Scopes::from(user)),
        ..InstallOptions::default()
    };
    let callback = app.allowed(&browser, options, who).await;
    browser.open(&provider, &callback).await
}

#[tokio::test]
async fn sensitive_scopes_of_a_users_own_need_an_admin_too() {
    for (bot, user) in [
        ("commands,users:read", "search:read"),
        ("", "search:read,users:read"),
        ("commands", "channels:history,users:read"),
        // The call uses whichever of the two tokens has `users:read`.
        ("channels:history", "users:read"),
        ("channels:history,users:read", "files:write"),
    ] {
        let app = App::new().await;
        let page = install_both(&app, bot, user, BEN).await;
        assert_refused(&app, &page, ALPHA, "Only an admin of your workspace").await;
        assert!(app.fetch(ALPHA, Some(BEN)).await.is_none());
        assert!(app.fake.user_token(ALPHA, BEN).is_none(), "{bot}, {user}");
        let page = install_both(&app, bot, user, ADA).await;
        assert_allowed(&page);
        assert_eq!(app.fake.calls("users.info"), 2, "{bot}, {user}");
    }
    let app = App::new().await;
    assert_allowed(&install_both(&app, "commands", "files:write", BEN).await);
    assert_eq!(app.fake.calls("users.info"), 0, "no scope is sensitive");
}

#[tokio::test]
async fn an_installation_by_nobody_knows_whom_is_refused() {
    let app = App::new().await;
    let nobody = Rewritten::over(app.fake.transport(), |path: &str, body: Bytes| {
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        if path.ends_with("oauth.v2.access") {
            let members = answer.as_object_mut().expect("an object");
            assert!(members.remove("authed_user").is_some());
        }
        answer.to_string().into()
    });
    let provider = app.provider_over(app.store.clone(), nobody);
    let provider = provider.with_policy(AdminRequired::default());
    let page = sensitive(&app, &provider, ADA).await;
    assert_refused(
        &app,
        &page,
        ALPHA,
        "could not check whether you are an admin",
    )
    .await;
    assert_eq!(app.fake.calls("users.info"), 0);
}

#[tokio::test]
async fn both_tokens_must_have_what_the_app_cannot_do_without() {
    let required = || RequiredScopes {
        bot: Scopes::from("commands"),
        user: Scopes::from("search:read"),
    };
    for (bot, user, missing) in [
        ("commands", "search:read", None),
        ("commands,chat:write", "search:read,files:write", None),
        ("chat:write", "search:read", Some("not granted: commands.")),
        ("commands", "files:write", Some("not granted: search:read.")),
        (
            "chat:write",
            "files:write",
            Some("not granted: commands, search:read."),
        ),
        ("", "search:read", Some("not granted: commands.")),
        ("commands", "", Some("not granted: search:read.")),
    ] {
        let app = App::new().await;
        let provider = app.provider.clone().with_policy(required());
        let browser = Browser::default();
        let options = InstallOptions {
            scopes: Some(Scopes::from(bot)),
            user_scopes: Some(Scopes::from(user)),
            ..InstallOptions::default()
        };
        let callback = app.allowed(&browser, options, ADA).await;
        let page = browser.open(&provider, &callback).await;
        match missing {
            Some(missing) => assert_refused(&app, &page, ALPHA, missing).await,
            None => assert_allowed(&page),
        }
    }
}

#[tokio::test]
async fn a_listed_organisation_is_not_a_listed_workspace() {
    let app = App::new().await;
    let sales = AllowTenants::default().with_team(team(SALES));
    assert_allowed(&install(&app, sales.clone(), "commands", GIL).await);
    let page = install(&app, sales, "commands", Who::user(OLGA).at(ORG)).await;
    assert_refused(&app, &page, ORG, "not open to your workspace").await;
    // An org-wide installation belongs to the organisation, so a rule against one of its workspaces
    // does not deny it.
    let denied = DenyTenants::default().with_team(team(SALES));
    let page = install(&app, denied, "commands", Who::user(OLGA).at(ORG)).await;
    assert_allowed(&page);
}

#[tokio::test]
async fn who_cannot_be_asked_about_is_refused() {
    let app = App::new().await;
    let page = install(&app, AdminRequired::default(), "channels:history", ADA).await;
    assert_refused(
        &app,
        &page,
        ALPHA,
        "could not check whether you are an admin",
    )
    .await;
    for fault in [
        Fault::error("user_not_found"),
        Fault::unavailable(),
        Fault::lost(),
    ] {
        app.fake.inject("users.info", fault);
        let sensitive = "channels:history,users:read";
        let page = install(&app, AdminRequired::default(), sensitive, ADA).await;
        assert_refused(
            &app,
            &page,
            ALPHA,
            "could not check whether you are an admin",
        )
        .await;
    }
}

#[tokio::test]
async fn an_app_for_organisations_is_not_for_workspaces_and_the_other_way_round() {
    let app = App::new().await;
    let page = install(&app, OrgWide::Only, "commands", ADA).await;
    assert_refused(&app, &page, ALPHA, "whole organisations").await;
    let page = install(&app, OrgWide::Never, "commands", Who::user(OLGA).at(ORG)).await;
    assert_refused(&app, &page, ORG, "single workspaces").await;
    assert_allowed(&install(&app, OrgWide::Only, "commands", Who::user(OLGA).at(ORG)).await);
    assert_allowed(&install(&app, OrgWide::Never, "commands", ADA).await);
}

#[tokio::test]
async fn what_was_granted_must_have_what_the_app_cannot_do_without() {
    let app = App::new().await;
    let required = RequiredScopes {
        bot: Scopes::from("commands,chat:write"),
        ..RequiredScopes::default()
    };
    app.fake.withhold("chat:write");
    let page = install(&app, required.clone(), "commands,chat:write", ADA).await;
    assert_refused(&app, &page, ALPHA, "not granted: chat:write").await;
    app.fake.withhold("");
    assert_allowed(&install(&app, required, "commands,chat:write", ADA).await);
    let no_user = RequiredScopes {
        user: Scopes::from("search:read"),
        ..RequiredScopes::default()
    };
    let page = install(&app, no_user, "commands", BOB).await;
    assert_refused(&app, &page, BRAVO, "not granted: search:read").await;
}

#[tokio::test]
async fn of_several_policies_each_must_allow_it_and_the_first_refusal_is_told() {
    let app = App::new().await;
    let all = AllOf::default()
        .and(AllowTenants::default().with_team(team(ALPHA)))
        .and(AdminRequired::for_scopes(["commands"]).expect("a pattern"));
    assert_allowed(&install(&app, all.clone(), "commands,users:read", ADA).await);
    let page = install(&app, all.clone(), "commands,users:read", BOB).await;
    assert_refused(&app, &page, BRAVO, "not open").await;
    assert_eq!(
        app.fake.calls("users.info"),
        1,
        "Slack is not asked about Bob"
    );
    assert_allowed(&install(&app, AllOf::default(), "commands", BOB).await);
}

#[tokio::test]
async fn a_refused_newcomer_takes_nothing_from_who_is_installed() {
    let app = App::new().await;
    assert_allowed(&install(&app, AdminRequired::default(), "commands,users:read", ADA).await);
    let page = install(&app, AdminRequired::default(), "files:read", BEN).await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    let kept = app.stored(ALPHA, None).await;
    assert!(kept.bot.is_some() && app.fake.is_installed(ALPHA));
}

//! Ready-made install policies, through the whole flow.

mod support;

use http::{Response, StatusCode};
use slack_installs::oauth::{
    AdminRequired, AllOf, AllowTenants, DenyTenants, InstallPolicy, OrgWide, RequiredScopes,
};
use slack_installs::testing::{Fault, Person, Who};
use slack_installs::{EnterpriseId, InstallOptions, InstallationStore as _, Scopes, TeamId};
use support::app::{ADA, ALPHA, App, BEN, BRAVO, Browser, OLGA, ORG, SALES, key};

const BOB: &str = "U0BRAVO0001";
const GIL: &str = "U0GRIDUSR02";

/// This person installs with these scopes under this policy: the page, and where it is stored.
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
        .expect("the store answers");

    let page = install(&app, required(), sensitive, BEN).await;
    assert_refused(&app, &page, ALPHA, "Only an admin of your workspace").await;
    assert_allowed(&install(&app, required(), sensitive, ADA).await);
    // Gil is an admin of Sales, and no admin of the organisation; Olga the other way round.
    assert_allowed(&install(&app, required(), sensitive, GIL).await);
    assert_allowed(&install(&app, required(), sensitive, Who::user(OLGA).at(ORG)).await);
    assert_allowed(&install(&app, required(), sensitive, Who::user(OLGA).at(SALES)).await);
}

#[tokio::test]
async fn an_org_wide_install_needs_an_admin_of_the_organisation() {
    let app = App::new().await;
    // She may install for the organisation when she begins, and is its admin no more when asked.
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

#[tokio::test]
async fn guests_and_people_who_left_are_no_admins_whatever_else_they_are() {
    let app = App::new().await;
    let mut guest = Person::guest(ADA, "ada");
    guest.is_admin = true;
    let mut left = Person::deactivated(ADA, "ada");
    left.is_admin = true;
    let mut stranger = Person::stranger(ADA, "ada", BRAVO);
    stranger.is_admin = true;
    for person in [guest, left, stranger] {
        let browser = Browser::default();
        app.fake.add_person(ALPHA, Person::admin(ADA, "ada"));
        let options = InstallOptions {
            scopes: Some(Scopes::from("channels:history,users:read")),
            ..InstallOptions::default()
        };
        let callback = app.allowed(&browser, options, ADA).await;
        app.fake.add_person(ALPHA, person.clone());
        let provider = app.provider.clone().with_policy(AdminRequired::default());
        let page = browser.open(&provider, &callback).await;
        assert_refused(&app, &page, ALPHA, "Only an admin of your workspace").await;
    }
}

#[tokio::test]
async fn who_cannot_be_asked_about_is_refused() {
    let app = App::new().await;
    let page = install(&app, AdminRequired::default(), "channels:history", ADA).await;
    assert_refused(&app, &page, ALPHA, "could not be found out").await;
    for fault in [
        Fault::error("user_not_found"),
        Fault::unavailable(),
        Fault::lost(),
    ] {
        app.fake.inject("users.info", fault);
        let sensitive = "channels:history,users:read";
        let page = install(&app, AdminRequired::default(), sensitive, ADA).await;
        assert_refused(&app, &page, ALPHA, "could not be found out").await;
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
        .and(AdminRequired::for_scopes(["commands"]));
    assert_allowed(&install(&app, all.clone(), "commands,users:read", ADA).await);
    let page = install(&app, all.clone(), "commands,users:read", BOB).await;
    assert_refused(&app, &page, BRAVO, "not open").await;
    assert_eq!(app.fake.calls("users.info"), 1, "Bob is not asked about");
    assert_allowed(&install(&app, AllOf::default(), "commands", BOB).await);
}

#[tokio::test]
async fn a_refused_newcomer_takes_nothing_from_who_is_installed() {
    let app = App::new().await;
    assert_allowed(&install(&app, AdminRequired::default(), "commands,users:read", ADA).await);
    let page = install(&app, AdminRequired::default(), "files:read", BEN).await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    let kept = app.fetch(ALPHA, None).await.expect("Ada's install stays");
    assert!(kept.bot.is_some() && app.fake.is_installed(ALPHA));
}

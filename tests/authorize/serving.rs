//! Which installation serves a workspace for which no request was made.

use slack_installs::store::Access;
use slack_installs::testing::Who;
use slack_installs::{InstallationKey, LifecycleStore as _};

use super::support::app::{OLGA, SALES, key};
use super::support::installs::{enterprise, team};
use super::support::serving::hold;
use super::*;

fn sales_in(org: &str) -> InstallationKey {
    InstallationKey::workspace(team(SALES)).within(enterprise(org))
}

#[tokio::test]
async fn a_workspace_of_an_organisation_is_served_as_a_request_is() {
    let life = Life::new().await;
    let serving = async |tenant: &InstallationKey| {
        let served = life.authorizer.serving(tenant).await;
        served.map(|key| key.id().to_owned())
    };
    life.install(Who::user(OLGA).at(ORG)).await;
    assert_matches!(serving(&sales_in(ORG)).await.as_deref(), Ok(ORG));
    assert_matches!(serving(&key(ORG)).await.as_deref(), Ok(ORG));
    // Without the organisation's id, nothing says which organisation it belongs to.
    let outcome = serving(&key(SALES)).await;
    assert_matches!(outcome, Err(AuthorizeError::NotInstalled { .. }));

    let access = Access {
        teams: vec![team(SALES)],
        is_granted: false,
        at_micros: 1,
    };
    let kept = life.app.store.set_access(&enterprise(ORG), &access).await;
    assert!(kept.expect("the store responds"));
    let outcome = serving(&sales_in(ORG)).await;
    assert_matches!(outcome, Err(AuthorizeError::NotGranted));
}

#[tokio::test]
async fn a_workspaces_own_installation_serves_first_and_its_hold_is_heeded() {
    let life = Life::new().await;
    life.install("U0GRIDUSR02").await;
    life.install(Who::user(OLGA).at(ORG)).await;
    let served = life.authorizer.serving(&sales_in(ORG)).await;
    assert_eq!(served.expect("it is installed"), key(SALES));
    hold(&life.app, SALES, true).await;
    let outcome = life.authorizer.serving(&sales_in(ORG)).await;
    assert_matches!(outcome, Err(AuthorizeError::OnHold));
}

#[tokio::test]
async fn not_installed_names_the_ids_that_were_tried() {
    let life = Life::new().await;
    let error = life.authorizer.serving(&sales_in(ORG)).await;
    let error = error.expect_err("nothing is installed");
    let AuthorizeError::NotInstalled { tried } = &error else {
        panic!("{error}");
    };
    assert_eq!(*tried, [key(SALES), key(ORG)]);
    let told = error.to_string();
    assert!(told.ends_with(&format!("{SALES}, {ORG}")), "{told}");
}

//! A tenant that is installed under another id: the error names the id to use.

use slack_installs::InstallationStore as _;
use slack_installs::store::{Access, LifecycleStore as _};
use slack_installs::testing::Who;

use super::House;
use super::act::ACTIONS;
use crate::support::app::{ADA, ALPHA, BRAVO, OLGA, ORG, SALES};
use crate::support::installs::{With as _, enterprise, in_workspace_of, team};

/// The commands about one tenant, for this one.
fn commands(tenant: &'static str) -> Vec<Vec<&'static str>> {
    let actions = ACTIONS.iter().filter(|it| it[0] != "reconcile");
    let mut commands: Vec<Vec<_>> = actions
        .map(|action| {
            let words = action.iter().map(|it| {
                let is_tenant = it.starts_with("T0");
                if is_tenant { tenant } else { *it }
            });
            words.chain(["--yes"]).collect()
        })
        .collect();
    commands.push(vec!["show", tenant]);
    commands
}

#[tokio::test]
async fn a_command_about_a_workspace_that_an_organisation_serves_names_the_organisation() {
    let house = House::new().await;
    house.install(Who::user(OLGA).at(ORG)).await;
    let before = house.rows().await;
    // First, nothing says that the workspace belongs to the organisation.
    for arguments in commands(SALES) {
        let ran = house.run(&arguments).await;
        ran.ends(3);
        let named = format!(
            "nothing is stored for {SALES} itself: check the id; the app is installed in {ORG}"
        );
        assert!(ran.err.contains(&named), "{ran:?}");
        let explain = format!("`slack-installs explain {SALES} --org {ORG}`");
        assert!(ran.err.contains(&explain), "{ran:?}");
        let command = arguments[..arguments.len().min(2)]
            .join(" ")
            .replace(SALES, ORG);
        assert!(
            ran.err.contains(&format!("`slack-installs {command}")),
            "{command} {ran:?}"
        );
    }
    assert_eq!(house.rows().await, before);
    let explain = ["explain", SALES, "--org", ORG];
    house.run(&explain).await.ends(0);

    let access = |is_granted, at_micros| Access {
        teams: vec![team(SALES)],
        is_granted,
        at_micros,
    };
    let granted = access(true, 1_790_000_000_000_000);
    let set = house.app.store.set_access(&enterprise(ORG), &granted).await;
    assert!(set.expect("the database is up"));
    for arguments in commands(SALES) {
        let ran = house.run(&arguments).await;
        ran.ends(3);
        let named = format!("it is served by the one of {ORG}; `slack-installs ");
        assert!(ran.err.contains(&named), "{ran:?}");
        assert!(ran.err.contains(&format!(" {ORG}")), "{ran:?}");
    }
    // The command that the text names works.
    let freeze = ["freeze", ORG, "--reason", "r", "--yes"];
    house.run(&freeze).await.ends(0);

    let lost = access(false, 1_790_000_001_000_000);
    let set = house.app.store.set_access(&enterprise(ORG), &lost).await;
    assert!(set.expect("the database is up"));
    for arguments in commands(SALES) {
        let ran = house.run(&arguments).await;
        ran.ends(3);
        assert!(ran.err.contains("lost this workspace at 20"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_command_about_an_organisation_whose_workspaces_are_installed_names_them() {
    let house = House::new().await;
    for n in 0..7 {
        let tenant = in_workspace_of(ORG, &format!("T0INORG{n:03}")).with_bot("xoxb-1");
        house.app.store.store(&tenant).await.expect("stored");
    }
    for arguments in commands(ORG) {
        let ran = house.run(&arguments).await;
        ran.ends(3);
        assert!(
            ran.err.contains(
                "workspaces of it: T0INORG000, T0INORG001, T0INORG002, T0INORG003, T0INORG004, …"
            ),
            "{ran:?}"
        );
        assert!(
            ran.err
                .contains(&format!("`slack-installs list --organisation {ORG}`")),
            "{ran:?}"
        );
    }
}

#[tokio::test]
async fn an_id_that_no_installation_explains_has_no_such_hint() {
    let house = House::new().await;
    house.install(ADA).await;
    for tenant in ["T0NOBODY", "E0NOBODY"] {
        for arguments in commands(tenant) {
            let ran = house.run(&arguments).await;
            ran.ends(3);
            let text = format!(
                "nothing is stored for {tenant}: check the id, SLACK_CLIENT_ID and the database"
            );
            assert!(ran.err.contains(&text), "{ran:?}");
            assert!(!ran.err.contains(ALPHA), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn the_log_of_a_workspace_that_an_organisation_serves_is_that_of_the_organisation() {
    let (house, _) = super::audits::house().await;
    house.install(Who::user(OLGA).at(ORG)).await;
    let granted = Access {
        teams: vec![team(SALES)],
        is_granted: true,
        at_micros: 1_790_000_000_000_000,
    };
    let set = house.app.store.set_access(&enterprise(ORG), &granted).await;
    assert!(set.expect("the database is up"));
    let text = format!("its records are those of {ORG}");
    let ran = house.run(&["audit", "tail", "--of", SALES]).await;
    ran.ends(0);
    assert!(ran.err.contains(&text), "{ran:?}");
    let ran = house.run(&["audit", "erase", SALES, "--yes"]).await;
    ran.ends(3);
    assert!(ran.err.contains(&text), "{ran:?}");
    let ran = house.run(&["audit", "erase", BRAVO, "--yes"]).await;
    assert!(!ran.err.contains("its records"), "{ran:?}");
}

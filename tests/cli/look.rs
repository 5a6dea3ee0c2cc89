//! `explain`, `show`, `list`, `stats` and `verify`.

use slack_installs::Hold;
use slack_installs::store::{Access, Lease, LifecycleStore as _};
use slack_installs::testing::Who;

use super::{House, ago, kinds};
use crate::support::app::{ADA, ALPHA, BRAVO, OLGA, ORG, SALES, key};
use crate::support::installs::{enterprise, team};

const BOB: &str = "U0BRAVO0001";

#[tokio::test]
async fn explain_shows_the_installation_its_tokens_and_that_nothing_is_wrong() {
    let mut house = House::new().await;
    house.install(ADA).await;
    // It needs neither the client secret nor the right to write.
    house.set("SLACK_CLIENT_SECRET", None);
    house.set("SLACK_INSTALLS_SCOPES", Some("commands,files:read"));
    let before = house.rows().await;
    let ran = house.run(&["explain", ALPHA]).await;
    let text = ran.ends(0);
    for part in [
        "tenant T0ALPHA0001",
        "+ installation: T0ALPHA0001, installed by U0ADMIN0001 at 20",
        "+ hold: none",
        "+ token: the bot: is valid for 11 h, and is refreshed before",
        "webhook        C0GENERAL01",
        "missing scopes files:read",
        "warning the token of the bot lacks the scopes files:read",
        "remedy: have the app installed again there",
        "data keys ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = house.run_json(&["explain", ALPHA]).await.json();
    assert_eq!(report["served_by"], ALPHA);
    assert_eq!(report["chains"][0]["credential"], "bot");
    assert_eq!(report["chains"][0]["rotates"], true);
    assert_eq!(report["installation"]["installed_by"], ADA);
    assert_eq!(kinds(&report, "findings", "kind"), ["missing_scopes"]);
    assert_eq!(house.rows().await, before);
}

#[tokio::test]
async fn explain_finds_a_dead_chain_a_hold_an_orphaned_lease_and_a_damaged_row() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house
        .change_chain(ALPHA, |chain| {
            chain.is_dead = true;
            chain.last_error = Some("invalid_refresh_token".into());
        })
        .await;
    let hold = Hold {
        is_on: true,
        reason: "ticket 4711".to_owned(),
        at: ago(60),
    };
    let held = house.app.store.hold(&key(ALPHA), &hold).await;
    assert!(held.expect("stored"));
    let report = house.run_json(&["explain", ALPHA]).await.json();
    assert_eq!(kinds(&report, "findings", "kind"), ["dead_chain", "hold"]);
    assert_eq!(report["hold"]["reason"], "ticket 4711");
    assert_eq!(report["pending"][0]["what"], "reinstall_needed");
    let ran = house.run(&["explain", ALPHA]).await;
    let text = ran.ends(0);
    assert!(
        text.contains("slack-installs refresh T0ALPHA0001 --revive"),
        "{text}"
    );
    assert!(text.contains("slack-installs thaw T0ALPHA0001"), "{text}");

    house
        .change_chain(BRAVO, |chain| {
            chain.lease = Some(Lease {
                owner: 7,
                until: ago(3600),
            });
            chain.due_at = Some(ago(7200));
            chain.attempts = 2;
            chain.failures = 1;
        })
        .await;
    let report = house.run_json(&["explain", BRAVO]).await.json();
    assert_eq!(
        kinds(&report, "findings", "kind"),
        [
            "failing_refresh",
            "orphaned_lease",
            "overdue_chain",
            "suspect_token"
        ]
    );
    house.damage(BRAVO, "install").await;
    let report = house.run_json(&["explain", BRAVO]).await.json();
    let found = kinds(&report, "findings", "kind");
    assert!(found.contains(&"damaged_row".to_owned()), "{found:?}");
    assert!(report["served_by"].is_null());
}

#[tokio::test]
async fn a_hold_that_cannot_be_read_is_explained_as_a_hold() {
    let house = House::new().await;
    house.install(ADA).await;
    let hold = Hold {
        is_on: false,
        reason: String::new(),
        at: ago(60),
    };
    for is_on in [true, false] {
        let hold = Hold {
            is_on,
            ..hold.clone()
        };
        let held = house.app.store.hold(&key(ALPHA), &hold).await;
        assert!(held.expect("stored"));
    }
    let report = house.run_json(&["explain", ALPHA]).await.json();
    assert_eq!(report["hold"]["is_on"], false);
    house.damage(ALPHA, "hold").await;
    let report = house.run_json(&["explain", ALPHA]).await.json();
    assert_eq!(report["hold"]["is_on"], true);
}

#[tokio::test]
async fn a_workspace_is_explained_through_its_organisation_until_the_organisation_loses_it() {
    let house = House::new().await;
    house.install(Who::user(OLGA).at(ORG)).await;
    let ran = house.run_json(&["explain", SALES, "--org", ORG]).await;
    ran.ends(0);
    assert_eq!(ran.json()["served_by"], ORG);
    // Nothing says yet that the workspace belongs to the organisation.
    house.run(&["explain", SALES]).await.ends(3);
    let access = |is_granted, at_micros| Access {
        teams: vec![team(SALES)],
        is_granted,
        at_micros,
    };
    let set = async |access: Access| {
        let set = house.app.store.set_access(&enterprise(ORG), &access).await;
        set.expect("the database is up")
    };
    assert!(set(access(true, 1_790_000_000_000_000)).await);
    let report = house.run_json(&["explain", SALES]).await.json();
    assert_eq!(report["served_by"], ORG);
    assert!(set(access(false, 1_790_000_001_000_000)).await);
    let ran = house.run_json(&["explain", SALES]).await;
    ran.ends(0);
    let report = ran.json();
    assert!(report["served_by"].is_null());
    assert_eq!(kinds(&report, "findings", "kind"), ["access_revoked"]);
}

#[tokio::test]
async fn an_unknown_tenant_is_not_found_and_a_wrong_id_is_usage() {
    let house = House::new().await;
    for command in ["explain", "show"] {
        let ran = house.run(&[command, "T0NOBODY"]).await;
        ran.ends(3);
        assert!(
            ran.err.contains("nothing is stored for T0NOBODY") && !ran.out.contains("is wrong"),
            "{ran:?}"
        );
        house.run(&[command, "nobody"]).await.ends(2);
    }
    let ran = house.run_json(&["show", "T0NOBODY"]).await;
    let error: serde_json::Value = serde_json::from_str(&ran.err).expect("JSON");
    assert_eq!(error["error"]["name"], "not_found");
    assert_eq!(error["error"]["code"], 3);
}

#[tokio::test]
async fn show_names_every_row_with_its_key_and_version() {
    let house = House::new().await;
    house.install(ADA).await;
    let report = house.run_json(&["show", ALPHA]).await.json();
    let rows = report["rows"].as_array().expect("rows");
    let slots: Vec<_> = rows.iter().map(|row| row["slot"].as_str()).collect();
    assert_eq!(slots, [Some("bot"), Some("install")]);
    let stored = house.rows().await;
    for row in rows {
        assert_eq!(row["state"], "opens");
        let version = row["version"].as_str().expect("a version");
        let is_stored = |it: &slack_installs::backend::Version| format!("{it:?}") == version;
        assert!(stored.values().any(is_stored), "{version}");
    }
    let ran = house.run(&["show", ALPHA]).await;
    assert_eq!(ran.ends(0).lines().count(), 2, "{ran:?}");
}

#[tokio::test]
async fn list_has_a_line_for_each_tenant_that_meets_every_condition() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house.install(Who::user(OLGA).at(ORG)).await;
    let hold = Hold {
        is_on: true,
        reason: "r".to_owned(),
        at: ago(60),
    };
    let held = house.app.store.hold(&key(ALPHA), &hold).await;
    assert!(held.expect("stored"));
    house
        .change_chain(BRAVO, |chain| chain.is_dead = true)
        .await;
    for (arguments, tenants) in [
        (&[][..], &[ALPHA, BRAVO, ORG][..]),
        (&["--on-hold"], &[ALPHA]),
        (&["--dead"], &[BRAVO]),
        (&["--organisation"], &[ORG]),
        (&["--organisation", "E0OTHER"], &[]),
        (&["--expiring"], &[]),
        (&["--expiring", "13"], &[ALPHA, BRAVO, ORG]),
        (&["--on-hold", "--dead"], &[]),
        (&["--damaged"], &[]),
        (&["--key", "00"], &[]),
    ] {
        let ran = house.run_json(&[&["list"], arguments].concat()).await;
        let lines = ran.ends(0).lines();
        let found: Vec<_> = lines
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                line["tenant"].as_str().expect("an id").to_owned()
            })
            .collect();
        assert_eq!(found, tenants, "{arguments:?}");
    }
    let ran = house.run(&["list"]).await;
    let text = ran.ends(0);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.contains("T0BRAVO0002") && text.contains("dead"),
        "{text}"
    );
}

#[tokio::test]
async fn stats_counts_and_verify_opens_every_row() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house.install(Who::user(OLGA).at(ORG)).await;
    let stats = house.run_json(&["stats"]).await.json();
    assert_eq!(
        (
            &stats["workspaces"],
            &stats["organisations"],
            &stats["bots"]
        ),
        (&2.into(), &1.into(), &3.into()),
        "{stats}"
    );
    assert_eq!(stats["rotating"], 3);
    let ran = house.run_json(&["verify"]).await;
    ran.ends(0);
    let opened = ran.json()["opened"].as_u64().expect("a number");
    assert_eq!(usize::try_from(opened), Ok(house.rows().await.len()));
    // Each count says of what it is. An OAuth state and the data keys belong to no tenant.
    let rows = stats["rows"].as_u64().expect("a number");
    assert_eq!(ran.json()["of_tenants"], rows);
    assert!(opened > rows, "{ran:?}");
    let others = opened - rows;
    let ran = house.run(&["verify"]).await;
    let text = format!("{opened} rows open: {rows} of tenants, and {others} of the app (data keys");
    assert!(ran.ends(0).starts_with(&text), "{ran:?}");
    let text = format!("rows of tenants          {rows}\n");
    assert!(house.run(&["stats"]).await.out.contains(&text));
    let text = format!("rows: all {rows} rows of tenants open\n");
    assert!(house.run(&["doctor"]).await.out.contains(&text));
    house.damage(ALPHA, "bot").await;
    let ran = house.run(&["verify"]).await;
    assert!(ran.ends(8).contains("T0ALPHA0001 bot"), "{ran:?}");
    assert_eq!(house.run_json(&["stats"]).await.json()["damaged"], 1);
    let ran = house.run_json(&["list", "--damaged"]).await;
    assert_eq!(ran.json()["tenant"], ALPHA);
}

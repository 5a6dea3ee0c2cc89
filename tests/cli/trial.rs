//! A bad day: a store with many tenants and one trouble of each kind. The operator follows only what
//! the program says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use slack_installs::store::{Lease, LifecycleStore as _};
use slack_installs::testing::{FakeSlack, Rotation, Who};
use slack_installs::{
    Hold, InstallConfig, InstallProvider, InstallationStore as _, LocalKeyProvider, MasterKey,
    RedirectUri, Scopes,
};

use super::{House, ago, kinds};
use crate::support::app::{ADA, ALPHA, BRAVO, OLGA, ORG, REDIRECT, Store, credentials, key, world};
use crate::support::installs::{With as _, in_workspace};

const BOB: &str = "U0BRAVO0001";
const DAMAGED: &str = "T1FILL000003";
const HELD: &str = "T1FILL000005";
const LOCKED: &str = "T0LOCKED001";

/// Stores this many tenants, each with a bot, a user and a webhook.
pub(crate) async fn fill(store: &Store, tenants: usize) {
    fill_from(store, 0, tenants).await;
}

/// Stores the tenants from this number on.
pub(crate) async fn fill_from(store: &Store, first: usize, tenants: usize) {
    stream::iter(first..tenants)
        .for_each_concurrent(32, async |n| {
            let tenant = in_workspace(&format!("T1FILL{n:06}"))
                .with_bot("xoxb-1")
                .with_user("U0FILL00001", "xoxp-1")
                .with_webhook("C0FILL00001", "https://hooks.slack.com/services/T/B/1");
            store.store(&tenant).await.expect("stored");
        })
        .await;
}

/// Makes the store, and returns the line that the key file lacks.
async fn trouble(tenants: usize) -> (House, String) {
    let old = MasterKey::generate().to_base64().to_string();
    let master = |text: &str| MasterKey::parse(text).expect("a key");
    let mut house = House::with_keys(|_| Arc::new(LocalKeyProvider::new(master(&old)))).await;
    house.app.fake.rotate_tokens(Rotation::default());
    let locked = in_workspace(LOCKED).with_bot("xoxb-1");
    house.app.store.store(&locked).await.expect("stored");
    // All other rows are under a data key that the program's own master key wraps.
    let keys = LocalKeyProvider::new(master(&house.master_key)).with_retired(master(&old));
    let backend = Arc::clone(house.app.store.backend());
    let store = slack_installs::EncryptedStore::open(backend, keys, house.app.fake.client_id());
    let store = store.await.expect("both keys are known");
    store.rotate_data_key().await.expect("a new key");
    let config = InstallConfig::new(
        credentials(&house.app.fake),
        RedirectUri::new(REDIRECT).expect("a redirect URL"),
        Scopes::from("incoming-webhook,commands,chat:write"),
    );
    let slack = house.app.slack.clone();
    let provider = InstallProvider::new(config, slack, store.clone(), store.clone());
    house.app.provider = provider.expect("the configuration works");
    house.app.store = store;
    house.install(ADA).await;
    house.install(BOB).await;
    house.install(Who::user(OLGA).at(ORG)).await;
    fill(&house.app.store, tenants).await;

    house
        .change_chain(ALPHA, |chain| {
            chain.issued_at = ago(6 * 3600);
            chain.lease = Some(Lease {
                owner: 7,
                until: ago(3600),
            });
        })
        .await;
    // Slack refused by mistake, so the tokens are alive.
    house
        .change_chain(BRAVO, |chain| {
            chain.issued_at = ago(6 * 3600);
            chain.is_dead = true;
        })
        .await;
    let hold = Hold {
        is_on: true,
        reason: "ticket 4711".to_owned(),
        at: ago(60),
    };
    let held = house.app.store.hold(&key(HELD), &hold).await;
    assert!(held.expect("stored"));
    house.damage(DAMAGED, "bot").await;
    // The organisation left, and its events were lost. A worker then refreshes its token.
    assert!(house.app.fake.uninstall(ORG));
    house
        .change_chain(ORG, |chain| chain.issued_at = ago(6 * 3600))
        .await;
    for _ in 0..2 {
        house.run(&["refresh", ORG, "--yes"]).await.ends(7);
    }
    (house, old)
}

/// Returns the commands that a text names.
fn commands(text: &str) -> Vec<Vec<String>> {
    let quoted = text.split('`').skip(1).step_by(2);
    let lines = quoted.filter_map(|it| it.strip_prefix("slack-installs "));
    let words = |line: &str| -> Vec<String> {
        line.split_whitespace()
            .map(|word| if word == "…" { "trial" } else { word }.to_owned())
            .collect()
    };
    lines.map(words).collect()
}

/// Finds the finding of this kind in the explanation of a tenant, and runs the command of its remedy
/// that begins with this word.
async fn mend(house: &House, tenant: &str, kind: &str, command: &str) {
    let ran = house.run_json(&["explain", tenant]).await;
    ran.ends(0);
    let findings = ran.json()["findings"].clone();
    let finding = findings.as_array().expect("a list").iter();
    let finding = finding.clone().find(|it| it["kind"] == kind);
    let finding = finding.unwrap_or_else(|| panic!("{tenant} {kind}: {ran:?}"));
    let remedy = finding["remedy"].as_str().expect("a text");
    let named = commands(remedy).into_iter().find(|it| it[0] == command);
    let mut named = named.unwrap_or_else(|| panic!("{command}: {remedy}"));
    assert!(named.contains(&tenant.to_owned()), "{named:?}");
    named.push("--yes".to_owned());
    let named: Vec<_> = named.iter().map(String::as_str).collect();
    house.run(&named).await.ends(0);
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().expect("a list").iter();
    checks
        .find(|it| it["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {report}"))
}

/// Finds and mends each trouble, as an operator who reads only the output.
async fn operate(house: &mut House, tenants: usize, missing_key: &str) {
    // The clock is off: Slack's responses have another date.
    let ahead = FakeSlack::start_with(world()).await.expect("a free port");
    ahead.advance(Duration::from_secs(3600));
    let slack = house.values["SLACK_URL"].clone();
    house.set("SLACK_URL", Some(ahead.environment().base().as_str()));
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    let report = ran.json();
    let found = [
        "clock",
        "damaged_row",
        "dead_chain",
        "hold",
        "keys",
        "orphaned_lease",
        "row_without_key",
    ];
    assert_eq!(kinds(&report, "checks", "name"), found);
    for (name, tenants) in [
        ("damaged_row", &[DAMAGED][..]),
        ("dead_chain", &[BRAVO, ORG]),
        ("hold", &[HELD]),
        ("orphaned_lease", &[ALPHA]),
        ("row_without_key", &[LOCKED]),
    ] {
        let mut of = check(&report, name)["tenants"]
            .as_array()
            .expect("a list")
            .clone();
        of.sort_by_key(|it| std::cmp::Reverse(it.to_string()));
        let mut tenants = tenants.to_vec();
        tenants.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(of, tenants, "{name}");
    }
    assert!(
        check(&report, "clock")["remedy"]
            .as_str()
            .expect("a text")
            .contains("timedatectl")
    );
    house.set("SLACK_URL", Some(&slack));

    mend(house, ALPHA, "orphaned_lease", "refresh").await;
    mend(house, BRAVO, "dead_chain", "refresh").await;
    mend(house, ORG, "dead_chain", "purge").await;
    mend(house, HELD, "hold", "thaw").await;
    mend(house, DAMAGED, "damaged_row", "purge").await;
    // `verify` ends with the code of the missing key, and names its row.
    let ran = house.run(&["verify"]).await;
    assert!(ran.ends(6).contains(&format!("without key: {LOCKED}")) || ran.out.contains(LOCKED));
    let remedy = check(&report, "keys")["remedy"].as_str().expect("a text");
    assert!(remedy.contains("another line of its key file"), "{remedy}");
    let lines = format!("{}\n{missing_key}\n", house.master_key);
    std::fs::write(house.path("key"), lines).expect("the directory is ours");
    for command in commands(remedy) {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        house.run(&words).await.ends(0);
    }

    let ran = house.run_json(&["doctor"]).await;
    ran.ends(0);
    assert!(kinds(&ran.json(), "checks", "name").is_empty(), "{ran:?}");
    let stats = house.run_json(&["stats"]).await.json();
    // The damaged tenant was purged. Alpha, Bravo and the locked one are there.
    assert_eq!(stats["workspaces"], tenants + 2, "{stats}");
    for (tenant, is_served) in [(ALPHA, true), (BRAVO, true), (HELD, true), (LOCKED, true)] {
        let report = house.run_json(&["explain", tenant]).await.json();
        assert_eq!(report["served_by"].is_string(), is_served, "{report}");
        assert_eq!(
            report["findings"].as_array().map(Vec::len),
            Some(0),
            "{report}"
        );
    }
    for tenant in [ORG, DAMAGED] {
        let report = house.run_json(&["explain", tenant]).await.json();
        assert!(report["served_by"].is_null(), "{report}");
    }
}

#[tokio::test]
async fn each_trouble_among_many_tenants_is_found_and_mended_by_a_command_that_the_output_names() {
    let (mut house, key) = trouble(60).await;
    operate(&mut house, 60, &key).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn each_trouble_among_10_000_tenants_is_found_and_mended() {
    let (mut house, key) = trouble(10_000).await;
    operate(&mut house, 10_000, &key).await;
}

#[cfg(all(feature = "postgres", feature = "redis"))]
async fn in_postgres(tenants: usize) {
    let (mut house, key) = trouble(tenants).await;
    let server = crate::postgres::Postgres::start_with(&[]).await;
    let url = server.database("app").await;
    house.set("TARGET", Some(&url));
    let copy = ["copy", "env:SLACK_INSTALLS_URL", "env:TARGET"];
    house.run(&copy).await.ends(0);
    house.set("SLACK_INSTALLS_URL", Some(&url));
    operate(&mut house, tenants, &key).await;
}

#[cfg(all(feature = "postgres", feature = "redis"))]
#[tokio::test]
async fn each_trouble_in_postgres_is_found_and_mended() {
    in_postgres(60).await;
}

#[cfg(all(feature = "postgres", feature = "redis"))]
#[tokio::test]
#[ignore = "takes minutes"]
async fn each_trouble_among_10_000_tenants_in_postgres_is_found_and_mended() {
    in_postgres(10_000).await;
}

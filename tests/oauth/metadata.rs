//! Whose metadata a flow stores.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use slack_installs::oauth::{InstallHooks, Installed};
use slack_installs::{InstallOptions, Installation, MetadataError, Scopes};

use crate::support::app::{ADA, ALPHA, App, BEN, installed, user_only, user_scopes};

fn with(options: InstallOptions, metadata: &str) -> InstallOptions {
    InstallOptions {
        metadata: Some(metadata.to_owned()),
        ..options
    }
}

/// The tenant's metadata and one person's.
type Texts = (Option<String>, Option<String>);

async fn texts(app: &App, user: &str) -> Texts {
    let stored = app.stored(ALPHA, Some(user)).await.installation;
    (stored.metadata, stored.user_metadata.map(|own| own.text))
}

fn some(tenants: &str, own: &str) -> Texts {
    (Some(tenants.to_owned()), Some(own.to_owned()))
}

#[tokio::test]
async fn a_flow_that_connects_a_user_leaves_the_tenants_metadata_and_its_installer() {
    let app = App::new().await;
    let options = with(user_scopes("search:read"), "ada");
    assert!(installed(&app.install_with(options, ADA).await));
    let options = with(user_only("search:read"), "ben");
    assert!(installed(&app.install_with(options, BEN).await));
    assert_eq!(texts(&app, ADA).await, some("ada", "ada"));
    assert_eq!(texts(&app, BEN).await, some("ada", "ben"));
    let stored = app.stored(ALPHA, None).await.installation;
    assert_eq!(stored.installed_by.expect("known").as_str(), ADA);

    // Ben installs the bot too. From now on, the tenant's metadata is his.
    let options = with(InstallOptions::default(), "ben again");
    assert!(installed(&app.install_with(options, BEN).await));
    assert_eq!(texts(&app, ADA).await, some("ben again", "ada"));
    assert_eq!(texts(&app, BEN).await, some("ben again", "ben again"));
    let stored = app.stored(ALPHA, None).await.installation;
    assert_eq!(stored.installed_by.expect("known").as_str(), BEN);
}

#[tokio::test]
async fn a_tenant_without_a_bot_has_the_metadata_of_each_person_only() {
    let app = App::new().await;
    for (who, text) in [(ADA, "ada"), (BEN, "ben")] {
        let options = with(user_only("search:read"), text);
        assert!(installed(&app.install_with(options, who).await));
    }
    for (who, text) in [(ADA, "ada"), (BEN, "ben")] {
        assert_eq!(texts(&app, who).await, (None, Some(text.to_owned())));
    }
}

#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<Texts>>>);

#[async_trait]
impl InstallHooks for Told {
    async fn installed(&self, installed: &Installed) {
        let installation = &installed.installation;
        let own = installation.user_metadata.as_ref();
        let told = (
            installation.metadata.clone(),
            own.map(|own| own.text.clone()),
        );
        self.0.lock().expect("no panic").push(told);
    }
}

#[tokio::test]
async fn the_hook_of_a_flow_gets_that_flows_metadata_as_the_persons() {
    let told = Told::default();
    let mut app = App::new().await;
    app.provider = app.provider.with_hooks(told.clone());
    let both = InstallOptions {
        scopes: Some(Scopes::from("commands")),
        ..InstallOptions::default()
    };
    assert!(installed(&app.install_with(with(both, "ada"), ADA).await));
    let options = with(user_only("search:read"), "ben");
    assert!(installed(&app.install_with(options, BEN).await));
    let told = told.0.lock().expect("no panic").clone();
    assert_eq!(told, [some("ada", "ada"), (None, Some("ben".to_owned()))]);
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Customer {
    account: u64,
    plan: String,
}

#[tokio::test]
async fn a_typed_value_is_stored_as_json_and_read_again() {
    let app = App::new().await;
    let gold = Customer {
        account: 42,
        plan: "gold \u{e9}".into(),
    };
    let options = InstallOptions::default().with_metadata(&gold);
    let options = options.expect("it has a JSON form");
    let text = r#"{"account":42,"plan":"gold é"}"#;
    assert_eq!(options.metadata.as_deref(), Some(text));
    assert!(installed(&app.install_with(options, ADA).await));
    let stored = app.stored(ALPHA, Some(ADA)).await;
    assert_eq!(
        stored.metadata_as().as_ref(),
        Ok(&Some(Customer { ..gold }))
    );
    assert!(matches!(stored.user_metadata_as::<Customer>(), Ok(Some(_))));
    let nobodys = app.stored(ALPHA, Some(BEN)).await;
    assert_eq!(nobodys.user_metadata_as::<Customer>(), Ok(None));
    // The bound is of the text, however it is made.
    for (length, is_accepted) in [(2046, true), (2047, false)] {
        let options = InstallOptions::default().with_metadata(&"m".repeat(length));
        let started = app.provider.start(options.expect("JSON")).await;
        assert_eq!(started.is_ok(), is_accepted, "{length}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_typed_value_is_told_without_any_of_it() {
    let app = App::new().await;
    assert!(installed(&app.install(ADA).await));
    let mut installation: Installation = app.stored(ALPHA, None).await.installation;
    assert_eq!(installation.metadata_as::<Customer>(), Ok(None));
    for text in [
        "canary",
        r#"{"account":"canary","plan":"canary"}"#,
        r#"{"canary":1}"#,
        "",
    ] {
        installation.metadata = Some(text.to_owned());
        let error = installation.metadata_as::<Customer>().expect_err("wrong");
        assert!(matches!(error, MetadataError::Read { line: 0.., .. }));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    let map = std::collections::BTreeMap::from([(("canary", 1), 2)]);
    let error = InstallOptions::default().with_metadata(&map);
    let error = error.expect_err("no JSON form");
    assert_eq!(error, MetadataError::Write);
    assert!(!format!("{error} {error:?}").contains("canary"));
}

//! Whose metadata a flow stores.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use slack_installs::oauth::{InstallHooks, Installed};
use slack_installs::{InstallOptions, Scopes};

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

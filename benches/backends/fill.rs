//! Makes tenants for a database, fast: the real store seals them in memory, and the rows are
//! copied.

use std::sync::Arc;
use std::time::SystemTime;

use slack_installs::backend::{Backend as _, Key, MemoryBackend, Row, Scope};
use slack_installs::secret::{AccessToken, WebhookUrl};
use slack_installs::{
    AppId, Bot, EncryptedStore, Grant, Home, IncomingWebhook, Installation, InstallationKey,
    InstallationStore as _, LocalKeyProvider, MasterKey, Scopes, Team, TeamId, UserId,
};

use super::app;

/// Returns all rows of this number of tenants, and of the app's keyring.
pub(crate) async fn rows(tenants: usize) -> Vec<(Key, Row)> {
    let filled = memory(tenants).await;
    let (mut rows, mut from) = (Vec::new(), None);
    loop {
        let page = filled.scan(&Scope::Everything, from, 1000).await.unwrap();
        rows.extend(page.rows);
        from = page.next;
        if from.is_none() {
            return rows;
        }
    }
}

/// Returns a memory backend with this number of tenants.
pub(crate) async fn memory(tenants: usize) -> Arc<MemoryBackend> {
    let memory = Arc::new(MemoryBackend::default());
    let store = EncryptedStore::open(Arc::clone(&memory), keys(), app())
        .await
        .unwrap();
    for tenant in 0..tenants {
        store.store(&installation(tenant)).await.unwrap();
    }
    memory
}

/// Returns the master key of every store in this benchmark, so that rows can be copied between
/// them.
pub(crate) fn keys() -> LocalKeyProvider {
    LocalKeyProvider::new(MasterKey::parse(&"5b".repeat(32)).unwrap())
}

pub(crate) fn key(tenant: usize) -> InstallationKey {
    InstallationKey::workspace(TeamId::new(team(tenant)).unwrap())
}

pub(crate) fn team(tenant: usize) -> String {
    format!("T0BENCH{tenant:06}")
}

pub(crate) fn token(tenant: usize) -> String {
    format!("xoxb-100000000001-{tenant:013}-not-a-token-of-anybody")
}

/// Returns a typical installation: a bot with some scopes, and a webhook.
pub(crate) fn installation(tenant: usize) -> Installation {
    let team = Team {
        id: TeamId::new(team(tenant)).unwrap(),
        name: Some(format!("Workspace {tenant}")),
    };
    let home = Home::new(None, Some(team), false).unwrap();
    let app_id = AppId::new("A0BENCH0001").unwrap();
    let mut installation = Installation::new(app_id, home, SystemTime::now());
    installation.installed_by = Some(UserId::new("U0ADMIN0001").unwrap());
    installation.url = Some(format!("https://workspace-{tenant}.slack.com/"));
    installation.incoming_webhooks = vec![IncomingWebhook {
        channel: "#general".to_owned(),
        channel_id: "C0GENERAL01".to_owned(),
        configuration_url: format!("https://workspace-{tenant}.slack.com/services/B0BENCH0001"),
        url: WebhookUrl::new("https://hooks.slack.com/services/T0/B0/not-a-webhook").unwrap(),
    }];
    installation.bot = Some(Bot {
        user_id: UserId::new("U0BOT000001").unwrap(),
        id: None,
        grant: Grant {
            access_token: AccessToken::new(token(tenant)).unwrap(),
            refresh_token: None,
            expires_at: None,
            scopes: Scopes::from("app_mentions:read,channels:history,chat:write,commands"),
        },
    });
    installation
}

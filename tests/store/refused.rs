//! A database that refuses or holds up the commits of one tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use slack_installs::backend::{Error, MemoryBackend};
use slack_installs::{InstallationStore as _, LocalKeyProvider, MasterKey};
use tokio::sync::Semaphore;

use crate::support::Db;
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::installs::{With, in_workspace};

/// Commits wait for a permit, as they wait for the lock of a row.
struct Locked {
    is_on: AtomicBool,
    permits: Semaphore,
    waiting: AtomicUsize,
}

#[async_trait]
impl Hooks for Locked {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        if !self.is_on.load(Ordering::SeqCst) || !matches!(call, Call::Commit([_, ..])) {
            return Ok(());
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let permit = self.permits.acquire().await.expect("never closed");
        permit.forget();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_tenant_has_one_commit_at_the_database_and_another_tenants_commits_go_on() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let backend = Hooked::over(
        Arc::clone(&db.backend),
        Locked {
            is_on: AtomicBool::new(false),
            permits: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
        },
    );
    let store = db
        .store_over(
            backend.clone(),
            LocalKeyProvider::new(MasterKey::generate()),
        )
        .await;
    backend.is_on.store(true, Ordering::SeqCst);
    let stored = |team: &'static str, user: usize| {
        // A store that acts for somebody else is the same store.
        let store = match user % 2 {
            0 => store.clone(),
            _ => store.as_actor("somebody"),
        };
        tokio::spawn(async move {
            let user = (format!("U{user}"), format!("xoxp-{user}"));
            let installation = in_workspace(team).with_user(&user.0, &user.1);
            store.store(&installation).await.map(drop)
        })
    };
    // The clock advances when nothing can run, so every call that can wait at the database does.
    let settled = || tokio::time::sleep(Duration::from_secs(1));
    let mut calls: Vec<_> = (0..20).map(|user| stored("T1", user)).collect();
    settled().await;
    assert_eq!(backend.waiting.load(Ordering::SeqCst), 1);
    calls.push(stored("T2", 0));
    settled().await;
    assert_eq!(backend.waiting.load(Ordering::SeqCst), 2);
    backend.permits.add_permits(10_000);
    for outcome in join_all(calls).await {
        outcome.expect("no panic").expect("stored");
    }
}

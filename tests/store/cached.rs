//! What a store with a cache may hand out, and what it may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use slack_installs::backend::{Error, MemoryBackend};
use slack_installs::store::{Facts, LifecycleStore, RotationStore};
use slack_installs::{
    CacheOptions, Delete, EncryptedStore, Hold, InstallationStore, LocalKeyProvider,
    StoredInstallation, UserId,
};
use tokio::sync::Semaphore;

use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::installs::{With, in_workspace, noon, user_id, with_both, workspace_key};
use crate::support::meddling::{Fate, Meddling};
use crate::support::providers::master_key;
use crate::support::{Db, Store};

/// Counts reads of tenants, and holds back reads or commits between the database and the caller.
struct Watched {
    reads: AtomicUsize,
    read: Gate,
    committed: Gate,
}

/// Holds calls that the database has carried out and whose caller does not know it yet.
#[derive(Debug)]
struct Gate {
    held: AtomicUsize,
    waiting: Semaphore,
    released: Semaphore,
}

impl Gate {
    fn open() -> Self {
        Self {
            held: AtomicUsize::new(0),
            waiting: Semaphore::new(0),
            released: Semaphore::new(0),
        }
    }

    /// Holds the next call, and no later one.
    fn hold_next(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
    }

    fn release(&self) {
        self.released.add_permits(1);
    }

    async fn pass(&self) {
        let one = |held: usize| held.checked_sub(1);
        let held = self
            .held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one);
        if held.is_ok() {
            self.waiting.add_permits(1);
            let released = self.released.acquire().await;
            released.expect("never closed").forget();
        }
    }

    /// Waits until a call is held here.
    async fn reached(&self) {
        let waiting = self.waiting.acquire().await;
        waiting.expect("never closed").forget();
    }
}

impl Watched {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Hooks for Watched {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        assert!(
            !matches!(call, Call::Commit([])),
            "there is no commit without changes"
        );
        Ok(())
    }

    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        match call {
            Call::Read(partition) if partition.name() != "keyring" => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                self.read.pass().await;
            }
            Call::Commit(_) => self.committed.pass().await,
            _ => {}
        }
        Ok(())
    }
}

/// Two processes of an app: `here` has a cache, and `elsewhere` is the other process.
struct Two {
    db: Db,
    here: EncryptedStore<Hooked<Watched>>,
    elsewhere: Store,
}

impl Two {
    async fn new() -> Self {
        Self::with(CacheOptions::default()).await
    }

    async fn with(options: CacheOptions) -> Self {
        let db = Db::new(Arc::new(MemoryBackend::default()));
        let elsewhere = db.store().await;
        let watched = Watched {
            reads: AtomicUsize::new(0),
            read: Gate::open(),
            committed: Gate::open(),
        };
        let watched = Hooked::over(Arc::clone(&db.backend), watched);
        let provider = LocalKeyProvider::from(master_key());
        let here = db.store_over(watched, provider).await.with_cache(options);
        Self {
            db,
            here,
            elsewhere,
        }
    }

    fn watched(&self) -> &Watched {
        self.here.backend()
    }

    /// Fetches the token of `T1`'s bot through `here`.
    async fn token(&self) -> Option<String> {
        token(&self.here, "T1").await
    }

    async fn install_elsewhere(&self, team: &str, token: &str) {
        let installation = in_workspace(team).with_bot(token);
        self.elsewhere.store(&installation).await.expect("stored");
    }
}

async fn token(store: &impl InstallationStore, team: &str) -> Option<String> {
    let fetched = store.fetch(&workspace_key(team), None).await;
    let bot = fetched.expect("the database is up")?.installation.bot;
    bot.map(|bot| bot.grant.access_token.expose().to_owned())
}

async fn with_user(
    store: &impl InstallationStore,
    team: &str,
    user: &UserId,
) -> Option<StoredInstallation> {
    let fetched = store.fetch(&workspace_key(team), Some(user)).await;
    fetched.expect("the database is up")
}

fn some(token: &str) -> Option<String> {
    Some(token.to_owned())
}

fn hold(is_on: bool) -> Hold {
    Hold {
        is_on,
        reason: "ticket 1".to_owned(),
        at: noon(),
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_is_seen_within_the_stated_bound() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-1").await;
    assert_eq!(two.token().await, some("xoxb-1"));
    let key = workspace_key("T1");
    let gone = two.elsewhere.delete(&key, &Delete::all()).await;
    assert!(gone.expect("the database is up"));
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert_eq!(two.token().await, some("xoxb-1"), "from the cache");
    assert_eq!(two.watched().reads(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(two.token().await, None, "the bound has passed");
}

#[tokio::test(start_paused = true)]
async fn a_hold_set_by_another_process_is_seen_within_the_stated_bound() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-1").await;
    let key = workspace_key("T1");
    let is_on_hold = async || {
        let fetched = two.here.fetch(&key, None).await.expect("available");
        fetched.expect("installed").is_on_hold()
    };
    assert!(!is_on_hold().await);
    tokio::time::advance(Duration::from_millis(500)).await;
    let held = two.elsewhere.hold(&key, &hold(true)).await;
    assert!(held.expect("the database is up"));
    tokio::time::advance(Duration::from_millis(1499)).await;
    assert!(!is_on_hold().await, "from the cache");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(is_on_hold().await, "the bound counts from the read");
}

/// The rows may have changed since the database sent them.
#[tokio::test(start_paused = true)]
async fn a_response_is_as_old_as_its_request() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-1").await;
    two.watched().read.hold_next();
    let reader = tokio::spawn({
        let here = two.here.clone();
        async move { token(&here, "T1").await }
    });
    two.watched().read.reached().await;
    tokio::time::advance(Duration::from_millis(1500)).await;
    two.watched().read.release();
    assert_eq!(reader.await.expect("no panic"), some("xoxb-1"));
    tokio::time::advance(Duration::from_millis(499)).await;
    two.token().await;
    assert_eq!(two.watched().reads(), 1, "from the cache");
    tokio::time::advance(Duration::from_millis(1)).await;
    two.token().await;
    assert_eq!(two.watched().reads(), 2, "two seconds after the request");
}

#[tokio::test]
async fn a_hold_set_by_this_process_is_seen_at_once() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-1").await;
    assert!(two.token().await.is_some());
    let key = workspace_key("T1");
    two.here.hold(&key, &hold(true)).await.expect("available");
    let fetched = two.here.fetch(&key, None).await.expect("available");
    assert!(fetched.expect("installed").is_on_hold());
}

#[tokio::test]
async fn what_is_absent_is_read_each_time() {
    let two = Two::new().await;
    assert_eq!(two.token().await, None);
    two.install_elsewhere("T1", "xoxb-1").await;
    assert_eq!(two.token().await, some("xoxb-1"));
}

#[tokio::test]
async fn a_read_that_a_commit_overtook_is_not_kept() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-old").await;
    // A read has its response from the database, and is held back on the way.
    two.watched().read.hold_next();
    let reader = tokio::spawn({
        let here = two.here.clone();
        async move { token(&here, "T1").await }
    });
    two.watched().read.reached().await;
    let new = in_workspace("T1").with_bot("xoxb-new");
    two.here.store(&new).await.expect("stored");
    two.watched().read.release();
    let read = reader.await.expect("no panic");
    assert_eq!(read, some("xoxb-old"), "the read started before the commit");
    assert_eq!(
        two.token().await,
        some("xoxb-new"),
        "this read started after the commit"
    );
}

/// The database has applied the commit, and no process knows it yet.
#[tokio::test]
async fn a_read_during_a_commit_is_not_kept() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-old").await;
    assert_eq!(two.token().await, some("xoxb-old"), "kept");
    two.watched().committed.hold_next();
    let writer = tokio::spawn({
        let here = two.here.clone();
        let new = in_workspace("T1").with_bot("xoxb-new");
        async move { here.store(&new).await }
    });
    two.watched().committed.reached().await;
    assert_eq!(
        two.token().await,
        some("xoxb-new"),
        "the cached response was dropped"
    );
    let reads = two.watched().reads();
    two.watched().committed.release();
    writer.await.expect("no panic").expect("stored");
    assert_eq!(two.token().await, some("xoxb-new"));
    assert_eq!(
        two.watched().reads(),
        reads + 1,
        "the response was not cached"
    );
}

#[tokio::test]
async fn a_commit_that_is_dropped_half_way_makes_the_cache_forget() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-old").await;
    two.watched().committed.hold_next();
    let writer = tokio::spawn({
        let here = two.here.clone();
        let new = in_workspace("T1").with_bot("xoxb-new");
        async move { here.store(&new).await }
    });
    two.watched().committed.reached().await;
    // A read that began before the drop, and that found the rows of that time.
    two.watched().read.hold_next();
    let reader = tokio::spawn({
        let here = two.here.clone();
        async move { token(&here, "T1").await }
    });
    two.watched().read.reached().await;
    writer.abort();
    assert!(writer.await.is_err(), "dropped");
    two.watched().read.release();
    reader.await.expect("no panic");
    let reads = two.watched().reads();
    assert_eq!(two.token().await, some("xoxb-new"));
    assert_eq!(
        two.watched().reads(),
        reads + 1,
        "the response of the overtaken read was not cached"
    );
}

/// What this process cached is outdated.
#[tokio::test]
async fn a_conflict_empties_the_cache_of_that_tenant() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-old").await;
    let key = workspace_key("T1");
    let fetched = two.here.fetch(&key, None).await.expect("available");
    let revision = fetched.expect("it exists").revision;
    assert_eq!(two.token().await, some("xoxb-old"), "kept");
    // A step reads, and then the row changes: its commit conflicts, and the next read finds another
    // revision.
    two.watched().read.hold_next();
    let noting = tokio::spawn({
        let (here, key) = (two.here.clone(), key.clone());
        let facts = Facts {
            url: Some("https://alpha.slack.com/".to_owned()),
            ..Facts::default()
        };
        async move { here.note(&key, revision, &facts).await }
    });
    two.watched().read.reached().await;
    two.install_elsewhere("T1", "xoxb-new").await;
    assert_eq!(two.token().await, some("xoxb-old"), "still kept");
    two.watched().read.release();
    let noted = noting.await.expect("no panic").expect("available");
    assert!(!noted, "that revision no longer exists");
    assert_eq!(two.token().await, some("xoxb-new"));
}

#[tokio::test]
async fn the_cache_keeps_no_more_tenants_than_it_may() {
    let two = Two::with(CacheOptions {
        max_responses: 10,
        ..CacheOptions::default()
    })
    .await;
    for round in 0..100 {
        let team = format!("T{round}");
        two.install_elsewhere(&team, "xoxb-1").await;
        token(&two.here, &team).await.expect("exists");
    }
    let before = two.watched().reads();
    for round in 0..100 {
        let team = format!("T{round}");
        token(&two.here, &team).await.expect("exists");
    }
    let read = two.watched().reads() - before;
    assert!(read >= 90, "only {read} of 100 were read again");
}

/// The users of one tenant are many responses.
#[tokio::test]
async fn the_cache_keeps_no_more_responses_of_one_tenant_than_of_all() {
    let two = Two::with(CacheOptions {
        max_responses: 10,
        ..CacheOptions::default()
    })
    .await;
    two.install_elsewhere("T1", "xoxb-1").await;
    let users: Vec<_> = (0..50).map(|nth| user_id(&format!("U{nth}"))).collect();
    for _ in 0..2 {
        for user in &users {
            with_user(&two.here, "T1", user).await.expect("installed");
        }
    }
    assert_eq!(two.watched().reads(), 100);
    for user in &users[40..] {
        with_user(&two.here, "T1", user).await.expect("installed");
    }
    assert_eq!(two.watched().reads(), 100, "the newest ten are kept");
}

#[tokio::test]
async fn one_tenant_more_than_fit_drops_the_oldest_and_no_other() {
    let two = Two::with(CacheOptions {
        max_responses: 10,
        ..CacheOptions::default()
    })
    .await;
    let teams: Vec<_> = (0..11).map(|nth| format!("T{nth}")).collect();
    for team in &teams {
        two.install_elsewhere(team, "xoxb-1").await;
        token(&two.here, team).await.expect("exists");
    }
    for team in &teams[1..] {
        token(&two.here, team).await.expect("exists");
    }
    assert_eq!(two.watched().reads(), 11);
    token(&two.here, &teams[0]).await.expect("exists");
    assert_eq!(two.watched().reads(), 12);
}

/// A step that changes nothing compares no version in the database.
#[tokio::test]
async fn a_decision_to_change_nothing_is_not_taken_on_what_the_cache_kept() {
    let two = Two::new().await;
    let (store, elsewhere) = (&two.here, &two.elsewhere);
    let key = workspace_key("T1");
    let user = user_id("U1");
    let installation = || with_both("T1", "xoxb-1", "U1", "xoxp-1");
    elsewhere.store(&installation()).await.expect("stored");
    for _ in 0..2 {
        // The second round finds nothing to do, and plain reads stay cached.
        store.hold(&key, &hold(true)).await.expect("available");
        with_user(store, "T1", &user).await.expect("installed");
        two.token().await;
    }
    elsewhere.hold(&key, &hold(false)).await.expect("available");
    store.hold(&key, &hold(true)).await.expect("available");
    let current = elsewhere.fetch(&key, None).await.expect("available");
    assert!(current.expect("installed").is_on_hold(), "held again");

    let delete = Delete::user(user.clone());
    for _ in 0..2 {
        store.delete(&key, &delete).await.expect("available");
        with_user(store, "T1", &user).await.expect("installed");
    }
    elsewhere.store(&installation()).await.expect("stored");
    store.delete(&key, &delete).await.expect("available");
    let current = with_user(elsewhere, "T1", &user).await;
    assert!(current.expect("installed").user.is_none(), "deleted");
}

/// A step reads the chain from the database, not from the cache.
#[tokio::test]
async fn a_step_of_a_chain_is_decided_on_what_the_database_has() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-1").await;
    let key = slack_installs::store::ChainKey {
        tenant: workspace_key("T1"),
        credential: slack_installs::store::Credential::Bot,
    };
    two.here
        .chain(&key)
        .await
        .expect("available")
        .expect("kept");
    let gone = two.elsewhere.delete(&key.tenant, &Delete::all()).await;
    assert!(gone.expect("available"));
    let kept = two.here.chain(&key).await.expect("available");
    assert!(kept.is_some(), "from the cache");
    let mut shown = true;
    let mut decide = |chain: Option<&slack_installs::store::Chain>| {
        shown = chain.is_some();
        None
    };
    let current = two.here.update(&key, None, &mut decide).await;
    assert!(current.expect("available").is_none());
    assert!(!shown, "it was deleted");
}

/// `glance` decides about a departure, and whether a tenant is installed again.
#[tokio::test]
async fn a_glance_is_at_the_database() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-1").await;
    let key = workspace_key("T1");
    assert!(two.here.glance(&key).await.expect("available").is_some());
    two.elsewhere
        .delete(&key, &Delete::all())
        .await
        .expect("available");
    assert!(two.here.glance(&key).await.expect("available").is_none());
}

#[tokio::test]
async fn what_is_kept_is_sealed() {
    let two = Two::new().await;
    two.install_elsewhere("T1", "xoxb-canary").await;
    assert!(two.token().await.is_some());
    let shown = format!("{:?} {:?}", two.here, two.db);
    assert!(shown.contains("Cache"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_empties_the_cache_of_that_tenant_only() {
    for done in [false, true] {
        let db = Db::new(Arc::new(MemoryBackend::default()));
        let elsewhere = db.store().await;
        for team in ["T1", "T2"] {
            let installation = in_workspace(team).with_bot("xoxb-old");
            elsewhere.store(&installation).await.expect("stored");
        }
        let meddling = Arc::new(Meddling::new(Arc::clone(&db.backend)));
        let provider = LocalKeyProvider::from(master_key());
        let here = db.store_over(Arc::clone(&meddling), provider).await;
        let here = here.with_cache(CacheOptions::default());
        for team in ["T1", "T2"] {
            assert_eq!(token(&here, team).await, some("xoxb-old"));
        }
        for team in ["T1", "T2"] {
            let installation = in_workspace(team).with_bot("xoxb-elsewhere");
            elsewhere.store(&installation).await.expect("stored");
        }
        let lost = || Fate::Lost {
            done,
            then: Box::pin(async {}),
        };
        meddling.next(std::iter::repeat_with(lost).take(1000));
        let new = in_workspace("T1").with_bot("xoxb-here");
        let _ = here.store(&new).await;
        let now = if done { "xoxb-here" } else { "xoxb-elsewhere" };
        assert_eq!(token(&here, "T1").await, some(now), "forgotten");
        assert_eq!(token(&here, "T2").await, some("xoxb-old"), "kept");
    }
}

#[tokio::test]
async fn a_response_is_for_exactly_the_slots_of_the_request() {
    let two = Two::new().await;
    let (ada, ben) = (user_id("U0ADMIN0001"), user_id("U0MEMBER002"));
    let installation = in_workspace("T1").with_bot("xoxb-1");
    let installation = installation.with_user("U0ADMIN0001", "xoxp-ada");
    two.elsewhere.store(&installation).await.expect("stored");
    for _ in 0..2 {
        for (user, has_token) in [(&ada, true), (&ben, false)] {
            let fetched = with_user(&two.here, "T1", user).await.expect("installed");
            assert_eq!(fetched.user.is_some(), has_token);
        }
        assert_eq!(two.token().await, some("xoxb-1"));
    }
    // Each response is cached, including one with an absent row.
    assert_eq!(two.watched().reads(), 3);
}

#[test]
fn the_bounds_are_the_stated_ones() {
    let stated = CacheOptions {
        max_age: Duration::from_secs(2),
        max_responses: 10_000,
    };
    assert_eq!(CacheOptions::default(), stated);
}

//! What the cache may answer, and what it may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::Hold;
use slack_installs::backend::{
    Backend, CacheOptions, CachedBackend, Change, Cursor, Error, Expect, Key, MemoryBackend,
    Metadata, Page, Partition, Row, Sealed, Slot, Version,
};
use slack_installs::store::LifecycleStore;
use slack_installs::{Delete, InstallationStore, LocalKeyProvider};
use support::Db;
use support::installs::{With, in_workspace, noon, user_id, workspace_key};
use support::meddling::{Fate, Meddling};
use support::providers::master_key;
use tokio::sync::Semaphore;

mod support;

/// Counts reads, and holds each back between the database's answer and its caller.
#[derive(Debug)]
struct Watched {
    inner: Arc<MemoryBackend>,
    reads: AtomicUsize,
    answered: Semaphore,
    released: Semaphore,
}

impl Watched {
    fn new(inner: &Arc<MemoryBackend>) -> Self {
        Self {
            inner: Arc::clone(inner),
            reads: AtomicUsize::new(0),
            answered: Semaphore::new(0),
            released: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

#[async_trait]
impl Backend for Watched {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let rows = self.inner.read(partition, slots).await;
        self.answered.add_permits(1);
        self.released
            .acquire()
            .await
            .expect("never closed")
            .forget();
        rows
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(from, limit).await
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        self.inner.due(now, limit).await
    }
}

fn tenant(name: &str) -> Partition {
    Partition::new(format!("app/{name}")).expect("a name")
}

fn bot() -> Slot {
    Slot::new("bot").expect("a name")
}

fn put(expect: Expect) -> (Version, Change) {
    let version = Version::mint();
    let metadata = Metadata::new("{}");
    let sealed = Sealed::from_stored([b"SLI1".as_slice(), &[7; 100]].concat());
    let row = Row {
        version,
        metadata,
        sealed,
        due_at: None,
    };
    (
        version,
        Change::Put {
            slot: bot(),
            row,
            expect,
        },
    )
}

async fn version(backend: &impl Backend, tenant: &Partition) -> Option<Version> {
    let rows = backend.read(tenant, &[bot()]).await.expect("answers");
    rows[0].as_ref().map(|row| row.version)
}

#[tokio::test(start_paused = true)]
async fn another_process_is_seen_within_the_stated_bound() {
    let database = Arc::new(MemoryBackend::default());
    let cache = CachedBackend::new(Watched::new(&database), CacheOptions::default());
    let t1 = tenant("T1");
    let (first, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    assert_eq!(version(&cache, &t1).await, Some(first));
    // Purged elsewhere.
    database
        .commit(&t1, &[Change::Clear])
        .await
        .expect("committed");
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert_eq!(version(&cache, &t1).await, Some(first), "from the cache");
    assert_eq!(cache.inner().reads.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(version(&cache, &t1).await, None, "the bound has passed");
}

#[tokio::test]
async fn what_is_absent_is_asked_for_each_time() {
    let database = Arc::new(MemoryBackend::default());
    let cache = CachedBackend::new(Watched::new(&database), CacheOptions::default());
    let t1 = tenant("T1");
    assert_eq!(version(&cache, &t1).await, None);
    let (installed, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    assert_eq!(version(&cache, &t1).await, Some(installed));
}

#[tokio::test]
async fn a_read_that_a_commit_overtook_is_not_kept() {
    let database = Arc::new(MemoryBackend::default());
    let cache = Arc::new(CachedBackend::new(
        Watched::new(&database),
        CacheOptions::default(),
    ));
    let t1 = tenant("T1");
    let (old, change) = put(Expect::Absent);
    cache.commit(&t1, &[change]).await.expect("committed");

    // A read has its answer from the database, and is held back on the way.
    let watched = cache.inner();
    watched.released.forget_permits(Semaphore::MAX_PERMITS);
    let reader = tokio::spawn({
        let (cache, t1) = (Arc::clone(&cache), t1.clone());
        async move { version(&*cache, &t1).await }
    });
    watched
        .answered
        .acquire()
        .await
        .expect("never closed")
        .forget();
    let (new, change) = put(Expect::Version(old));
    cache.commit(&t1, &[change]).await.expect("committed");
    watched.released.add_permits(1000);

    assert_eq!(
        reader.await.expect("no panic"),
        Some(old),
        "it started before the commit"
    );
    assert_eq!(
        version(&*cache, &t1).await,
        Some(new),
        "this one started after it"
    );
}

#[tokio::test]
async fn a_conflict_empties_the_cache_of_that_tenant() {
    let database = Arc::new(MemoryBackend::default());
    let cache = CachedBackend::new(Watched::new(&database), CacheOptions::default());
    let t1 = tenant("T1");
    let (old, change) = put(Expect::Absent);
    cache.commit(&t1, &[change]).await.expect("committed");
    assert_eq!(version(&cache, &t1).await, Some(old));
    let (new, change) = put(Expect::Version(old));
    database
        .commit(&t1, &[change])
        .await
        .expect("committed elsewhere");
    let (_, stale) = put(Expect::Version(old));
    assert!(matches!(
        cache.commit(&t1, &[stale]).await,
        Err(Error::Conflict)
    ));
    assert_eq!(version(&cache, &t1).await, Some(new));
}

#[tokio::test]
async fn the_cache_keeps_no_more_tenants_than_it_may() {
    let database = Arc::new(MemoryBackend::default());
    let options = CacheOptions {
        max_answers: 10,
        ..CacheOptions::default()
    };
    let cache = CachedBackend::new(Watched::new(&database), options);
    for round in 0..100 {
        let tenant = tenant(&format!("T{round}"));
        let (_, change) = put(Expect::Absent);
        database
            .commit(&tenant, &[change])
            .await
            .expect("committed");
        version(&cache, &tenant).await.expect("there");
    }
    let before = cache.inner().reads.load(Ordering::SeqCst);
    for round in 0..100 {
        version(&cache, &tenant(&format!("T{round}")))
            .await
            .expect("there");
    }
    let asked = cache.inner().reads.load(Ordering::SeqCst) - before;
    assert!(asked >= 90, "only {asked} of 100 were asked for again");
}

/// One tenant's users are many answers.
#[tokio::test]
async fn the_cache_keeps_no_more_answers_of_one_tenant_than_of_all() {
    let database = Arc::new(MemoryBackend::default());
    let options = CacheOptions {
        max_answers: 10,
        ..CacheOptions::default()
    };
    let cache = CachedBackend::new(Watched::new(&database), options);
    let t1 = tenant("T1");
    let (_, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    let users: Vec<_> = (0..50)
        .map(|nth| Slot::new(format!("user/U{nth}")).expect("a name"))
        .collect();
    for _ in 0..2 {
        for user in &users {
            let slots = [bot(), user.clone()];
            cache.read(&t1, &slots).await.expect("answers");
        }
    }
    assert_eq!(cache.inner().reads.load(Ordering::SeqCst), 100);
    for user in &users[40..] {
        let slots = [bot(), user.clone()];
        cache.read(&t1, &slots).await.expect("answers");
    }
    assert_eq!(
        cache.inner().reads.load(Ordering::SeqCst),
        100,
        "the newest ten are kept"
    );
}

#[tokio::test]
async fn one_tenant_more_than_fit_drops_the_oldest_and_no_other() {
    let database = Arc::new(MemoryBackend::default());
    let options = CacheOptions {
        max_answers: 10,
        ..CacheOptions::default()
    };
    let cache = CachedBackend::new(Watched::new(&database), options);
    let tenants: Vec<_> = (0..11).map(|nth| tenant(&format!("T{nth}"))).collect();
    for tenant in &tenants {
        let (_, change) = put(Expect::Absent);
        database.commit(tenant, &[change]).await.expect("committed");
        version(&cache, tenant).await.expect("there");
    }
    for tenant in &tenants[1..] {
        version(&cache, tenant).await.expect("there");
    }
    assert_eq!(cache.inner().reads.load(Ordering::SeqCst), 11);
    version(&cache, &tenants[0]).await.expect("there");
    assert_eq!(cache.inner().reads.load(Ordering::SeqCst), 12);
}

/// A decision to change nothing compares no version in the database.
#[tokio::test]
async fn a_decision_to_change_nothing_is_not_taken_on_what_the_cache_kept() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let elsewhere = db.store().await;
    let cache = CachedBackend::new(Arc::clone(&db.backend), CacheOptions::default());
    let store = db
        .store_over(cache, LocalKeyProvider::from(master_key()))
        .await;
    let key = workspace_key("T1");
    let hold = |is_on| Hold {
        is_on,
        reason: "ticket 1".to_owned(),
        at: noon(),
    };
    let user = user_id("U1");
    let installation = || {
        in_workspace("T1")
            .with_bot("xoxb-1")
            .with_user("U1", "xoxp-1")
    };
    elsewhere.store(&installation()).await.expect("stored");
    for _ in 0..2 {
        // The second finds it done, and what it read is kept.
        store.hold(&key, &hold(true)).await.expect("answers");
    }
    elsewhere.hold(&key, &hold(false)).await.expect("answers");
    store.hold(&key, &hold(true)).await.expect("answers");
    let standing = elsewhere.fetch(&key, None).await.expect("answers");
    assert!(standing.expect("installed").is_on_hold(), "held again");

    let delete = Delete::user(user.clone());
    for _ in 0..2 {
        store.delete(&key, &delete).await.expect("answers");
    }
    elsewhere.store(&installation()).await.expect("stored");
    store.delete(&key, &delete).await.expect("answers");
    let standing = elsewhere.fetch(&key, Some(&user)).await.expect("answers");
    assert!(standing.expect("installed").user.is_none(), "deleted");
}

/// A database that holds each commit twice: before it is applied, and before it returns.
#[derive(Debug)]
struct Held {
    inner: Arc<MemoryBackend>,
    before: Semaphore,
    carried_out: Semaphore,
    after: Semaphore,
}

impl Held {
    fn new(inner: &Arc<MemoryBackend>) -> Self {
        Self {
            inner: Arc::clone(inner),
            before: Semaphore::new(0),
            carried_out: Semaphore::new(0),
            after: Semaphore::new(0),
        }
    }
}

async fn passed(gate: &Semaphore) {
    gate.acquire().await.expect("never closed").forget();
}

#[async_trait]
impl Backend for Held {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        passed(&self.before).await;
        let outcome = self.inner.commit(partition, changes).await;
        self.carried_out.add_permits(1);
        passed(&self.after).await;
        outcome
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(from, limit).await
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        self.inner.due(now, limit).await
    }
}

/// Begins a commit that the database has not applied yet.
async fn begun(
    cache: &Arc<CachedBackend<Held>>,
    tenant: &Partition,
    change: Change,
) -> tokio::task::JoinHandle<Result<(), Error>> {
    let (cache, tenant) = (Arc::clone(cache), tenant.clone());
    let commit = tokio::spawn(async move { cache.commit(&tenant, &[change]).await });
    tokio::task::yield_now().await;
    commit
}

#[tokio::test]
async fn a_read_during_a_commit_is_not_kept() {
    let database = Arc::new(MemoryBackend::default());
    let cache = Arc::new(CachedBackend::new(
        Held::new(&database),
        CacheOptions::default(),
    ));
    let t1 = tenant("T1");
    let (old, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    let (new, change) = put(Expect::Version(old));
    let commit = begun(&cache, &t1, change).await;
    for _ in 0..2 {
        assert_eq!(version(&*cache, &t1).await, Some(old), "as it stands now");
    }
    cache.inner().before.add_permits(1);
    cache.inner().after.add_permits(1);
    commit.await.expect("no panic").expect("committed");
    assert_eq!(version(&*cache, &t1).await, Some(new));
}

#[tokio::test]
async fn a_read_during_a_commit_is_not_answered_with_what_was_kept_before_it() {
    let database = Arc::new(MemoryBackend::default());
    let cache = Arc::new(CachedBackend::new(
        Held::new(&database),
        CacheOptions::default(),
    ));
    let t1 = tenant("T1");
    let (old, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    assert_eq!(version(&*cache, &t1).await, Some(old));
    let (new, change) = put(Expect::Version(old));
    let commit = begun(&cache, &t1, change).await;
    cache.inner().before.add_permits(1);
    passed(&cache.inner().carried_out).await;
    assert_eq!(version(&*cache, &t1).await, Some(new), "it is applied");
    cache.inner().after.add_permits(1);
    commit.await.expect("no panic").expect("committed");
}

#[tokio::test]
async fn a_commit_of_nothing_empties_every_cache_on_its_way() {
    let database = Arc::new(MemoryBackend::default());
    let inner = CachedBackend::new(Arc::clone(&database), CacheOptions::default());
    let cache = CachedBackend::new(inner, CacheOptions::default());
    let t1 = tenant("T1");
    let (old, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    assert_eq!(version(&cache, &t1).await, Some(old));
    let cleared = database.commit(&t1, &[Change::Clear]).await;
    cleared.expect("committed");
    cache.commit(&t1, &[]).await.expect("committed");
    assert_eq!(version(&cache, &t1).await, None);
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_is_seen_all_the_same() {
    let database = Arc::new(MemoryBackend::default());
    let cache = Arc::new(CachedBackend::new(
        Held::new(&database),
        CacheOptions::default(),
    ));
    let t1 = tenant("T1");
    let (old, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    let (new, change) = put(Expect::Version(old));
    let commit = begun(&cache, &t1, change).await;
    assert_eq!(version(&*cache, &t1).await, Some(old));
    cache.inner().before.add_permits(1);
    passed(&cache.inner().carried_out).await;
    commit.abort();
    assert!(commit.await.expect_err("it was dropped").is_cancelled());
    assert_eq!(version(&*cache, &t1).await, Some(new));
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_empties_the_cache_of_that_tenant_only() {
    let database = Arc::new(MemoryBackend::default());
    let meddling = Arc::new(Meddling::new(Arc::clone(&database) as Arc<dyn Backend>));
    let cache = CachedBackend::new(Arc::clone(&meddling), CacheOptions::default());
    let (t1, t2) = (tenant("T1"), tenant("T2"));
    let (old, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    let (other, change) = put(Expect::Absent);
    database.commit(&t2, &[change]).await.expect("committed");
    for done in [false, true] {
        assert_eq!(version(&cache, &t1).await, Some(old));
        assert_eq!(version(&cache, &t2).await, Some(other));
        meddling.next([Fate::Lost {
            done,
            then: Box::pin(async {}),
        }]);
        let outcome = cache.commit(&t1, &[Change::Clear]).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
        assert_eq!(version(&cache, &t1).await, (!done).then_some(old));
    }
    // A change of T2 by another process is not seen yet: no commit here was for T2.
    database
        .commit(&t2, &[Change::Clear])
        .await
        .expect("committed");
    assert_eq!(version(&cache, &t2).await, Some(other), "from the cache");
    cache.commit(&t2, &[]).await.expect("nothing is asked");
    assert_eq!(version(&cache, &t2).await, None, "forgotten");
}

/// The age of an answer counts from before the database was asked.
#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_as_its_question() {
    let database = Arc::new(MemoryBackend::default());
    let cache = Arc::new(CachedBackend::new(
        Watched::new(&database),
        CacheOptions::default(),
    ));
    let t1 = tenant("T1");
    let (first, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    let watched = cache.inner();
    watched.released.forget_permits(Semaphore::MAX_PERMITS);
    let reader = tokio::spawn({
        let (cache, t1) = (Arc::clone(&cache), t1.clone());
        async move { version(&*cache, &t1).await }
    });
    passed(&watched.answered).await;
    tokio::time::advance(Duration::from_millis(1500)).await;
    watched.released.add_permits(1000);
    assert_eq!(reader.await.expect("no panic"), Some(first));
    tokio::time::advance(Duration::from_millis(499)).await;
    assert_eq!(version(&*cache, &t1).await, Some(first));
    assert_eq!(watched.reads.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(version(&*cache, &t1).await, Some(first));
    assert_eq!(watched.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_is_for_exactly_the_slots_that_were_asked_for() {
    let database = Arc::new(MemoryBackend::default());
    let cache = CachedBackend::new(Watched::new(&database), CacheOptions::default());
    let t1 = tenant("T1");
    let (standing, change) = put(Expect::Absent);
    database.commit(&t1, &[change]).await.expect("committed");
    let user = Slot::new("user/U1").expect("a name");
    for slots in [vec![bot(), user.clone()], vec![user, bot()], vec![bot()]] {
        for _ in 0..2 {
            let rows = cache.read(&t1, &slots).await.expect("answers");
            let found: Vec<_> = rows
                .iter()
                .map(|row| row.as_ref().map(|it| it.version))
                .collect();
            let wanted: Vec<_> = slots
                .iter()
                .map(|slot| (*slot == bot()).then_some(standing))
                .collect();
            assert_eq!(found, wanted);
        }
    }
    // Each answer is kept, also with an absent row.
    assert_eq!(cache.inner().reads.load(Ordering::SeqCst), 3);
}

#[test]
fn the_bounds_are_the_stated_ones() {
    let stated = CacheOptions {
        max_age: Duration::from_secs(2),
        max_answers: 10_000,
    };
    assert_eq!(CacheOptions::default(), stated);
}

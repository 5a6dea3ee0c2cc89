//! A tenant with many users, and an app with some tenants, in a database with very many other
//! tenants.
//!
//! `LARGE_TENANTS` is the number of other tenants; the default is 5,000.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot,
};
use slack_installs::{InstallationStore as _, LifecycleStore as _, LocalKeyProvider};

use crate::support::Db;
use crate::support::installs::{With as _, in_workspace, user_id, workspace_key};
use crate::support::providers::master_key;

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_one_query_and_no_page_of_a_list_is_empty_on_sqlite() {
    use slack_installs::backend::SqliteBackend;
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};

    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let path = directory.path().join("installations.sqlite3");
    let backend = SqliteBackend::open(&path).await;
    let backend = Arc::new(backend.expect("a new file can be created there"));
    large("sqlite", backend, async |crowd, _| {
        let options = SqliteConnectOptions::new().filename(&path);
        let mut file = options.connect().await.expect("the file is a database");
        let copy = "WITH RECURSIVE numbers (n) AS
               (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2)
             INSERT INTO slack_rows
             SELECT partition || n, slot, version, metadata, sealed, lane, due_at
             FROM numbers JOIN slack_rows ON partition = ?1";
        let copy = sqlx::query(copy).bind(crowd.as_str()).bind(others());
        copy.execute(&mut file).await.expect("the rows are new");
    })
    .await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_one_query_and_no_page_of_a_list_is_empty_on_postgres() {
    use crate::postgres::{Postgres, execute};
    use slack_installs::backend::{PostgresBackend, PostgresOptions};

    let server = Postgres::start().await;
    let url = server.database("large").await;
    let options = PostgresOptions {
        skip_durability_checks: true,
        ..PostgresOptions::default()
    };
    let backend = PostgresBackend::connect_with(&url, options).await;
    let backend = Arc::new(backend.expect("the server is available"));
    large("postgres", backend, async |crowd, _| {
        let copy = format!(
            "INSERT INTO slack_rows
             SELECT partition || n, slot, version, metadata, sealed, lane, due_at
             FROM generate_series(1, {}) AS n JOIN slack_rows ON partition = '{crowd}'",
            others()
        );
        execute(&url, &copy).await;
    })
    .await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_one_query_and_no_page_of_a_list_is_empty_on_redis() {
    let (backend, _server) = crate::redis_servers::alone().await;
    let backend = Arc::new(backend);
    let filled = Arc::clone(&backend);
    large("redis", backend, async |crowd, rows| {
        let changes: Arc<Vec<_>> = Arc::new(rows.into_iter().map(any).collect());
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..AT_ONCE {
            let (backend, changes, crowd) =
                (Arc::clone(&filled), Arc::clone(&changes), crowd.clone());
            tasks.spawn(async move {
                for nth in (lane..others()).step_by(AT_ONCE as usize) {
                    let tenant = Partition::new(format!("{crowd}{nth}")).expect("a name");
                    backend.commit(&tenant, &changes).await.expect("new rows");
                }
            });
        }
        tasks.join_all().await;
    })
    .await;
}

/// Fills a database, and checks which calls the store makes to it. `copy` copies the rows of this
/// partition to as many others as [`others`] returns. Their names begin with the partition's name.
async fn large<B: Backend, F: Future<Output = ()>>(
    name: &str,
    backend: Arc<B>,
    copy: impl FnOnce(Partition, Vec<(Slot, Row)>) -> F,
) {
    let backend: Arc<dyn Backend> = backend;
    let crowd = Db::new(Arc::clone(&backend));
    let one = in_workspace("T1")
        .with_bot("xoxb-1")
        .with_user("U1", "xoxp-1");
    crowd.store().await.store(&one).await.expect("stored");
    let tenant = Partition::new(format!("{}/T1", crowd.app)).expect("a name");
    let rows = crowd.rows().await.into_iter();
    let rows = rows.filter(|(key, _)| key.partition == tenant);
    let rows = rows.map(|(key, row)| (key.slot, row)).collect();
    copy(tenant, rows).await;

    let app = Db::new(Arc::clone(&backend));
    let counting = Arc::new(Counting::new(backend));
    let store = app.store_over(Arc::clone(&counting), provider()).await;
    let key = workspace_key("T1");
    let users: BTreeSet<_> = (0..USERS).map(|nth| user_id(&format!("U{nth}"))).collect();
    for user in &users {
        let one = in_workspace("T1").with_bot("xoxb-1");
        let one = one.with_user(user.as_str(), &format!("xoxp-{user}"));
        store.store(&one).await.expect("stored");
    }
    counting.take();
    let found = store.users(&key).await.expect("available");
    assert_eq!(found.len(), USERS);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), users);
    let tenant = Partition::new(format!("{}/T1", app.app)).expect("a name");
    assert_eq!(counting.take(), [Call::Scan(Scope::Partition(tenant))]);

    let small = Db::new(Arc::clone(&counting.inner));
    let store = small.store_over(Arc::clone(&counting), provider()).await;
    for nth in 0..TENANTS {
        let one = in_workspace(&format!("T{nth}")).with_bot("xoxb-1");
        store.store(&one).await.expect("stored");
    }
    for limit in [7, 70, 1000] {
        counting.take();
        let (mut seen, mut from) = (BTreeSet::new(), None);
        loop {
            let page = store.list(from, limit).await.expect("available");
            assert!(!page.installations.is_empty(), "{name}: by {limit}");
            for summary in page.installations {
                assert!(seen.insert(summary.home.key().to_string()));
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), TENANTS);
        // Each tenant has two rows, and no page reads rows of the others.
        let calls = counting.take().len();
        assert!(
            calls <= 2 * TENANTS / limit + 3,
            "{name}: {calls} by {limit}"
        );
        println!(
            "{name}: a list next to {} others is {calls} scans by {limit}",
            others()
        );
    }
}

fn provider() -> LocalKeyProvider {
    LocalKeyProvider::from(master_key())
}

/// Returns how many tenants the other app has.
fn others() -> u32 {
    let set = std::env::var("LARGE_TENANTS").ok();
    set.map_or(5000, |count| {
        count.parse().expect("LARGE_TENANTS is a number")
    })
}

#[cfg(feature = "redis")]
fn any((slot, row): (Slot, Row)) -> Change {
    let expect = slack_installs::backend::Expect::Any;
    Change::Put { slot, row, expect }
}

/// A call to the database.
#[derive(Debug, PartialEq)]
enum Call {
    Commit,
    Due,
    Read,
    Scan(Scope),
}

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Backend>,
    calls: Mutex<Vec<Call>>,
}

impl Counting {
    fn new(inner: Arc<dyn Backend>) -> Self {
        let calls = Mutex::default();
        Self { inner, calls }
    }

    fn note(&self, call: Call) {
        self.calls.lock().expect("no panic").push(call);
    }

    /// Returns the calls since the last `take`.
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("no panic"))
    }
}

#[async_trait]
impl Backend for Counting {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.note(Call::Read);
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.note(Call::Commit);
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.note(Call::Scan(scope.clone()));
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.note(Call::Due);
        self.inner.due(queue, now, from, limit).await
    }
}

#[cfg(feature = "redis")]
const AT_ONCE: u32 = 64;
const TENANTS: usize = 300;
const USERS: usize = 500;

//! Rule 17: rows that cannot be parsed.

use std::future::Future;
use std::pin::Pin;

use super::kit::{
    LAG_ATTEMPTS, LAG_PAUSE, Pages, Tenant, answer, assert_malformed, delete, due, put, row,
    seconds, slot, slots,
};
use crate::backend::{Backend, Change, Due, Error, Expect, Key, Lane, Prefix, Scope, Version};

/// Makes an existing row unparseable for the backend. The row keeps its partition, its slot, and
/// its place in a queue.
///
/// Only the test of a backend can do that, by direct access to the database. For example, it
/// replaces the row's version by a value of another length.
pub type Spoil<'a> = &'a (dyn Fn(Key) -> Spoiling<'a> + Send + Sync);

/// The future of a [`Spoil`] call.
pub type Spoiling<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Checks that a scan of any scope skips any number of malformed rows, and returns the key of each.
pub async fn rule_17_scan_skips_malformed_rows_and_returns_their_keys(
    backend: &dyn Backend,
    spoil: Spoil<'_>,
) {
    let tenant = Tenant::new(backend);
    let malformed = spoiled(&tenant, "malformed", 30, None, spoil).await;
    let sound = ["a", "malformed015x", "z"].map(slot);
    for name in &sound {
        tenant.plant(name).await;
    }
    let prefix = Prefix::new(tenant.partition.app()).expect("the name of an app is a valid prefix");
    for scope in [
        Scope::Partition(tenant.partition.clone()),
        Scope::Prefix(prefix),
        Scope::Everything,
    ] {
        for limit in [1, 7, 1000] {
            let mut pages = Pages::scan(backend, &scope, limit);
            let (mut rows, mut keys) = (Vec::new(), Vec::new());
            while let Some(page) = pages.next().await {
                rows.extend(page.rows);
                keys.extend(page.malformed);
            }
            let own = rows.into_iter().map(|(key, _)| key);
            let mut own: Vec<_> = own
                .filter(|key| key.partition == tenant.partition)
                .map(|key| key.slot)
                .collect();
            own.sort();
            assert_eq!(own, sound, "rows with a limit of {limit} in {scope:?}");
            assert_names(&keys, &malformed);
        }
    }
}

/// Checks that malformed rows do not block other rows, even if they were due first.
pub async fn rule_17_due_skips_malformed_rows_and_returns_their_keys(
    backend: &dyn Backend,
    spoil: Spoil<'_>,
) {
    let tenant = Tenant::new(backend);
    let lane = Lane::Refresh;
    let malformed = spoiled(&tenant, "malformed", 30, due(lane, 1), spoil).await;
    let sound = slot("sound");
    tenant.plant_due(&sound, due(lane, 2)).await;
    let queue = tenant.queue(lane);
    for limit in [1, 7, 1000] {
        let mut found = Vec::new();
        // The queue may lag, so it is read again. A backend without a lag is read once.
        for _ in 0..LAG_ATTEMPTS {
            let mut pages = Pages::due(backend, &queue, seconds(10), limit);
            let mut keys = Vec::new();
            while let Some(page) = pages.next().await {
                found.extend(page.rows.into_iter().map(|(key, _)| key));
                keys.extend(page.malformed);
            }
            if !found.is_empty() && keys.len() == malformed.len() {
                assert_names(&keys, &malformed);
                break;
            }
            found.clear();
            tokio::time::sleep(LAG_PAUSE).await;
        }
        assert_eq!(
            found,
            [tenant.key(&sound)],
            "the row after the malformed ones, with a limit of {limit}"
        );
    }
}

/// Checks that `read` returns an error for a malformed row, because it must not look absent.
pub async fn rule_17_read_of_a_malformed_row_is_malformed(backend: &dyn Backend, spoil: Spoil<'_>) {
    let tenant = Tenant::new(backend);
    let sound = tenant.plant(&slot("sound")).await;
    let malformed = spoiled(&tenant, "malformed", 1, None, spoil)
        .await
        .remove(0)
        .slot;
    for asked in [
        vec![malformed.clone()],
        vec![slot("sound"), malformed.clone()],
    ] {
        let outcome = answer(|| backend.read(&tenant.partition, &asked)).await;
        assert_malformed(&outcome);
    }
    let row = tenant.row(&slot("sound")).await;
    assert_eq!(row, Some(sound), "the other row can be read");
}

/// Checks that a change without an expectation, and `Clear`, replace or delete malformed rows.
pub async fn rule_17_a_malformed_row_can_be_replaced_and_deleted(
    backend: &dyn Backend,
    spoil: Spoil<'_>,
) {
    let tenant = Tenant::new(backend);
    let (queue, lane) = (tenant.queue(Lane::Notice), Lane::Notice);
    let malformed = spoiled(&tenant, "malformed", 4, due(lane, 1), spoil).await;
    let [put_over, deleted, beside, cleared] = [0, 1, 2, 3].map(|at| &malformed[at].slot);
    let expecting = [
        put(put_over, &row(), Expect::Absent),
        put(put_over, &row(), Expect::Version(Version::mint())),
        delete(deleted, Some(Version::mint())),
    ];
    for change in expecting {
        let outcome = commit(&tenant, &[change]).await;
        assert!(outcome.is_err(), "a malformed row meets no expectation");
    }
    let (new, receipt) = (row(), row());
    let changes = [
        put(put_over, &new, Expect::Any),
        delete(deleted, None),
        put(&slot("receipt"), &receipt, Expect::Any),
    ];
    commit(&tenant, &changes)
        .await
        .expect("a malformed row may be replaced");
    assert_eq!(tenant.row(put_over).await, Some(new));
    assert_eq!(tenant.row(deleted).await, None);

    let last = row();
    let changes = [Change::Clear, put(beside, &last, Expect::Any)];
    commit(&tenant, &changes)
        .await
        .expect("a malformed row may be cleared");
    assert_eq!(tenant.row(beside).await, Some(last));
    assert_eq!(tenant.row(cleared).await, None);
    assert_eq!(tenant.row(put_over).await, None);
    // No queue lists them any longer.
    for _ in 0..LAG_ATTEMPTS {
        let mut pages = Pages::due(backend, &queue, seconds(10), 1000);
        let mut left = 0;
        while let Some(page) = pages.next().await {
            left += page.malformed.len() + page.rows.len();
        }
        if left == 0 {
            return;
        }
        tokio::time::sleep(LAG_PAUSE).await;
    }
    panic!("rows that were replaced or deleted are still due");
}

/// Commits, and retries if the response is lost. For changes that may be applied twice.
async fn commit(tenant: &Tenant<'_>, changes: &[Change]) -> Result<(), Error> {
    answer(|| tenant.backend.commit(&tenant.partition, changes)).await
}

/// Puts rows and spoils them.
async fn spoiled(
    tenant: &Tenant<'_>,
    prefix: &str,
    count: usize,
    due: Option<Due>,
    spoil: Spoil<'_>,
) -> Vec<Key> {
    tenant.plant_many(prefix, count, due).await;
    let keys: Vec<_> = slots(prefix, count)
        .iter()
        .map(|name| tenant.key(name))
        .collect();
    for key in &keys {
        spoil(key.clone()).await;
    }
    keys
}

/// Asserts that these texts name each of these rows once. Other rows may also be malformed.
#[track_caller]
fn assert_names(texts: &[String], keys: &[Key]) {
    for key in keys {
        let named = texts.iter().filter(|text| **text == key.to_string());
        assert_eq!(
            named.count(),
            1,
            "{key} must be returned as malformed exactly once"
        );
    }
}

//! Copies rows to another backend, page by page, and repeats a page when a database fails.

use slack_installs::backend::{Backend, Key, Row};
use slack_installs::store::ListCursor;
use slack_installs::{Copied, EncryptedStore, KeyringError, Pruned};

use super::{Db, all_rows};

/// Copies every page.
pub async fn copy<B: Backend>(
    store: &EncryptedStore<B>,
    target: &dyn Backend,
    limit: usize,
) -> Copied {
    let mut all = Copied::default();
    let mut from: Option<ListCursor> = None;
    for _ in 0..ATTEMPTS {
        let Some(page) = unless_away(store.copy_to(target, from.clone(), limit).await) else {
            continue;
        };
        all.copied += page.copied;
        all.present += page.present;
        all.replaced += page.replaced;
        all.refused.extend(page.refused);
        from = page.next;
        if from.is_none() {
            return all;
        }
    }
    panic!("not done after {ATTEMPTS} attempts");
}

/// Prunes every page.
pub async fn prune<B: Backend>(
    store: &EncryptedStore<B>,
    target: &dyn Backend,
    limit: usize,
) -> Pruned {
    let mut all = Pruned::default();
    let mut from: Option<ListCursor> = None;
    for _ in 0..ATTEMPTS {
        let Some(page) = unless_away(store.prune(target, from.clone(), limit).await) else {
            continue;
        };
        all.kept += page.kept;
        all.removed += page.removed;
        from = page.next;
        if from.is_none() {
            return all;
        }
    }
    panic!("not done after {ATTEMPTS} attempts");
}

/// Returns the app's rows in another backend, without the note that exists while a copy is in
/// progress.
pub async fn rows_of(db: &Db, backend: &dyn Backend) -> Vec<(Key, Row)> {
    let ours = format!("{}/", db.app);
    let mut rows = all_rows(backend).await;
    rows.retain(|(key, _)| {
        key.partition.as_str().starts_with(&ours) && key.slot.as_str() != "copying"
    });
    rows
}

fn unless_away<T>(outcome: Result<T, KeyringError>) -> Option<T> {
    match outcome {
        Ok(page) => Some(page),
        Err(error) if error.is_transient() => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// More than the pages of any of these tests, including the lost ones.
const ATTEMPTS: usize = 1000;

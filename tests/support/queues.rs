//! Scopes and queues of the app `app`, for the backends' own tests.

use std::time::SystemTime;

use slack_installs::backend::{Backend, Due, Error, Lane, Page, Queue, Row, Scope};

/// Returns the queue of refreshes of `app`.
pub fn refreshes() -> Queue {
    Queue::new("app", Lane::Refresh).expect("a plain name")
}

/// Returns an entry of the queue of refreshes, due at this time.
pub fn refresh_at(at: SystemTime) -> Option<Due> {
    let lane = Lane::Refresh;
    Some(Due { lane, at })
}

/// Returns the first page of all rows.
pub async fn scanned(backend: &dyn Backend, limit: usize) -> Result<Page, Error> {
    backend.scan(&Scope::Everything, None, limit).await
}

/// Returns the due rows of all lanes of `app`, read page by page.
pub async fn all_due(backend: &dyn Backend, now: SystemTime) -> Vec<(String, String, Row)> {
    let mut found = Vec::new();
    for lane in Lane::ALL {
        let queue = Queue::new("app", lane).expect("a plain name");
        let mut from = None;
        loop {
            let page = backend.due(&queue, now, from, 7).await;
            let page = page.expect("the backend is available");
            assert!(page.malformed.is_empty(), "{:?}", page.malformed);
            for (key, row) in page.rows {
                assert!(queue.contains(&key.partition, &row), "{lane}: {row:?}");
                let (partition, slot) = (key.partition.to_string(), key.slot.to_string());
                found.push((partition, slot, row));
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    found
}

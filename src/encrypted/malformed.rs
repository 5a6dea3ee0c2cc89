//! Logs each row that cannot be parsed once. Such rows are skipped.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::names::tenant_of;
use crate::backend::{Key, Page};

/// The malformed rows that were already logged.
#[derive(Debug, Default)]
pub(super) struct MalformedRows(Mutex<HashSet<String>>);

impl MalformedRows {
    /// Logs the malformed rows of a page, each once per process.
    pub(super) fn report(&self, page: &Page) {
        for key in self.new_ones(&page.malformed) {
            let parsed = Key::parse(key);
            let tenant = parsed.and_then(|key| tenant_of(&key.partition));
            tracing::error!(
                tenant = tenant.map(display),
                row = key,
                "a row cannot be parsed and is skipped"
            );
        }
    }

    /// Returns the keys that were not logged before. After [`MOST`] keys, returns none.
    fn new_ones<'a>(&self, keys: &'a [String]) -> Vec<&'a String> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter()
            .filter(|key| reported.len() < MOST && reported.insert((*key).clone()))
            .collect()
    }
}

/// The maximum number of keys that are logged, because they are kept in memory.
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_malformed_row_is_reported_once_and_a_thousand_at_most() {
        let malformed = MalformedRows::default();
        let keys: Vec<_> = (0..1500).map(|nth| format!("app/T{nth} bot")).collect();
        assert_eq!(malformed.new_ones(&keys[..2]), [&keys[0], &keys[1]]);
        assert_eq!(malformed.new_ones(&keys[1..3]), [&keys[2]]);
        assert_eq!(malformed.new_ones(&keys).len(), 997);
        assert_eq!(malformed.new_ones(&keys), [""; 0]);
    }
}

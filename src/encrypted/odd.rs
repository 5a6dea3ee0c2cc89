//! Rows that cannot be parsed: each is named once in the log, and skipped.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::backend::Page;

/// The odd rows that were reported.
#[derive(Debug, Default)]
pub(super) struct OddRows(Mutex<HashSet<String>>);

impl OddRows {
    /// Reports the odd rows of a page, each once in the life of the process.
    pub(super) fn report(&self, page: &Page) {
        if page.odd.is_empty() {
            return;
        }
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &page.odd {
            if reported.len() >= MOST || !reported.insert(key.clone()) {
                continue;
            }
            tracing::error!(row = key, "a row cannot be parsed and is skipped");
            if reported.len() == MOST {
                tracing::error!("no more rows that cannot be parsed are reported");
            }
        }
    }
}

/// Reported at most: they are kept in memory.
const MOST: usize = 1000;

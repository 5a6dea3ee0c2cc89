//! Rows that are damaged, or not of this crate's making: each is named, and none keeps others back.

use super::{BoxError, Error, Key, Row};

/// Which row is malformed.
#[derive(Debug, thiserror::Error)]
#[error("the row {} of {}", key.slot, key.partition)]
struct OddRow {
    key: Key,
    source: BoxError,
}

/// The same error, with the row's name if it is about the row.
pub(super) fn named(key: &Key, error: Error) -> Error {
    let key = key.clone();
    match error {
        Error::Malformed(source) => Error::Malformed(Box::new(OddRow { key, source })),
        other => other,
    }
}

/// The rows that are as they should be. Of the others one hears in the log.
pub(super) fn sound(rows: impl IntoIterator<Item = Result<(Key, Row), Error>>) -> Vec<(Key, Row)> {
    let warn = |error: &Error| {
        let row = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(row, "a row that is due is left out: it is malformed");
    };
    rows.into_iter()
        .filter_map(|row| row.inspect_err(warn).ok())
        .collect()
}

//! All tenants of an app, page by page: workspaces first, then organisations. What else the app
//! keeps (states, handled requests, keys) is not read.

use super::EncryptedStore;
use crate::backend::{Backend, Cursor, Key, Row};
use crate::store::{Error, ListCursor};

/// The first letters of the names of tenants' partitions, in the order of the listing.
const LETTERS: [&str; 2] = ["T", "E"];

/// Rows of tenants, and where the next page starts.
pub(super) type Rows = (Vec<(Key, Row)>, Option<ListCursor>);

impl<B: Backend> EncryptedStore<B> {
    /// A page of the rows of all tenants. Where the workspaces end, it goes on with the
    /// organisations, so that no page is empty for that.
    pub(super) async fn tenants(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Rows, Error> {
        let limit = limit.max(1);
        let (mut nth, mut from) = match from {
            Some(from) => place(&from)?,
            None => (0, None),
        };
        let mut rows = Vec::new();
        loop {
            let scope = self.driver.app.named(LETTERS[nth]);
            let page = self.driver.scan(&scope, from, limit - rows.len()).await?;
            rows.extend(page.rows);
            if let Some(next) = page.next {
                return Ok((rows, Some(cursor(nth, Some(next)))));
            }
            nth += 1;
            if nth == LETTERS.len() {
                return Ok((rows, None));
            }
            if rows.len() >= limit {
                return Ok((rows, Some(cursor(nth, None))));
            }
            from = None;
        }
    }
}

/// The cursor of the place within the `nth` letter. The beginning has none.
fn cursor(nth: usize, from: Option<Cursor>) -> ListCursor {
    let letter = LETTERS[nth];
    ListCursor(match from {
        Some(Cursor(from)) => format!("{letter} {from}"),
        None => letter.to_owned(),
    })
}

/// Reads what [`cursor`] wrote.
fn place(ListCursor(from): &ListCursor) -> Result<(usize, Option<Cursor>), Error> {
    let (letter, from) = match from.split_once(' ') {
        Some((letter, from)) => (letter, Some(Cursor(from.to_owned()))),
        None => (from.as_str(), None),
    };
    let nth = LETTERS.iter().position(|it| *it == letter);
    let nth = nth.ok_or_else(|| Error::Unreadable("not a cursor of a listing".into()))?;
    Ok((nth, from))
}

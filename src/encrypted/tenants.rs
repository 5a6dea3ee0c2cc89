//! Lists all tenants of an app in pages: workspaces first, then organisations. Other rows of the
//! app, such as states, handled requests and data keys, are not read.

use super::EncryptedStore;
use crate::backend::{Backend, Cursor, Key, Row};
use crate::store::{Error, ListCursor};

/// The first letters of the tenants' ids, in the order of the listing.
const LETTERS: [&str; 2] = ["T", "E"];

/// Rows of tenants, and the cursor of the next page.
pub(super) type Rows = (Vec<(Key, Row)>, Option<ListCursor>);

/// Rows of tenants, the rows that cannot be parsed, and the cursor of the next page.
pub(super) type TenantPage = (Vec<(Key, Row)>, Vec<String>, Option<ListCursor>);

impl<B: Backend> EncryptedStore<B> {
    /// Returns a page of the rows of all tenants. If the workspaces end within a page, the page
    /// continues with organisations, so it is not empty for that reason.
    pub(super) async fn tenants(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Rows, Error> {
        let (rows, _, next) = self.tenant_page(from, limit).await?;
        Ok((rows, next))
    }

    /// As [`tenants`](Self::tenants). Also returns the rows that cannot be parsed.
    pub(super) async fn tenant_page(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<TenantPage, Error> {
        let limit = limit.max(1);
        let (mut nth, mut from) = match from {
            Some(from) => place(&from)?,
            None => (0, None),
        };
        let (mut rows, mut malformed) = (Vec::new(), Vec::new());
        loop {
            let scope = self.driver.app.named(LETTERS[nth]);
            let page = self
                .driver
                .scan(&scope, from, limit - rows.len() - malformed.len())
                .await?;
            rows.extend(page.rows);
            malformed.extend(page.malformed);
            if let Some(next) = page.next {
                return Ok((rows, malformed, Some(cursor(nth, Some(next)))));
            }
            nth += 1;
            if nth == LETTERS.len() {
                return Ok((rows, malformed, None));
            }
            if rows.len() + malformed.len() >= limit {
                return Ok((rows, malformed, Some(cursor(nth, None))));
            }
            from = None;
        }
    }
}

/// Makes the cursor of a position within the `nth` letter. The beginning has no inner cursor.
fn cursor(nth: usize, from: Option<Cursor>) -> ListCursor {
    let letter = LETTERS[nth];
    ListCursor(match from {
        Some(Cursor(from)) => format!("{letter} {from}"),
        None => letter.to_owned(),
    })
}

#[cfg(any(test, fuzzing))]
/// Parses any text as a cursor, for the fuzz target.
pub(super) fn fuzz_cursor(from: &ListCursor) {
    if let Ok((nth, inner)) = place(from) {
        assert_eq!(cursor(nth, inner), *from);
    }
}

/// Parses a cursor that [`cursor`] made.
fn place(ListCursor(from): &ListCursor) -> Result<(usize, Option<Cursor>), Error> {
    let (letter, from) = match from.split_once(' ') {
        Some((letter, from)) => (letter, Some(Cursor(from.to_owned()))),
        None => (from.as_str(), None),
    };
    let nth = LETTERS.iter().position(|it| *it == letter);
    let nth =
        nth.ok_or_else(|| Error::Unreadable("the cursor is not from a listing of tenants".into()))?;
    Ok((nth, from))
}

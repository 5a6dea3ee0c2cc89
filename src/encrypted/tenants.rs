//! All tenants of an app, page by page: workspaces first, then organisations. What else the app
//! keeps (states, handled requests, keys) is not read.

use super::EncryptedStore;
use crate::backend::{Backend, Cursor, Key, Prefix, Row, Scope};
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
        let (mut nth, mut from) = match from {
            Some(from) => place(&from)?,
            None => (0, None),
        };
        let mut rows = Vec::new();
        loop {
            let letter = LETTERS[nth];
            let prefix = Prefix::new(format!("{}/{letter}", self.driver.app()));
            let scope = Scope::Prefix(prefix.expect("client ids are short and plain"));
            let left = limit.max(1) - rows.len();
            let page = self.driver.scan(&scope, from, left).await?;
            rows.extend(page.rows);
            if let Some(Cursor(next)) = page.next {
                return Ok((rows, Some(ListCursor(format!("{letter} {next}")))));
            }
            nth += 1;
            let Some(letter) = LETTERS.get(nth) else {
                return Ok((rows, None));
            };
            if rows.len() >= limit.max(1) {
                return Ok((rows, Some(ListCursor((*letter).to_owned()))));
            }
            from = None;
        }
    }
}

/// Which letter a listing is at, and the place within it.
fn place(ListCursor(from): &ListCursor) -> Result<(usize, Option<Cursor>), Error> {
    let (letter, from) = match from.split_once(' ') {
        Some((letter, from)) => (letter, Some(Cursor(from.to_owned()))),
        None => (from.as_str(), None),
    };
    match LETTERS.iter().position(|it| *it == letter) {
        Some(nth) => Ok((nth, from)),
        None => Err(Error::Unreadable("not a cursor of a listing".into())),
    }
}

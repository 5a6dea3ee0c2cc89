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
    /// A page of the rows of all tenants.
    pub(super) async fn tenants(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Rows, Error> {
        let (nth, from) = match from {
            Some(from) => place(&from)?,
            None => (0, None),
        };
        let prefix = Prefix::new(format!("{}/{}", self.driver.app(), LETTERS[nth]));
        let prefix = prefix.expect("client ids are short and plain");
        let page = self
            .driver
            .scan(&Scope::Prefix(prefix), from, limit)
            .await?;
        let next = match page.next {
            Some(Cursor(next)) => Some(format!("{} {next}", LETTERS[nth])),
            None => LETTERS.get(nth + 1).map(ToString::to_string),
        };
        Ok((page.rows, next.map(ListCursor)))
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

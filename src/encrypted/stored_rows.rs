//! Lists the versions of the rows of tenants.

use async_trait::async_trait;

use super::EncryptedStore;
use super::names::tenant_of;
use super::record::revision;
use crate::backend::Backend;
use crate::store::{Error, ListCursor, RowPage, StoredRow, StoredRows};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> StoredRows for EncryptedStore<B> {
    async fn stored_rows(&self, from: Option<ListCursor>) -> Result<RowPage, Error> {
        let (rows, next) = self.tenants(from, PAGE).await?;
        let rows = rows.into_iter().filter_map(|(key, row)| {
            Some(StoredRow {
                tenant: tenant_of(&key.partition)?,
                row: key.slot.to_string(),
                version: revision(&row),
            })
        });
        Ok(RowPage {
            rows: rows.collect(),
            next,
        })
    }
}

/// The rows of a page. An installation has up to 320 KiB.
const PAGE: usize = 100;

//! The versions of the rows of tenants, for a comparison with the audit log.

use async_trait::async_trait;

use super::{Error, ListCursor};
use crate::installation::Revision;
use crate::tenant::InstallationKey;

/// Lists the versions of all rows of tenants. Opens no row.
///
/// # Errors
///
/// [`Error::Unavailable`], if the database does not respond.
///
/// # Cancel safety
///
/// Changes nothing. You can drop a call at any point.
#[async_trait]
pub trait StoredRows: Send + Sync + 'static {
    /// Returns a page of the rows.
    async fn stored_rows(&self, from: Option<ListCursor>) -> Result<RowPage, Error>;
}

/// A page of the rows of tenants.
#[derive(Clone, Debug, Default)]
pub struct RowPage {
    /// The rows.
    pub rows: Vec<StoredRow>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

/// One row of a tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredRow {
    /// The tenant.
    pub tenant: InstallationKey,
    /// The row, as an [`Act`](super::Act) names it.
    pub row: String,
    /// Its version.
    pub version: Revision,
}

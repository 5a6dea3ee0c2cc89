//! Fuzz target: the cursors of listings, and the names of partitions.

use super::names::tenant_of;
use super::tenants;
use crate::backend::Partition;
use crate::store::ListCursor;

pub(crate) fn cursor(text: &str) {
    tenants::fuzz_cursor(&ListCursor(text.to_owned()));
    if let Ok(partition) = Partition::new(format!("1.2/{text}"))
        && let Some(tenant) = tenant_of(&partition)
    {
        assert_eq!(tenant.to_string(), text, "two names for one tenant");
    }
}

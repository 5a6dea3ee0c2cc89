//! The app's own table. Its rows are deleted when their workspace removes the app.

use std::time::{SystemTime, UNIX_EPOCH};

use slack_installs::prelude::*;
use sqlx::PgPool;

use super::Result;

/// The app's own data. Each row has the key of its tenant, and each query names one tenant.
#[derive(Clone, Debug)]
pub(crate) struct Notes(PgPool);

impl Notes {
    /// Opens the table. Creates it if it does not exist.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let pool = PgPool::connect(url).await?;
        // In your own app, use migrations. The lock is for processes that start at the same time.
        let create = "BEGIN; SELECT pg_advisory_xact_lock(1);
            CREATE TABLE IF NOT EXISTS notes
              (tenant text NOT NULL, written_at bigint NOT NULL, note text NOT NULL);
            CREATE INDEX IF NOT EXISTS notes_tenant ON notes (tenant); COMMIT";
        sqlx::raw_sql(create).execute(&pool).await?;
        Ok(Self(pool))
    }

    /// Stores a note. Returns the number of this tenant's notes.
    pub(crate) async fn add(&self, tenant: &InstallationKey, note: &str) -> Result<i64> {
        let insert = "INSERT INTO notes (tenant, written_at, note) VALUES ($1, $2, $3)";
        let insert = sqlx::query(insert).bind(tenant.to_string());
        let insert = insert.bind(seconds(SystemTime::now())).bind(note);
        insert.execute(&self.0).await?;
        let count = sqlx::query_scalar("SELECT count(*) FROM notes WHERE tenant = $1");
        Ok(count.bind(tenant.to_string()).fetch_one(&self.0).await?)
    }
}

/// Called at least once for each departure, even if this process ends during a call.
#[async_trait::async_trait]
impl LifecycleHooks for Notes {
    async fn uninstalled(&self, departure: &Departure, _is_installed_again: bool) -> Result<()> {
        // Later notes belong to a new installation, or to a request that was already in progress.
        let delete = sqlx::query("DELETE FROM notes WHERE tenant = $1 AND written_at <= $2");
        let delete = delete.bind(departure.key.to_string());
        delete.bind(seconds(departure.at)).execute(&self.0).await?;
        tracing::info!(tenant = %departure.key, reason = departure.reason, "notes deleted");
        Ok(())
    }
}

/// Returns whole seconds since 1970, because a departure's time has whole seconds.
fn seconds(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_secs().cast_signed()
}

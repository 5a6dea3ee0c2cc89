//! The bare side: the rows of one tenant by one statement or command of the driver, made into
//! owned values, and nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use slack_installs::backend::{Backend as _, MemoryBackend, Partition, Slot};
use sqlx::{PgPool, SqlitePool};

use super::app;
use super::fill::team;

/// A way to get at one of the tenants.
#[async_trait]
pub(crate) trait Side: Send + Sync {
    /// How many bytes came back, so that no answer can be left unread.
    async fn get(&self, tenant: usize) -> usize;
}

pub(crate) struct Memory(pub(crate) Arc<MemoryBackend>);

#[async_trait]
impl Side for Memory {
    async fn get(&self, tenant: usize) -> usize {
        let partition = Partition::new(partition(tenant)).unwrap();
        let slots = ["install", "bot"].map(|slot| Slot::new(slot).unwrap());
        let rows = self.0.read(&partition, &slots).await.unwrap();
        rows.iter()
            .flatten()
            .map(|row| row.sealed.as_bytes().len())
            .sum()
    }
}

pub(crate) struct Sqlite(pub(crate) SqlitePool);

#[async_trait]
impl Side for Sqlite {
    async fn get(&self, tenant: usize) -> usize {
        let query = sqlx::query_as(
            "SELECT slot, version, metadata, sealed, due_at FROM slack_rows \
             WHERE partition = ?1 AND slot IN ('install', 'bot')",
        );
        bytes(
            &query
                .bind(partition(tenant))
                .fetch_all(&self.0)
                .await
                .unwrap(),
        )
    }
}

pub(crate) struct Postgres(pub(crate) PgPool);

#[async_trait]
impl Side for Postgres {
    async fn get(&self, tenant: usize) -> usize {
        let query = sqlx::query_as(
            "SELECT slot, version, metadata::text, sealed, due_at FROM slack_rows \
             WHERE partition = $1 AND slot IN ('install', 'bot')",
        );
        bytes(
            &query
                .bind(partition(tenant))
                .fetch_all(&self.0)
                .await
                .unwrap(),
        )
    }
}

pub(crate) struct Redis {
    pub(crate) connection: MultiplexedConnection,
    /// What the names of the hashes begin with, by shard.
    pub(crate) prefix: String,
}

#[async_trait]
impl Side for Redis {
    async fn get(&self, tenant: usize) -> usize {
        let mut connection = self.connection.clone();
        let key = self.key(&partition(tenant));
        let values: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
            .arg(key)
            .arg("install")
            .arg("bot")
            .query_async(&mut connection)
            .await
            .unwrap();
        values.iter().flatten().map(Vec::len).sum()
    }
}

impl Redis {
    /// As `RedisBackend` says.
    fn key(&self, partition: &str) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, partition.as_bytes());
        let shard = digest.as_ref()[0] % 128;
        format!("{{{}:{shard:02x}}}:rows:{partition}", self.prefix)
    }
}

type Columns = (String, Vec<u8>, String, Vec<u8>, Option<i64>);

fn bytes(rows: &[Columns]) -> usize {
    let row = |row: &Columns| row.1.len() + row.2.len() + row.3.len();
    rows.iter().map(row).sum()
}

fn partition(tenant: usize) -> String {
    format!("{}/{}", app(), team(tenant))
}

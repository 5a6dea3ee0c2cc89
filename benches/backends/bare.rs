//! The bare side: reads the rows of one tenant into owned values, with one statement or command of
//! the driver.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use slack_installs::backend::{Backend as _, MemoryBackend, Partition, Slot};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, PgPool, SqlitePool};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::app;
use super::fill::team;

/// A way to read a tenant.
#[async_trait]
pub(crate) trait Side: Send + Sync {
    /// Reads a tenant. Returns the number of bytes read, so that the result is never left unread.
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
        let query = sqlx::query_as(SQLITE).bind(partition(tenant));
        bytes(&query.fetch_all(&self.0).await.unwrap())
    }
}

pub(crate) struct SqliteHeld(pub(crate) Held<SqliteConnection>);

#[async_trait]
impl Side for SqliteHeld {
    async fn get(&self, tenant: usize) -> usize {
        let query = sqlx::query_as(SQLITE).bind(partition(tenant));
        let (_place, mut connection) = self.0.take().await;
        let rows = query.fetch_all(&mut connection).await.unwrap();
        self.0.give_back(connection);
        bytes(&rows)
    }
}

pub(crate) struct Postgres(pub(crate) PgPool);

#[async_trait]
impl Side for Postgres {
    async fn get(&self, tenant: usize) -> usize {
        let query = sqlx::query_as(POSTGRES).bind(partition(tenant));
        bytes(&query.fetch_all(&self.0).await.unwrap())
    }
}

pub(crate) struct PostgresHeld(pub(crate) Held<PgConnection>);

#[async_trait]
impl Side for PostgresHeld {
    async fn get(&self, tenant: usize) -> usize {
        let query = sqlx::query_as(POSTGRES).bind(partition(tenant));
        let (_place, mut connection) = self.0.take().await;
        let rows = query.fetch_all(&mut connection).await.unwrap();
        self.0.give_back(connection);
        bytes(&rows)
    }
}

/// As many connections as the pool has, without the work of a pool per call. sqlx's pool tests each
/// connection when it is returned.
pub(crate) struct Held<C> {
    connections: Mutex<Vec<C>>,
    places: Semaphore,
}

impl<C: Connection> Held<C> {
    pub(crate) async fn open<O>(options: &O, number: u32) -> Self
    where
        O: ConnectOptions<Connection = C>,
    {
        let mut connections = Vec::new();
        for _ in 0..number {
            connections.push(options.connect().await.unwrap());
        }
        Self {
            places: Semaphore::new(connections.len()),
            connections: Mutex::new(connections),
        }
    }

    async fn take(&self) -> (SemaphorePermit<'_>, C) {
        let place = self.places.acquire().await.unwrap();
        (place, self.connections.lock().unwrap().pop().unwrap())
    }

    fn give_back(&self, connection: C) {
        self.connections.lock().unwrap().push(connection);
    }
}

pub(crate) struct Redis {
    pub(crate) connection: MultiplexedConnection,
    /// The prefix of all keys.
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
    /// Returns the key of a partition's rows, as `RedisBackend` documents it.
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

const POSTGRES: &str = "
SELECT slot, version, metadata::text, sealed, due_at FROM slack_rows
WHERE partition = $1 AND slot IN ('install', 'bot')";

const SQLITE: &str = "
SELECT slot, version, metadata, sealed, due_at FROM slack_rows
WHERE partition = ?1 AND slot IN ('install', 'bot')";

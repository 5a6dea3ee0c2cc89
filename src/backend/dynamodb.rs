//! Stores rows in one table of Amazon DynamoDB.
//!
//! # Items
//!
//! A row is one item with these attributes: partition key `pk`, sort key `sk` (the slot), `version`
//! (16 bytes), `metadata` (text) and `sealed` (bytes). A row that is ever due also has `due_queue`
//! (`<lane> <shard> <app>`) and `due_key` (`<seconds> <pk> <sk>`). The sparse index `due` lists
//! rows by these two.
//!
//! # Clearing a partition
//!
//! A transaction takes 100 items, and a partition may have more. So a `Clear` first marks the rows
//! one by one, which changes nothing for readers. Then one write declares that all rows with its
//! mark are cleared:
//!
//! 1. *Claim*: create the item `{clear}` of the partition, with a fresh id. Only one claim can
//!    exist at a time.
//! 2. *Mark*: list the rows. Add the id to `cleared_by` of each row, if the row has the version
//!    that was listed.
//! 3. *Settle*: if the claim is still ours and pending, set `clear_done` in it. The same
//!    transaction writes the rows that the commit puts. The commit is applied at this moment.
//! 4. *Remove*: delete the marked rows, then the claim.
//!
//! These rules make it one commit for every other process:
//!
//! * **A row exists unless it has the id of a claim that is done.** So a row without marks exists,
//!   and needs no further read. A row with marks and the claim are read in one transaction.
//! * **A claim that is done is deleted only after every row that has its id.** Marks are only
//!   added, never removed or replaced; only a new row in the same slot has none. So a late mark of
//!   a process that lost its claim adds an id that is never done.
//! * **While a claim is pending, no new row is created**: a write that may create a row checks the
//!   claim in the same transaction. So the list of rows is complete.
//! * **A row with marks is changed only together with a check of the claim**: the claim is
//!   unchanged or absent, and never pending. So a marked row is unchanged when the claim is
//!   settled.
//! * **Any process may delete a pending claim** that is not settled within some seconds; the rows
//!   that it marked still exist. Any process may finish the work of a claim that is done. So a
//!   process that ends midway leaves no lock and no half-cleared partition.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
use aws_sdk_dynamodb::config::SharedHttpClient;

use self::checks::Writers;
use self::item::{CLAIM, Claim, Item, SK, Stored};
use self::table::Table;
use super::{
    Backend, Change, ConnectError, Cursor, Error, Key, Page, Partition, Queue, Row, Scope, Slot,
};

mod checks;
mod claim;
mod clear;
mod commit;
mod cursor;
mod due;
mod http;
mod item;
mod open;
mod refusal;
mod schema;
mod table;
mod url;
mod write;

#[cfg(any(test, fuzzing))]
pub(super) use cursor::fuzz_cursor;

/// Stores rows in one table of Amazon DynamoDB. Any number of processes may share the table.
///
/// Create the table with [`create_table`](Self::create_table), or from the text of
/// [`cloud_formation`](Self::cloud_formation) or [`terraform`](Self::terraform).
///
/// ```no_run
/// # use aws_sdk_dynamodb::config::Builder;
/// # async fn example(config: Builder) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::backend::DynamoDbBackend;
///
/// // With the crate aws-config: `aws_config::defaults(…).http_client(…).load().await`, and
/// // `aws_sdk_dynamodb::Client::new(&config)`.
/// let config = config.http_client(DynamoDbBackend::https_client()).build();
/// let client = aws_sdk_dynamodb::Client::from_conf(config);
/// let backend = DynamoDbBackend::connect(&client, "slack-installs").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Consistency
///
/// All reads are strongly consistent, except those of the index `due`. Rows that the index lists
/// are read from the table before they are returned. Several rows are read at one moment
/// (`TransactGetItems`).
///
/// The table must be in one region. A global table of eventual consistency is refused, in either
/// version of DynamoDB's global tables: its last writer wins, and the version that the writer
/// expected is ignored. The exception is a table that [only one region
/// writes](Self::connect_as_only_writer). A global table of strong consistency is refused, because
/// DynamoDB has no transactions there.
///
/// # Cost
///
/// In request units of an on-demand table, for items of up to 1 KB (a write) or 4 KB (a read). A
/// larger item costs a multiple of that.
///
/// | call | units |
/// |---|---|
/// | `read` of one slot | 1 read |
/// | `read` of *n* slots | 2 *n* read |
/// | `commit` that changes one row of a known version, or deletes one row | 1 write |
/// | `commit` that may create one row (`Expect::Absent`, `Expect::Any`) | 4 write |
/// | `commit` of *n* changes | 2 *n* write, and 2 if one of them may create a row |
/// | `commit` that clears *n* rows | *n* / 4 read, 2 *n* + 3 write, and 2 for each row put |
/// | `scan` of one partition | 1 read for 4 KB of its rows |
/// | `scan` of a prefix, or of everything | 1 read for 4 KB of the table, with all apps' rows |
/// | `due` | 8 read, and 1 for each row returned |
/// | a change of the due time | 1 write in the index; 2 if it was set before |
///
/// An idle process checks for due refreshes every 2 seconds: about 10 million read units a month.
///
/// # Limits
///
/// The limits of the [contract](Backend#contract). They follow from DynamoDB's limits: 400 KB per
/// item, and 100 items and 4 MB per transaction. A larger request is [`Error::Malformed`].
///
/// # Errors
///
/// If DynamoDB refuses a call temporarily (throttling, or a transaction in conflict with another),
/// the call is retried for about two seconds. The pauses are of random length. After that it is
/// [`Error::Unavailable`]. A call without a response within 5 seconds is [`Error::Unavailable`]
/// too, unless the client has its own timeouts; of these calls, only reads are retried. The
/// client's own retries are off. A missing permission is also [`Error::Unavailable`].
///
/// # Permissions
///
/// On the table: `dynamodb:BatchGetItem`, `ConditionCheckItem`, `DeleteItem`,
/// `DescribeContinuousBackups`, `DescribeTable`, `DescribeTimeToLive`, `GetItem`, `PutItem`,
/// `Query`, `Scan`, `UpdateItem`. On the global table of the same name: `DescribeGlobalTable`. If
/// `DescribeTimeToLive` or `DescribeGlobalTable` is not allowed, that check is skipped, and a
/// warning is logged (`tracing`). On its index (`…/index/due`): `dynamodb:Query`.
/// [`create_table`](Self::create_table) also requires `CreateTable` and `UpdateContinuousBackups`.
///
/// # Not verified
///
/// Nothing was run against AWS: the tests run against two emulators, dynoxide and Amazon's DynamoDB
/// Local. A proxy in the tests simulates what no emulator does: throttling, transactions in
/// conflict, unprocessed keys, server errors and lost responses. The lag of the index and the
/// replication of a table are known from the documentation only.
#[derive(Clone)]
pub struct DynamoDbBackend {
    table: Table,
}

impl DynamoDbBackend {
    /// Opens this table, after checking that it keeps rows safely.
    ///
    /// If the table has no point-in-time recovery, logs a warning (`tracing`).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the table does not exist or does not fit this crate, if it is replicated
    /// or its rows expire, or if DynamoDB does not respond.
    pub async fn connect(client: &Client, table: impl AsRef<str>) -> Result<Self, ConnectError> {
        Self::open(client, table.as_ref(), Writers::Any).await
    }

    /// Opens a global table of eventual consistency that only the client's region writes. The other
    /// regions must be on standby.
    ///
    /// This is not checked. If two regions write at the same time, tokens are lost.
    ///
    /// # Errors
    ///
    /// The errors of [`connect`](Self::connect), except that replicas are accepted.
    pub async fn connect_as_only_writer(
        client: &Client,
        table: impl AsRef<str>,
    ) -> Result<Self, ConnectError> {
        Self::open(client, table.as_ref(), Writers::ThisRegion).await
    }

    /// Creates the table, on demand and protected from deletion, and waits until it is ready.
    ///
    /// Switches point-in-time recovery on; if that fails, logs a warning (`tracing`). If the table
    /// exists and fits this crate, changes nothing else. Any other existing table is left
    /// unchanged.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a table with other keys exists, if the table cannot be created, or if it
    /// is not ready after five minutes.
    pub async fn create_table(client: &Client, table: impl AsRef<str>) -> Result<(), ConnectError> {
        open::create(&Table::new(client, table.as_ref())).await
    }

    /// Returns the table as a CloudFormation template, in YAML.
    #[must_use]
    pub fn cloud_formation(table: impl AsRef<str>) -> String {
        schema::cloud_formation(table.as_ref())
    }

    /// Returns the table as a Terraform resource.
    #[must_use]
    pub fn terraform(table: impl AsRef<str>) -> String {
        schema::terraform(table.as_ref())
    }

    /// Returns an HTTP client for the SDK. It uses rustls with the system's root certificates and
    /// the crypto provider of the feature `ring` or `aws-lc-rs`. A client that has no HTTP client
    /// uses this one.
    #[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
    #[must_use]
    pub fn https_client() -> SharedHttpClient {
        crate::aws::https()
    }

    /// Returns the row of an item that a scan found. A claim is not a row; the work that it left is
    /// finished here.
    async fn listed(&self, found: &Item) -> Result<Option<(Key, Row)>, Error> {
        if item::text(found, SK)? == CLAIM {
            let left = Claim::of(Some(found))?;
            claim::finish(&self.table, &item::partition_of(found)?, left).await;
            return Ok(None);
        }
        let key = item::key_of(found)?;
        let stored = Stored::of(found)?;
        let row = if stored.marks.is_empty() {
            Some(stored.row)
        } else {
            self.table.standing(&key.partition, &key.slot).await?
        };
        Ok(row.map(|row| (key, row)))
    }

    async fn open(client: &Client, table: &str, writers: Writers) -> Result<Self, ConnectError> {
        let table = Table::new(client, table);
        open::check(&table, writers).await?;
        Ok(Self { table })
    }
}

impl fmt::Debug for DynamoDbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbBackend")
            .field("table", &self.table.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for DynamoDbBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let mut wanted: Vec<&Slot> = slots.iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let names: Vec<_> = wanted.iter().map(|slot| slot.as_str()).collect();
        let found = match names[..] {
            [] => Vec::new(),
            // Costs half as much as a transaction.
            [name] => vec![self.table.get(partition, name).await?],
            _ => self.table.snapshot(partition, &names).await?,
        };
        let found = found
            .iter()
            .map(|found| found.as_ref().map(Stored::of).transpose());
        let mut found: Vec<Option<Stored>> = found.collect::<Result<_, _>>()?;
        let mut claim = Claim::None;
        if found
            .iter()
            .flatten()
            .any(|stored| !stored.marks.is_empty())
        {
            (claim, found) = self.table.claim_and_rows(partition, &wanted).await?;
        }
        let standing: Vec<Option<Row>> = found
            .into_iter()
            .map(|stored| stored?.standing(claim))
            .collect();
        let row = |slot: &Slot| standing[wanted.binary_search(&slot).ok()?].clone();
        Ok(slots.iter().map(row).collect())
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        if changes.iter().any(|change| matches!(change, Change::Clear)) {
            clear::commit(&self.table, partition, changes).await
        } else {
            commit::commit(&self.table, partition, changes).await
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let start = from.as_ref().map(cursor::key).transpose()?;
        let limit = due::page_limit(limit);
        let (items, last) = match scope {
            Scope::Partition(partition) => {
                if start.as_ref().is_some_and(|it| !item::is_of(it, partition)) {
                    return Err(item::malformed(
                        "the cursor is not from this partition".into(),
                    ));
                }
                let limit = Some(limit);
                self.table.query(partition, None, start, limit).await?
            }
            Scope::Prefix(prefix) => {
                let prefix = Some(prefix.as_str());
                self.table.scan(prefix, start, limit).await?
            }
            Scope::Everything => self.table.scan(None, start, limit).await?,
        };
        let mut page = Page {
            next: last.as_ref().map(cursor::of_key).transpose()?,
            ..Page::default()
        };
        for found in items {
            match self.listed(&found).await {
                Ok(row) => page.rows.extend(row),
                Err(Error::Malformed(_)) => page.malformed.push(item::text_of_key(&found)),
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        due::due(&self.table, queue, now, from.as_ref(), limit).await
    }
}

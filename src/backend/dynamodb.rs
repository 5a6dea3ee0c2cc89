//! Rows in one table of Amazon DynamoDB.
//!
//! # Items
//!
//! A row is one item: partition key `pk`, sort key `sk` (the slot), `version` (16 bytes),
//! `metadata` (text), `sealed` (bytes), and for a row that is ever due `due_queue`
//! (`<lane> <shard> <app>`) and `due_key` (`<seconds> <pk> <sk>`), by which the sparse index `due`
//! lists it.
//!
//! # Clearing a partition
//!
//! A transaction takes 100 items, and a partition may have more. So a `Clear` marks the rows one
//! by one, which changes nothing for anybody, and then declares all that bear its mark cleared, by
//! one write:
//!
//! 1. *Claim*: make the item `{clear}` of the partition, with a fresh id. One at a time can.
//! 2. *Mark*: list the rows; add the id to `cleared_by` of each, if it has the version listed.
//! 3. *Settle*: set `clear_done` in the claim, if it is still ours and pending, in one transaction
//!    with the rows that the same commit puts. This is the moment at which the commit happens.
//! 4. *Remove*: delete the marked rows, then the claim.
//!
//! What makes this one commit for everybody else:
//!
//! * **A row stands unless it bears the id of a claim that is done.** So a row without marks
//!   stands, and costs a reader nothing more. For a row with marks, the row and the claim are read
//!   at one moment.
//! * **A claim that is done goes only after every row that bears its id.** Marks are only added,
//!   never taken away or replaced; only a new row in their place has none. So a mark that arrives
//!   late, of somebody who lost the claim, adds an id that is never done.
//! * **While a claim is pending no row appears where none stood**: whoever may create a row checks
//!   the claim in the same transaction. So the rows listed are all.
//! * **A row with marks is changed only together with a check of the claim**: it is there and the
//!   same, or it is not there, and never pending. So a marked row is the same when the claim is
//!   settled.
//! * **Any process may take a pending claim away** that is not settled in some seconds; what it
//!   marked stands. Any process may finish what a claim that is done left behind. So a process that
//!   ends in the middle leaves no lock and no half-cleared partition.

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

/// Keeps rows in one table of Amazon DynamoDB. Any number of processes may share it.
///
/// Make the table with [`create_table`](Self::create_table), or from the text of
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
/// All reads but those of the index `due` are strongly consistent; what the index names is read
/// from the table before it is answered. Several rows are read at one moment (`TransactGetItems`).
///
/// The table must be of one region. A global table of eventual consistency, of either version of
/// DynamoDB's global tables, is refused, since the
/// last writer wins there whatever was expected, unless
/// [only one region writes](Self::connect_as_only_writer); one of strong consistency is
/// refused, since DynamoDB has no transactions there.
///
/// # Cost
///
/// In request units of an on-demand table, for items of up to 1 KB (a write) or 4 KB (a read);
/// a larger item costs as many times more.
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
/// A process without work looks for refreshes every 2 seconds: some 10 million read units a month.
///
/// # Limits
///
/// Those of the [contract](Backend#contract), which DynamoDB sets: 400 KB an item, and 100 items
/// and 4 MB a transaction. More than that is [`Error::Malformed`].
///
/// # Errors
///
/// What DynamoDB refuses for now (throttling, a transaction in conflict with another) is asked
/// again for about two seconds, with pauses of random lengths, and is
/// [`Error::Unavailable`] after that. So is a call without an answer in 5 seconds, unless
/// the client has timeouts of its own; of those, only reads are made again. The client's own
/// retries are off. A lack of permission is [`Error::Unavailable`] too.
///
/// # Permissions
///
/// On the table: `dynamodb:BatchGetItem`, `ConditionCheckItem`, `DeleteItem`,
/// `DescribeContinuousBackups`, `DescribeTable`, `DescribeTimeToLive`, `GetItem`, `PutItem`,
/// `Query`, `Scan`, `UpdateItem`; and `DescribeGlobalTable` on the global table of its name. Where
/// `DescribeTimeToLive` or `DescribeGlobalTable` is not allowed, what it would tell is not
/// checked, and a warning says so (`tracing`). On its index (`…/index/due`): `dynamodb:Query`.
/// [`create_table`](Self::create_table) needs `CreateTable` and `UpdateContinuousBackups` too.
///
/// # What was never run against AWS
///
/// All of it: the tests run against two emulators, dynoxide and Amazon's DynamoDB Local. Of what
/// no emulator does, throttling, transactions in conflict, unprocessed keys, errors of the server
/// and lost answers are made by a proxy in the tests; that the index lags and that a table is
/// replicated are taken from the documentation.
#[derive(Clone)]
pub struct DynamoDbBackend {
    table: Table,
}

impl DynamoDbBackend {
    /// Uses this table, if rows can be kept in it safely.
    ///
    /// Warns (`tracing`) where it has no point-in-time recovery.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if there is no such table, it is not of this crate's making, it is
    /// replicated to other regions, its rows expire, or DynamoDB does not answer.
    pub async fn connect(client: &Client, table: impl AsRef<str>) -> Result<Self, ConnectError> {
        Self::open(client, table.as_ref(), Writers::Any).await
    }

    /// As [`connect`](Self::connect), for a global table of eventual consistency that is written
    /// in the client's region only: the others stand by.
    ///
    /// Nobody checks that. If two regions write at the same time, tokens are lost.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), but for the replicas.
    pub async fn connect_as_only_writer(
        client: &Client,
        table: impl AsRef<str>,
    ) -> Result<Self, ConnectError> {
        Self::open(client, table.as_ref(), Writers::ThisRegion).await
    }

    /// Makes the table, on demand and protected from deletion, and waits until it can be used.
    /// Switches point-in-time recovery on, and warns (`tracing`) if it cannot. A table of this
    /// crate's making that is there is left as it is, but for that; any other is left alone.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a table with other keys exists, if the table cannot be made, or if that
    /// takes more than five minutes.
    pub async fn create_table(client: &Client, table: impl AsRef<str>) -> Result<(), ConnectError> {
        open::create(&Table::new(client, table.as_ref())).await
    }

    /// The table as a CloudFormation template, in YAML.
    #[must_use]
    pub fn cloud_formation(table: impl AsRef<str>) -> String {
        schema::cloud_formation(table.as_ref())
    }

    /// The table as a Terraform resource.
    #[must_use]
    pub fn terraform(table: impl AsRef<str>) -> String {
        schema::terraform(table.as_ref())
    }

    /// Returns an HTTP client for the SDK, over rustls with the system's root certificates and the
    /// crypto provider of the feature `ring` or `aws-lc-rs`. A client without any is given this
    /// one.
    #[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
    #[must_use]
    pub fn https_client() -> SharedHttpClient {
        http::https()
    }

    /// Returns the row of an item that a scan found. A claim is no row; what it left behind is
    /// deleted here.
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
            // Half the price of a transaction.
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
                    return Err(item::malformed("not a cursor of this partition".into()));
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

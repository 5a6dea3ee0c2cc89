//! The calls to a table. Each is retried if that is safe.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Get, KeysAndAttributes, TransactGetItem};
use tokio::task::JoinSet;

use super::http::without_retries;
use super::item::{self, CLAIM, CLEARED_BY, Claim, ClearId, Item, PK, SK, Stored, VERSION};
use super::refusal::{Call, Refusal, pause, persist};
use crate::backend::{Error, Key, Partition, Row, Slot, Version};

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) client: Client,
    pub(super) name: Arc<str>,
}

/// A stored row without its metadata and sealed bytes.
#[derive(Debug)]
pub(super) struct Listed {
    /// Its sort key, even if it is not a valid name.
    pub(super) name: String,
    /// `None` if it cannot be parsed, because something else wrote the row.
    pub(super) version: Option<Version>,
    pub(super) marks: Vec<ClearId>,
}

impl Table {
    pub(super) fn new(client: &Client, name: &str) -> Self {
        Self {
            client: without_retries(client),
            name: name.into(),
        }
    }

    /// Reads one item.
    pub(super) async fn get(
        &self,
        partition: &Partition,
        name: &str,
    ) -> Result<Option<Item>, Error> {
        let get = || async {
            let get = self
                .client
                .get_item()
                .table_name(&*self.name)
                .consistent_read(true);
            let found = get.set_key(Some(item::key(partition, name))).send().await;
            found.map_err(Refusal::of)
        };
        Ok(persist(Call::Reads, get).await?.item)
    }

    pub(super) async fn claim(&self, partition: &Partition) -> Result<Claim, Error> {
        Claim::of(self.get(partition, CLAIM).await?.as_ref())
    }

    /// Reads these items in one transaction, so that they are consistent. `names` must have no
    /// duplicates.
    pub(super) async fn snapshot(
        &self,
        partition: &Partition,
        names: &[&str],
    ) -> Result<Vec<Option<Item>>, Error> {
        let gets = names.iter().map(|name| {
            let get = Get::builder().table_name(&*self.name);
            let get = get.set_key(Some(item::key(partition, name))).build();
            let get = get.expect("the table and the key are set");
            TransactGetItem::builder().get(get).build()
        });
        let gets: Vec<_> = gets.collect();
        let get = || async {
            let get = self
                .client
                .transact_get_items()
                .set_transact_items(Some(gets.clone()));
            get.send().await.map_err(Refusal::of_transact_get)
        };
        let found = persist(Call::Reads, get)
            .await?
            .responses
            .unwrap_or_default();
        if found.len() != names.len() {
            return Err(item::malformed(
                "a snapshot has a different number of items than requested".into(),
            ));
        }
        Ok(found.into_iter().map(|found| found.item).collect())
    }

    /// Reads the claim on the partition and these rows in one transaction.
    pub(super) async fn claim_and_rows(
        &self,
        partition: &Partition,
        slots: &[&Slot],
    ) -> Result<(Claim, Vec<Option<Stored>>), Error> {
        let names: Vec<_> = slots
            .iter()
            .map(|slot| slot.as_str())
            .chain([CLAIM])
            .collect();
        let mut found = self.snapshot(partition, &names).await?;
        let claim = Claim::of(found.pop().flatten().as_ref())?;
        let rows = found
            .iter()
            .map(|found| found.as_ref().map(Stored::of).transpose());
        Ok((claim, rows.collect::<Result<_, _>>()?))
    }

    /// Reads the current row of a slot, after a row with marks was found there.
    pub(super) async fn standing(
        &self,
        partition: &Partition,
        slot: &Slot,
    ) -> Result<Option<Row>, Error> {
        let (claim, rows) = self.claim_and_rows(partition, &[slot]).await?;
        Ok(rows
            .into_iter()
            .flatten()
            .find_map(|stored| stored.standing(claim)))
    }

    /// Returns a page of a partition's items, and the key where it ended. `only` lists the
    /// attributes to return; `None` returns all.
    pub(super) async fn query(
        &self,
        partition: &Partition,
        only: Option<&str>,
        from: Option<Item>,
        limit: Option<i32>,
    ) -> Result<(Vec<Item>, Option<Item>), Error> {
        let query = || async {
            let query = self
                .client
                .query()
                .table_name(&*self.name)
                .consistent_read(true);
            query
                .key_condition_expression(format!("{PK} = :pk"))
                .expression_attribute_values(":pk", AttributeValue::S(partition.as_str().into()))
                .set_projection_expression(only.map(Into::into))
                .set_limit(limit)
                .set_exclusive_start_key(from.clone())
                .send()
                .await
                .map_err(Refusal::of)
        };
        let page = persist(Call::Reads, query).await?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }

    /// Returns a page of the table's items that have this prefix, and the key where it ended.
    pub(super) async fn scan(
        &self,
        prefix: Option<&str>,
        from: Option<Item>,
        limit: i32,
    ) -> Result<(Vec<Item>, Option<Item>), Error> {
        let scan = || async {
            let mut scan = self.client.scan().table_name(&*self.name);
            if let Some(prefix) = prefix {
                scan = scan
                    .filter_expression(format!("begins_with({PK}, :prefix)"))
                    .expression_attribute_values(":prefix", AttributeValue::S(prefix.into()));
            }
            scan.consistent_read(true)
                .limit(limit)
                .set_exclusive_start_key(from.clone())
                .send()
                .await
                .map_err(Refusal::of)
        };
        let page = persist(Call::Reads, scan).await?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }

    /// Lists all rows of a partition, each in its state when its page was read.
    pub(super) async fn list(&self, partition: &Partition) -> Result<Vec<Listed>, Error> {
        let (mut listed, mut from) = (Vec::new(), None);
        let only = format!("{SK}, {VERSION}, {CLEARED_BY}");
        loop {
            let (items, last) = self.query(partition, Some(&only), from, None).await?;
            for found in &items {
                let name = item::text(found, SK)?;
                if name != CLAIM {
                    listed.push(Listed {
                        name: name.to_owned(),
                        version: item::version(found).ok(),
                        marks: item::marks(found)?,
                    });
                }
            }
            from = last;
            if from.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Reads rows of several partitions, at most 100, in no order. The reads are not one
    /// transaction.
    pub(super) async fn get_each(&self, keys: &[Key]) -> Result<Vec<Item>, Error> {
        let wanted = keys
            .iter()
            .map(|key| item::key(&key.partition, key.slot.as_str()))
            .collect();
        let wanted = KeysAndAttributes::builder()
            .set_keys(Some(wanted))
            .consistent_read(true);
        let wanted = wanted.build().expect("the keys are set");
        let mut wanted = HashMap::from([((*self.name).to_owned(), wanted)]);
        let mut found = Vec::new();
        for attempt in 0.. {
            let get = || async {
                let get = self
                    .client
                    .batch_get_item()
                    .set_request_items(Some(wanted.clone()));
                get.send().await.map_err(Refusal::of)
            };
            let answer = persist(Call::Reads, get).await?;
            let some = answer.responses.unwrap_or_default().into_values().flatten();
            let before = found.len();
            found.extend(some);
            wanted = answer.unprocessed_keys.unwrap_or_default();
            if wanted.is_empty() {
                break;
            }
            if found.len() == before && attempt >= UNPROCESSED_RETRIES {
                return Err(Error::Unavailable(
                    "DynamoDB throttles reads of the table; raise its read capacity".into(),
                ));
            }
            pause(attempt).await;
        }
        Ok(found)
    }
}

/// Makes one call for each item, some at a time. Stops at the first error and drops the calls in
/// progress.
pub(super) async fn for_each<I, T, F>(
    each: Vec<I>,
    mut make: impl FnMut(I) -> F,
) -> Result<Vec<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let (mut running, mut done) = (JoinSet::new(), Vec::new());
    let mut each = each.into_iter();
    loop {
        while running.len() < AT_ONCE
            && let Some(next) = each.next()
        {
            running.spawn(make(next));
        }
        match running.join_next().await {
            None => return Ok(done),
            Some(Ok(answered)) => done.push(answered?),
            Some(Err(ended)) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(ended) => return Err(Error::Unavailable(ended.into())),
            },
        }
    }
}

/// The number of calls that run at the same time.
const AT_ONCE: usize = 16;

/// How many responses in a row may process no key. With the pauses, that takes one or two seconds.
const UNPROCESSED_RETRIES: u32 = 8;

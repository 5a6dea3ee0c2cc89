//! Rows whose time has come, by way of the index.

use std::collections::HashMap;
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;

use super::clear;
use super::item::{self, DUE_AT, DUE_SHARD, DUE_SHARDS, Stored};
use super::refusal::{Call, Refusal, persist};
use super::schema::DUE_INDEX;
use super::table::{Table, for_each};
use crate::backend::seconds::to_seconds;
use crate::backend::{Error, Key, Row, odd};

/// The earliest of all shards. The index lags behind the table, so it only names candidates; each
/// is read from the table before it is answered.
pub(super) async fn due(
    table: &Table,
    now: SystemTime,
    limit: usize,
) -> Result<Vec<(Key, Row)>, Error> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let shards = for_each((0..DUE_SHARDS).collect(), |shard| {
        let table = table.clone();
        async move { candidates(&table, shard, now, limit).await }
    });
    let mut named: Vec<_> = shards.await?.into_iter().flatten().collect();
    named.sort_unstable_by_key(|(due_at, _)| *due_at);
    let named: Vec<_> = named.into_iter().map(|(_, key)| key).collect();
    let mut due = Vec::new();
    for some in named.chunks(limit.min(BATCH)) {
        let mut standing = Vec::new();
        for found in table.get_each(some).await? {
            match stands(table, &found).await {
                Ok(row) => standing.extend(row.map(Ok)),
                Err(error @ Error::Malformed(_)) => standing.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        let is_due = |(_, row): &(Key, Row)| row.due_at.is_some_and(|due_at| due_at <= now);
        due.extend(odd::sound(standing).into_iter().filter(is_due));
        if due.len() >= limit {
            break;
        }
    }
    due.sort_by_key(|(_, row)| row.due_at);
    due.truncate(limit);
    Ok(due)
}

/// The row, unless it has been cleared. Then it is removed here, and what was cleared with it:
/// perhaps nobody else ever comes by.
async fn stands(
    table: &Table,
    found: &HashMap<String, AttributeValue>,
) -> Result<Option<(Key, Row)>, Error> {
    let key = item::key_of(found)?;
    let stored = Stored::of(found).map_err(|error| odd::named(&key, error))?;
    if stored.marks.is_empty() {
        return Ok(Some((key, stored.row)));
    }
    let standing = table.standing(&key.partition, &key.slot).await?;
    if standing.is_none() {
        let claim = table.claim(&key.partition).await?;
        clear::finish(table, &key.partition, claim).await;
    }
    Ok(standing.map(|row| (key, row)))
}

/// The earliest keys of one shard, with the time under which the index lists them.
async fn candidates(
    table: &Table,
    shard: u8,
    now: SystemTime,
    limit: usize,
) -> Result<Vec<(i64, Key)>, Error> {
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let query = || async {
            let query = table
                .client
                .query()
                .table_name(&*table.name)
                .index_name(DUE_INDEX);
            query
                .key_condition_expression(format!("{DUE_SHARD} = :shard AND {DUE_AT} <= :now"))
                .expression_attribute_values(":shard", item::number(shard))
                .expression_attribute_values(":now", item::number(to_seconds(now)))
                .limit(page_len(limit - found.len()))
                .set_exclusive_start_key(from.clone())
                .send()
                .await
                .map_err(Refusal::of)
        };
        let page = persist(Call::Reads, query).await?;
        for listed in page.items() {
            let due_at = listed.get(DUE_AT).unwrap_or(&AttributeValue::Null(true));
            match (item::seconds(due_at), item::key_of(listed)) {
                (Ok(due_at), Ok(key)) => found.push((due_at, key)),
                (Err(error), _) | (_, Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(shard, cause, "what is due is left out: it is malformed");
                }
            }
        }
        from = page.last_evaluated_key;
        if from.is_none() || found.len() >= limit {
            return Ok(found);
        }
    }
}

pub(super) fn page_len(limit: usize) -> i32 {
    i32::try_from(limit)
        .unwrap_or(i32::MAX)
        .clamp(1, LONGEST_PAGE)
}

/// What `BatchGetItem` takes.
const BATCH: usize = 100;

/// A page ends at 1 MB anyway.
const LONGEST_PAGE: i32 = 1000;

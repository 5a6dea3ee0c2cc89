//! Reads due rows, by way of the index.

use std::collections::HashMap;
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{self, DUE_KEY, DUE_QUEUE, Item, Stored};
use super::refusal::{Call, Refusal, persist};
use super::schema::DUE_INDEX;
use super::table::{Table, for_each};
use super::{claim, cursor};
use crate::backend::seconds::to_seconds;
use crate::backend::{Cursor, Error, Key, Page, Queue, Row, page_len};

/// Returns a page of the earliest rows of all shards. The index lags behind the table, so it only
/// lists candidates. Each is read from the table before it is returned.
pub(super) async fn due(
    table: &Table,
    queue: &Queue,
    now: SystemTime,
    from: Option<&Cursor>,
    limit: usize,
) -> Result<Page, Error> {
    let limit = page_len(limit);
    let range = Range {
        from: match from {
            // The first text after the last place: names only have characters after the space.
            Some(from) => format!("{} ", cursor::place(from)?),
            None => item::due_digits(0),
        },
        // A space follows the digits, and this is the character after it.
        to: format!("{}!", item::due_digits(to_seconds(now))),
    };
    let shards = for_each(item::shards_of(queue).collect(), |shard| {
        let (table, range) = (table.clone(), range.clone());
        async move { candidates(&table, &shard, &range, limit).await }
    });
    let mut listed: Vec<_> = shards.await?.into_iter().flatten().collect();
    listed.sort_unstable_by(|one, other| one.place.cmp(&other.place));
    listed.truncate(limit);
    let last = listed.last().filter(|_| listed.len() == limit);
    let mut page = Page {
        next: last.map(|last| cursor::of_place(&last.place)),
        ..Page::default()
    };
    let (mut places, mut keys) = (HashMap::new(), Vec::new());
    for Listed { place, key, text } in listed {
        match key {
            Some(key) => {
                keys.push(key.clone());
                places.insert(key, place);
            }
            None => page.malformed.push(text),
        }
    }
    for some in keys.chunks(BATCH) {
        for found in table.get_each(some).await? {
            match exists(table, &found).await {
                Ok(None) => {}
                Ok(Some((key, row))) => {
                    // The row may have been postponed since the index listed it.
                    let place = row
                        .due
                        .map(|due| item::due_key(due, &key.partition, &key.slot));
                    let is_same = place.as_ref() == places.get(&key);
                    if is_same && queue.contains(&key.partition, &row) {
                        page.rows.push((key, row));
                    }
                }
                Err(Error::Malformed(_)) => page.malformed.push(item::text_of_key(&found)),
                Err(error) => return Err(error),
            }
        }
    }
    let place = |(key, row): &(Key, Row)| (row.due.map(|due| due.at), key.clone());
    page.rows.sort_by_cached_key(place);
    Ok(page)
}

/// Returns the row, unless it was cleared. A cleared row is deleted here, with all rows of its
/// clear, because no other call may ever read them.
async fn exists(table: &Table, found: &Item) -> Result<Option<(Key, Row)>, Error> {
    let key = item::key_of(found)?;
    let stored = Stored::of(found)?;
    if stored.marks.is_empty() {
        return Ok(Some((key, stored.row)));
    }
    let standing = table.standing(&key.partition, &key.slot).await?;
    if standing.is_none() {
        let found = table.claim(&key.partition).await?;
        claim::finish(table, &key.partition, found).await;
    }
    Ok(standing.map(|row| (key, row)))
}

/// A range of the index's sort keys, both ends included.
#[derive(Clone)]
struct Range {
    from: String,
    to: String,
}

/// An entry of the index.
struct Listed {
    /// Its sort key.
    place: String,
    /// `None` if its names are not valid.
    key: Option<Key>,
    text: String,
}

/// Returns the earliest entries of one shard.
async fn candidates(
    table: &Table,
    shard: &str,
    range: &Range,
    limit: usize,
) -> Result<Vec<Listed>, Error> {
    let mut found = Vec::new();
    if range.from > range.to {
        return Ok(found);
    }
    let mut from = None;
    loop {
        let query = || async {
            let text = |text: &str| AttributeValue::S(text.into());
            let query = table
                .client
                .query()
                .table_name(&*table.name)
                .index_name(DUE_INDEX);
            query
                .key_condition_expression(format!(
                    "{DUE_QUEUE} = :shard AND {DUE_KEY} BETWEEN :from AND :to"
                ))
                .expression_attribute_values(":shard", text(shard))
                .expression_attribute_values(":from", text(&range.from))
                .expression_attribute_values(":to", text(&range.to))
                .limit(page_limit(limit - found.len()))
                .set_exclusive_start_key(from.clone())
                .send()
                .await
                .map_err(Refusal::of)
        };
        let page = persist(Call::Reads, query).await?;
        for entry in page.items() {
            found.push(Listed {
                // The index lists only items that have this attribute.
                place: item::text(entry, DUE_KEY)?.into(),
                key: item::key_of(entry).ok(),
                text: item::text_of_key(entry),
            });
        }
        from = page.last_evaluated_key;
        if from.is_none() || found.len() >= limit {
            return Ok(found);
        }
    }
}

/// Returns the limit of a page as DynamoDB's type.
pub(super) fn page_limit(limit: usize) -> i32 {
    i32::try_from(page_len(limit)).expect("a page has at most 1000 rows")
}

/// The most keys that `BatchGetItem` takes.
const BATCH: usize = 100;

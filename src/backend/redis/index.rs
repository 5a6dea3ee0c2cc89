//! Scans and queues, by way of the sorted sets that list the rows.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, StreamExt as _};

use super::client::Nature;
use super::layout::{self, SHARDS, malformed, shard_of};
use super::{RedisBackend, array, bytes};
use crate::backend::{
    Cursor, Error, Key, Page, Partition, Queue, Row, Scope, Slot, page_len, seconds,
};
use crate::error_chain::error_chain;

impl RedisBackend {
    pub(super) async fn scan_names(
        &self,
        scope: &Scope,
        from: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let limit = page_len(limit);
        let after = from.map(After::from_cursor).transpose()?;
        let (first, to, shards) = match scope {
            Scope::Everything => ("-".into(), "+".into(), 0..SHARDS),
            Scope::Partition(own) => {
                let shard = shard_of(own);
                // `!` is the character after the space.
                (format!("[{own} "), format!("({own}!"), shard..shard + 1)
            }
            Scope::Prefix(prefix) => (format!("[{prefix}"), format!("[{prefix}\u{7f}"), 0..SHARDS),
        };
        let names = async |shard: usize| {
            let from = match &after {
                Some(after) if after.shard == shard => after.bound(&first[1..]),
                _ => first.clone().into_bytes(),
            };
            let names = self.members(shard, self.layout.names(shard), from, &to, limit);
            let names = names.await?.into_iter();
            Ok::<_, Error>(names.map(|name| (shard, name)).collect::<Vec<_>>())
        };
        let start = after.as_ref().map_or(0, |after| after.shard);
        let shards = shards.start.max(start)..shards.end;
        let mut found = Vec::new();
        // The first shard alone, because it fills most pages.
        if let Some(first) = shards.clone().next() {
            found = names(first).await?;
        }
        if found.len() < limit {
            let mut others = stream::iter(shards.skip(1).map(names)).buffered(FAN_OUT);
            while found.len() < limit
                && let Some(more) = others.next().await
            {
                found.extend(more?);
            }
            found.truncate(limit);
        }
        let next = found.last().filter(|_| found.len() == limit);
        let next = next.map(|(shard, name)| After::cursor(*shard, name));
        let found = found.into_iter();
        let found = found.map(|(_, name)| (layout::parse_name(&name), name));
        let page = self.rows(found, false).await?;
        Ok(Page { next, ..page })
    }

    pub(super) async fn scan_due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let limit = page_len(limit);
        let after = from.map(After::from_cursor).transpose()?;
        let start = layout::queue_start(queue);
        let first = match after {
            Some(after) => after.bound(&start),
            None => format!("[{start}").into_bytes(),
        };
        // `!` is the character after the space.
        let to = format!("({start}{:012}!", seconds::since_1970(now));
        let members = |shard| {
            let set = self.layout.due(shard);
            self.members(shard, set, first.clone(), &to, limit)
        };
        let asked: Vec<_> = (0..SHARDS).map(members).collect();
        let found: Vec<_> = stream::iter(asked).buffered(FAN_OUT).collect().await;
        let mut members: Vec<_> = of_those_that_answer(found)?.into_iter().flatten().collect();
        members.sort_unstable();
        members.truncate(limit);
        let next = members.last().filter(|_| members.len() == limit);
        let next = next.map(|member| After::cursor(0, member));
        let found = members.into_iter();
        let found = found.map(|member| (layout::parse_due_member(&start, &member), member));
        let mut page = self.rows(found, true).await?;
        let place = |(key, row): &(Key, Row)| (row.due.map(|due| due.at), key.clone());
        page.rows.sort_by_cached_key(place);
        Ok(Page { next, ..page })
    }

    /// Returns some members of a sorted set, in order. The bounds are as in `ZRANGEBYLEX`.
    async fn members(
        &self,
        shard: usize,
        set: String,
        from: Vec<u8>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let command = &mut redis::cmd("ZRANGEBYLEX");
        command.arg(set).arg(from).arg(to);
        command.arg("LIMIT").arg(0).arg(limit);
        let members = array(self.ask(shard, command).await?)?;
        members.into_iter().map(bytes).collect()
    }

    /// Reads the rows of these index members. `are_due` says that the index is the set of due rows.
    async fn rows(
        &self,
        found: impl Iterator<Item = (Option<Key>, Vec<u8>)>,
        are_due: bool,
    ) -> Result<Page, Error> {
        let mut page = Page::default();
        let mut of = BTreeMap::<_, Vec<_>>::new();
        for (key, member) in found {
            let text = String::from_utf8_lossy(&member).into_owned();
            match key {
                Some(key) => {
                    let slots = of.entry(key.partition).or_default();
                    slots.push((key.slot, are_due.then_some(text)));
                }
                None => page.malformed.push(text),
            }
        }
        let reads: Vec<_> = of
            .iter()
            .flat_map(|(partition, slots)| {
                slots
                    .chunks(LONGEST_READ)
                    .map(move |slots| self.read_indexed(partition, slots))
            })
            .collect();
        let mut reads = stream::iter(reads).buffered(FAN_OUT);
        while let Some(read) = reads.next().await {
            let read = read?;
            page.rows.extend(read.rows);
            page.malformed.extend(read.malformed);
        }
        Ok(page)
    }

    /// Reads rows of one partition, and removes outdated members from the indexes. `indexed` has
    /// each slot, and its member in the set of due rows if it was found there.
    async fn read_indexed(
        &self,
        partition: &Partition,
        indexed: &[(Slot, Option<String>)],
    ) -> Result<Page, Error> {
        let slots: Vec<_> = indexed.iter().map(|(slot, _)| slot.clone()).collect();
        let values = self.values(partition, &slots).await?;
        let (mut page, mut stale) = (Page::default(), Vec::new());
        for ((slot, member), value) in indexed.iter().zip(values) {
            let key = Key::of(partition, slot);
            let Some(value) = value else {
                stale.push((slot, member.as_deref()));
                continue;
            };
            let Ok(row) = layout::decode(&value) else {
                page.malformed.push(key.to_string());
                continue;
            };
            // The row may have been postponed since its member was read.
            let current = row.due.map(|due| layout::due_member(&key, due));
            if member.is_some() && *member != current {
                stale.push((slot, member.as_deref()));
            } else {
                page.rows.push((key, row));
            }
        }
        if !stale.is_empty() {
            Box::pin(self.forget(partition, &stale)).await;
        }
        Ok(page)
    }

    /// Removes members from the indexes if their row does not exist, or is due at another time.
    /// Commits keep the indexes up to date, but a server that evicts keys does not. Without this
    /// call, such members would fill every page.
    async fn forget(&self, partition: &Partition, stale: &[(&Slot, Option<&str>)]) {
        let mut command = self.eval("EVAL", FORGET, partition);
        for (slot, member) in stale {
            command.arg(slot.as_str()).arg(member.unwrap_or_default());
        }
        let (shard, patience) = (shard_of(partition), self.options.response_timeout);
        let sent = self
            .commits
            .send(shard, &command, None, Nature::Write, patience);
        if let Err(error) = sent.await {
            tracing::debug!(
                %partition,
                error = error_chain(&error),
                "cannot remove index members without rows yet; a later scan removes them"
            );
        }
    }
}

/// The member of an index after which a page starts.
struct After {
    /// The shard of the index; 0 for the set of due rows, where the place applies to all shards.
    shard: usize,
    member: Vec<u8>,
}

impl After {
    fn cursor(shard: usize, member: &[u8]) -> Cursor {
        Cursor(format!("{KIND} {shard} {}", URL_SAFE_NO_PAD.encode(member)))
    }

    fn from_cursor(cursor: &Cursor) -> Result<Self, Error> {
        let parse = || {
            let rest = cursor.0.strip_prefix(KIND)?.strip_prefix(' ')?;
            let (shard, member) = rest.split_once(' ')?;
            let after = Self {
                shard: shard.parse().ok()?,
                member: URL_SAFE_NO_PAD.decode(member).ok()?,
            };
            (after.shard < SHARDS).then_some(after)
        };
        parse().ok_or_else(|| malformed("the cursor is not from this kind of backend"))
    }

    /// Returns the bound of `ZRANGEBYLEX` for the members after this place, in a range that starts
    /// here.
    fn bound(&self, start: &str) -> Vec<u8> {
        if self.member.as_slice() < start.as_bytes() {
            format!("[{start}").into_bytes()
        } else {
            [b"(", self.member.as_slice()].concat()
        }
    }
}

#[cfg(any(test, fuzzing))]
/// Parses any cursor, for the fuzz target.
pub(in crate::backend) fn fuzz_cursor(cursor: &Cursor) {
    if let Ok(after) = After::from_cursor(cursor) {
        let again = After::from_cursor(&After::cursor(after.shard, &after.member));
        assert_eq!(again.expect("our own cursor").member, after.member);
        drop(after.bound("start"));
    }
}

/// Returns the responses that arrived, because a master that fails must not delay the due rows of
/// the others. Returns an error if none arrived.
fn of_those_that_answer<T>(asked: Vec<Result<T, Error>>) -> Result<Vec<T>, Error> {
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for answer in asked {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => failures.push(error),
        }
    }
    match failures.last() {
        Some(_) if answers.is_empty() => return Err(failures.remove(failures.len() - 1)),
        Some(error) => {
            let shards = failures.len();
            tracing::warn!(
                shards,
                error = error_chain(error),
                "cannot read the due rows of some shards; a later call returns them"
            );
        }
        None => {}
    }
    Ok(answers)
}

const FORGET: &str = concat!(include_str!("member.lua"), include_str!("forget.lua"));

/// The kind of this backend's cursors.
const KIND: &str = "redis";

/// How many commands run at once, to find due rows or to fill a page. More would not be faster,
/// because each server has one connection.
const FAN_OUT: usize = 32;

/// The most slots of one command, so that no response delays others for long.
const LONGEST_READ: usize = 90;

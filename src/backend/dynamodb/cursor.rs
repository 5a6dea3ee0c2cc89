//! The cursors of scans and queues.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::item::{self, Item, PK, SK};
use crate::backend::{Cursor, Error};

/// Returns the cursor of a scan from the last key that DynamoDB read: of a row, of a claim, or of
/// another item.
pub(super) fn of_key(key: &Item) -> Result<Cursor, Error> {
    Ok(encode("key", &[item::text(key, PK)?, item::text(key, SK)?]))
}

pub(super) fn key(cursor: &Cursor) -> Result<Item, Error> {
    let [partition, slot] = decode("key", cursor)?;
    Ok(Item::from([
        (PK.into(), AttributeValue::S(partition)),
        (SK.into(), AttributeValue::S(slot)),
    ]))
}

/// Returns the cursor of a queue from a sort key of the index.
pub(super) fn of_place(place: &str) -> Cursor {
    encode("due", &[place])
}

pub(super) fn place(cursor: &Cursor) -> Result<String, Error> {
    let [place] = decode("due", cursor)?;
    Ok(place)
}

fn encode(what: &str, texts: &[&str]) -> Cursor {
    let texts: Vec<_> = texts
        .iter()
        .map(|text| URL_SAFE_NO_PAD.encode(text))
        .collect();
    Cursor(format!("{KIND} {what} {}", texts.join(" ")))
}

fn decode<const N: usize>(what: &str, cursor: &Cursor) -> Result<[String; N], Error> {
    let parse = || {
        let rest = cursor.0.strip_prefix(&format!("{KIND} {what} "))?;
        let text = |text| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let texts: Option<Vec<String>> = rest.split(' ').map(text).collect();
        texts?.try_into().ok()
    };
    parse().ok_or_else(|| item::malformed("the cursor is not from this kind of backend".into()))
}

#[cfg(any(test, fuzzing))]
/// Parses any cursor, for the fuzz target.
pub(in crate::backend) fn fuzz_cursor(cursor: &Cursor) {
    drop(key(cursor));
    if let Ok(place) = place(cursor) {
        assert_eq!(self::place(&of_place(&place)).ok(), Some(place));
    }
}

const KIND: &str = "dynamodb";

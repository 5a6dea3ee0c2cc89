//! The hashes that chain the records of a run. `docs/audit.md` describes them for other
//! implementers.

use ring::digest::{Context, SHA256};

use crate::store::{PublicPart, RunId};

/// Returns the hash that the first record of a run follows.
pub(super) fn genesis(app: &str, run: RunId) -> String {
    hash(RUN, &[app.as_bytes(), run.as_bytes()])
}

/// Returns the hash of a record.
pub(super) fn of_record(run: RunId, record: &PublicPart) -> String {
    let fields: [&[u8]; 9] = [
        run.as_bytes(),
        &record.sequence.to_be_bytes(),
        &record.time.to_be_bytes(),
        record.event.as_bytes(),
        record.outcome.as_bytes(),
        &record.count.to_be_bytes(),
        record.note.as_bytes(),
        record.previous.as_bytes(),
        record.payload.as_bytes(),
    ];
    hash(RECORD, &fields)
}

/// Returns the hash of the sealed part of a record. The part has random bytes, so nobody can find
/// its content by trying.
pub(super) fn of_payload(text: &[u8]) -> String {
    hash(PAYLOAD, &[text])
}

/// Returns the bytes that are hashed or signed: the tag, then each field after its length.
pub(super) fn message(tag: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut message = tag.to_vec();
    for field in fields {
        let length = u32::try_from(field.len()).expect("a field is far below 4 GiB");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(field);
    }
    message
}

/// Returns bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Parses the form that [`hex`] writes.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    bytes.collect()
}

fn hash(tag: &[u8], fields: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(&message(tag, fields));
    hex(context.finish().as_ref())
}

const RUN: &[u8] = b"slack-installs audit run v1";
const RECORD: &[u8] = b"slack-installs audit record v1";
const PAYLOAD: &[u8] = b"slack-installs audit payload v1";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn record() -> PublicPart {
        PublicPart {
            note: "note".into(),
            payload: of_payload(b"{}"),
            ..PublicPart::new(7, 1_790_000_000_000, "open", "done", of_payload(b""))
        }
    }

    #[test]
    fn a_change_of_any_field_changes_the_hash_of_a_record() {
        let (run, base) = (RunId::from_bytes([1; 16]), record());
        let edits: [fn(&mut PublicPart); 8] = [
            |it| it.sequence += 1,
            |it| it.time += 1,
            |it| it.event.push('s'),
            |it| it.outcome.push('s'),
            |it| it.count += 1,
            |it| it.note.clear(),
            |it| it.previous = of_payload(b"other"),
            |it| it.payload.clear(),
        ];
        let mut hashes = HashSet::from([
            of_record(run, &base),
            of_record(RunId::from_bytes([2; 16]), &base),
        ]);
        for edit in edits {
            let mut edited = base.clone();
            edit(&mut edited);
            hashes.insert(of_record(run, &edited));
        }
        assert_eq!(hashes.len(), 2 + edits.len());
    }

    #[test]
    fn text_that_moves_from_one_field_to_the_next_changes_the_hash() {
        let run = RunId::from_bytes([1; 16]);
        let with = |event: &str, outcome: &str| {
            let (event, outcome) = (event.to_owned(), outcome.to_owned());
            of_record(
                run,
                &PublicPart {
                    event,
                    outcome,
                    ..record()
                },
            )
        };
        assert_ne!(with("open", "done"), with("opend", "one"));
        assert_ne!(genesis("ab", run), genesis("a", run));
    }

    #[test]
    fn hex_digits_are_read_in_the_form_in_which_they_are_written() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for other in ["0", "0g", "0A", "ä"] {
            assert_eq!(unhex(other), None, "{other}");
        }
    }

    /// The hashes were computed with Python's hashlib.
    #[test]
    fn the_hash_of_a_record_is_the_one_that_is_documented() {
        let run = RunId::from_bytes([1; 16]);
        assert_eq!(genesis("1.2", run), GENESIS);
        let record = PublicPart::new(0, 1_790_000_000_000, "open", "done", GENESIS.into());
        assert_eq!(of_record(run, &record), FIRST);
    }

    const GENESIS: &str = "de90b0570a98e6ddd15eb90625acb3509c64de772d98ab14592dd34a8cf9b19d";
    const FIRST: &str = "31ddad6be42374f8cc09efd6daa1384a877fe17c2323f118a4ed29c05580ed44";
}

//! Rules 1, 2, 11 and 15: rows are read exactly as written.

use super::kit::{
    ENVELOPE_LEN, Tenant, assert_malformed, delete, due, put, row, row_with, sealed, slot, slots,
};
use crate::backend::{Backend, Expect, Lane, Row, Version};

/// Checks existing and missing rows, in an order that is neither that of the writes nor that of the
/// names.
pub async fn rule_01_read_answers_each_slot_in_the_order_asked(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names = ["b", "user/U2", "a", "install", "user/U1", "z"].map(slot);
    let mut planted = Vec::new();
    for (at, name) in names.iter().enumerate() {
        planted.push(match at % 3 {
            2 => None,
            _ => Some(tenant.plant(name).await),
        });
    }
    assert_eq!(tenant.rows(&names).await, planted);
    let (mut reversed, mut expected) = (names.to_vec(), planted.clone());
    reversed.reverse();
    expected.reverse();
    assert_eq!(tenant.rows(&reversed).await, expected);
    assert_eq!(
        Tenant::new(backend).rows(&names).await,
        vec![None; names.len()]
    );
}

/// Checks that a slot requested twice is returned twice, with or without a row.
pub async fn rule_01_read_answers_a_slot_asked_for_twice(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let (here, gone) = (slot("bot"), slot("gone"));
    let planted = Some(tenant.plant(&here).await);
    let asked = [&here, &gone, &here, &gone, &here].map(Clone::clone);
    assert_eq!(
        tenant.rows(&asked).await,
        [planted.clone(), None, planted.clone(), None, planted]
    );
}

/// Checks that the result is empty, and not an error.
pub async fn rule_01_read_of_no_slots_answers_nothing(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    tenant.plant(&slot("bot")).await;
    assert_eq!(tenant.rows(&[]).await, []);
}

/// Checks JSON that a database would change if it parsed and wrote it.
pub async fn rule_02_metadata_comes_back_byte_for_byte(backend: &dyn Backend) {
    let long = format!(r#"{{"name":"{}"}}"#, "näme ".repeat(2000));
    let mut texts = vec![long.as_str()];
    texts.extend(UNUSUAL_METADATA);
    for text in texts {
        same_again(backend, row_with(text)).await;
    }
}

/// Checks every byte, including the first and the last.
pub async fn rule_02_sealed_bytes_come_back(backend: &dyn Backend) {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    for content in [&[], &[0; 300][..], &[0xff; 300], &every_byte, b"\r\n \0"] {
        same_again(
            backend,
            Row {
                sealed: sealed(content),
                ..row()
            },
        )
        .await;
    }
}

/// Checks versions that are small or negative as a number, or not valid as text.
pub async fn rule_02_versions_come_back(backend: &dyn Backend) {
    for byte in [0, 1, 0x20, 0x7f, 0x80, 0xff] {
        same_again(
            backend,
            Row {
                version: Version::from_bytes([byte; 16]),
                ..row()
            },
        )
        .await;
    }
}

/// Checks due times in every lane, from 1970 to 9999, and rows without a due time.
pub async fn rule_02_due_comes_back_to_the_second(backend: &dyn Backend) {
    for (nth, at) in [0, 1, 1_700_000_001, (1 << 31) - 1, 1 << 32, LAST_SECOND]
        .into_iter()
        .enumerate()
    {
        for due in [due(Lane::Refresh, at), due(Lane::ALL[nth], at)] {
            same_again(backend, Row { due, ..row() }).await;
        }
    }
    same_again(backend, row()).await;
}

/// Checks that no field of the old row stays, even if the new row has fewer.
pub async fn rule_02_an_overwrite_leaves_nothing_of_the_old_row(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    let old = Row {
        sealed: sealed(&[1; 5000]),
        due: due(Lane::Refresh, LAST_SECOND),
        ..row_with(r#"{"v":1,"url":"https://example.slack.com/","scopes":"chat:write"}"#)
    };
    let new = Row {
        sealed: sealed(&[]),
        ..row_with("{}")
    };
    for written in [&old, &new, &old] {
        tenant.must_put(&bot, written, Expect::Any).await;
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(written));
    }
}

/// Checks that a read after a commit sees it, whatever a read before the commit returned.
pub async fn rule_11_a_commit_is_seen_by_the_next_read(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    for name in ["bot", "install", "user/U1"].map(slot) {
        assert_eq!(tenant.row(&name).await, None);
        for _ in 0..20 {
            let planted = tenant.plant(&name).await;
            assert_eq!(tenant.row(&name).await, Some(planted));
        }
        tenant.must_delete(&name, None).await;
        assert_eq!(tenant.row(&name).await, None);
    }
}

/// Checks a row with 256 KiB of sealed bytes and 64 KiB of metadata.
pub async fn rule_15_the_largest_row_fits(backend: &dyn Backend) {
    same_again(backend, largest()).await;
}

/// Checks that 90 rows can be put, overwritten, read and deleted at once.
pub async fn rule_15_ninety_changes_fit_one_commit(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names = slots("user/U", MOST);
    let mut standing: Vec<Option<Row>> = vec![None; MOST];
    for _ in 0..2 {
        let rows: Vec<_> = names.iter().map(|_| row()).collect();
        let expect = |row: &Option<Row>| match row {
            Some(row) => Expect::Version(row.version),
            None => Expect::Absent,
        };
        let changes: Vec<_> = names
            .iter()
            .zip(rows.iter().zip(&standing))
            .map(|(name, (row, standing))| put(name, row, expect(standing)))
            .collect();
        tenant.must_commit(&changes).await;
        standing = rows.into_iter().map(Some).collect();
        assert_eq!(tenant.rows(&names).await, standing);
    }
    let deletes: Vec<_> = names
        .iter()
        .zip(standing.iter().flatten())
        .map(|(name, row)| delete(name, Some(row.version)))
        .collect();
    tenant.must_commit(&deletes).await;
    assert_eq!(tenant.rows(&names).await, vec![None; MOST]);
}

/// Checks 2 MiB of rows of the maximum size.
pub async fn rule_15_two_mebibytes_fit_one_commit_and_one_read(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names = slots("large", (2 << 20) / (SEALED_LEN + METADATA_LEN));
    let rows: Vec<_> = names.iter().map(|_| largest()).collect();
    let changes: Vec<_> = names
        .iter()
        .zip(&rows)
        .map(|(name, row)| put(name, row, Expect::Absent))
        .collect();
    tenant.must_commit(&changes).await;
    assert!(
        tenant
            .rows(&names)
            .await
            .into_iter()
            .eq(rows.into_iter().map(Some))
    );
}

/// Checks a row that is too large, a commit with too many changes, and both.
pub async fn rule_15_what_is_too_much_is_refused_whole_or_taken_whole(backend: &dyn Backend) {
    let too_large = Row {
        sealed: sealed(&vec![7; 2 * SEALED_LEN]),
        ..row()
    };
    let too_long = Row {
        sealed: sealed(&[]),
        ..row_with(&format!(r#"{{"name":"{}"}}"#, "x".repeat(8 * METADATA_LEN)))
    };
    let commits = [
        vec![row(), too_large],
        vec![too_long, row()],
        (0..2 * MOST).map(|_| row()).collect(),
        (0..20).map(|_| largest()).collect(),
    ];
    for rows in commits {
        let tenant = Tenant::new(backend);
        let names = slots("slot", rows.len());
        let puts = names.iter().zip(&rows);
        let puts: Vec<_> = puts
            .map(|(name, row)| put(name, row, Expect::Absent))
            .collect();
        let outcome = tenant.commit(&puts).await;
        if outcome.is_err() {
            assert_malformed(&outcome);
        }
        for (name, row) in names.iter().zip(&rows) {
            let standing = tenant.row(name).await;
            let is_right = match outcome {
                Ok(()) => standing.as_ref() == Some(row),
                Err(_) => standing.is_none(),
            };
            // The rows are not printed, because they would fill the screen.
            assert!(
                is_right,
                "row {name} of {} rows, after {outcome:?}",
                names.len()
            );
        }
        tenant
            .must_put(&slot("another"), &row(), Expect::Absent)
            .await;
    }
}

async fn same_again(backend: &dyn Backend, written: Row) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    tenant.must_put(&bot, &written, Expect::Absent).await;
    let read = tenant.row(&bot).await.expect("a row was just put here");
    // Not compared as one value, because the largest rows would fill the screen.
    assert_eq!(read.version, written.version);
    assert_eq!(read.due, written.due);
    assert!(
        read.metadata == written.metadata,
        "metadata must be unchanged: {:.200?}",
        written.metadata
    );
    assert!(
        read.sealed == written.sealed,
        "sealed bytes must be unchanged: {:?}",
        written.sealed
    );
}

fn largest() -> Row {
    let frame = r#"{"name":""}"#.len();
    let metadata = format!(r#"{{"name":"{}"}}"#, "x".repeat(METADATA_LEN - frame));
    let content: Vec<u8> = (0..=u8::MAX)
        .cycle()
        .take(SEALED_LEN - ENVELOPE_LEN)
        .collect();
    Row {
        sealed: sealed(&content),
        ..row_with(&metadata)
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

const METADATA_LEN: usize = 64 << 10;
const MOST: usize = 90;

const UNUSUAL_METADATA: [&str; 16] = [
    "{}",
    " \t{ \"b\" : 1 ,\r\n  \"a\" : [ ] } \n",
    r#"{"b":1,"a":2,"B":3}"#,
    r#"{"twice":1,"twice":2}"#,
    r#"{"nul":"\u0000","escaped":"\u0041\/\ud83d\ude00"}"#,
    "{\"plain\":\"\u{1f600} é e\u{301} \u{2028} \u{7f} \u{ffff}\"}",
    r#"{"quotes":"it's \"so\" `here` \\"}"#,
    r#"{"markers":"$1 ?1 :a @a %s {0} --"}"#,
    r#"{"number":1.0}"#,
    r#"{"number":1e400}"#,
    r#"{"number":-0}"#,
    r#"{"number":123456789012345678901234567890}"#,
    r#"{"number":0.1000000000000000055511151231257827}"#,
    r#"{"empty":"","":null}"#,
    r#"{"deep":[[[[[[[[{"a":[{}]}]]]]]]]]}"#,
    r#"{"text":" trailing space "} "#,
];

const SEALED_LEN: usize = 256 << 10;

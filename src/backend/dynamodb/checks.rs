//! Checks that a table has no setting with which rows would be lost.

use aws_sdk_dynamodb::types::{
    IndexStatus, KeySchemaElement, MultiRegionConsistency, ScalarAttributeType, TableDescription,
    TableStatus,
};

use super::item::{DUE_KEY, DUE_QUEUE, PK, SK};
use super::schema::DUE_INDEX;
use crate::backend::{ConnectError, ConnectErrorKind as Kind};

/// The regions that write to the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Writers {
    /// Any region.
    Any,
    /// Only this region, as the operator promised.
    ThisRegion,
}

pub(super) fn check_description(
    table: &str,
    described: &TableDescription,
    writers: Writers,
) -> Result<(), ConnectError> {
    if !has_keys(described, described.key_schema(), [PK, SK]) {
        return Err(refused(table, Kind::Foreign, WRONG_KEYS));
    }
    let mut indexes = described.global_secondary_indexes().iter();
    let index = indexes
        .find(|index| index.index_name() == Some(DUE_INDEX))
        .filter(|index| has_keys(described, index.key_schema(), [DUE_QUEUE, DUE_KEY]))
        .ok_or_else(|| refused(table, Kind::NotMigrated, NO_INDEX))?;
    let not_active = |status: &str| {
        let text = format!("is {status}, not active; wait until it is active, then try again");
        refused(table, Kind::Unavailable, &text)
    };
    match described.table_status() {
        // A table can be used while it is changed.
        Some(TableStatus::Active | TableStatus::Updating) => {}
        other => return Err(not_active(other.map_or("unknown", TableStatus::as_str))),
    }
    match index.index_status() {
        Some(IndexStatus::Active | IndexStatus::Updating) | None => {}
        Some(other) => return Err(not_active(other.as_str())),
    }
    if described.multi_region_consistency() == Some(&MultiRegionConsistency::Strong) {
        return Err(refused(table, Kind::Misconfigured, STRONG));
    }
    if !described.replicas().is_empty() && writers == Writers::Any {
        return Err(refused(table, Kind::Misconfigured, EVENTUAL));
    }
    Ok(())
}

/// Returns an error about the table. `text` continues a sentence that begins with the table's name.
pub(super) fn refused(table: &str, kind: Kind, text: &str) -> ConnectError {
    ConnectError::new(kind, format!("the DynamoDB table {table} {text}"))
}

/// Returns whether these are the wanted keys, partition key first, both strings.
fn has_keys(described: &TableDescription, keys: &[KeySchemaElement], wanted: [&str; 2]) -> bool {
    let is_text = |name: &str| {
        let mut defined = described.attribute_definitions().iter();
        defined
            .any(|it| it.attribute_name() == name && *it.attribute_type() == ScalarAttributeType::S)
    };
    let names = keys.iter().map(KeySchemaElement::attribute_name);
    names.eq(wanted) && wanted.into_iter().all(is_text)
}

/// Each region has its own copy of a row, and the last writer wins.
pub(super) const EVENTUAL: &str = "is replicated to other regions with eventual consistency, \
     which loses commits if two regions write; write in one region only, and connect with \
     `DynamoDbBackend::connect_as_only_writer`";

const NO_INDEX: &str = "has no global secondary index `due` of `due_queue` and `due_key`, both \
     strings; create the table with `DynamoDbBackend::create_table`, or from the text of \
     `cloud_formation` or `terraform`";

const STRONG: &str = "is replicated to other regions with strong consistency, where DynamoDB has \
     no transactions; use a table of one region";

const WRONG_KEYS: &str = "has keys other than `pk` and `sk`, both strings; use a separate table \
     for this crate";

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::builders::TableDescriptionBuilder;
    use aws_sdk_dynamodb::types::{GlobalSecondaryIndexDescription, ReplicaDescription};

    use super::*;
    use crate::backend::dynamodb::schema;

    #[test]
    fn the_table_that_is_made_is_accepted() {
        for status in [TableStatus::Active, TableStatus::Updating] {
            check_description("t", &made(status).build(), Writers::Any)
                .expect("the table fits this crate");
        }
    }

    #[test]
    fn a_table_that_is_not_active_is_refused() {
        for status in [
            TableStatus::Creating,
            TableStatus::Deleting,
            TableStatus::Archived,
        ] {
            let text = assert_refused(made(status.clone()), Writers::Any, Kind::Unavailable);
            assert!(
                text.contains(&format!(" is {status}, not active")),
                "{text}"
            );
        }
        let index = index().index_status(IndexStatus::Creating).build();
        let described = made(TableStatus::Active).set_global_secondary_indexes(Some(vec![index]));
        assert_refused(described, Writers::Any, Kind::Unavailable);
    }

    #[test]
    fn other_keys_and_other_types_of_keys_are_refused() {
        let made = || made(TableStatus::Active);
        let reversed = schema::input("t")
            .key_schema
            .map(|keys| keys.into_iter().rev().collect());
        let alone = schema::input("t").key_schema.map(|keys| keys[..1].to_vec());
        let numbers = schema::input("t").attribute_definitions.map(|defined| {
            let number = |mut it: aws_sdk_dynamodb::types::AttributeDefinition| {
                it.attribute_type = ScalarAttributeType::N;
                it
            };
            defined.into_iter().map(number).collect()
        });
        for described in [
            made().set_key_schema(reversed),
            made().set_key_schema(alone),
            made().set_attribute_definitions(numbers),
        ] {
            assert_refused(described, Writers::Any, Kind::Foreign);
        }
        for indexes in [vec![], vec![index().index_name("other").build()]] {
            let described = made().set_global_secondary_indexes(Some(indexes));
            assert_refused(described, Writers::Any, Kind::NotMigrated);
        }
    }

    #[test]
    fn replicas_are_refused_unless_only_this_region_writes() {
        let replicated = |consistency| {
            let replica = ReplicaDescription::builder().region_name("eu-west-1");
            made(TableStatus::Active)
                .replicas(replica.build())
                .set_multi_region_consistency(consistency)
        };
        for consistency in [None, Some(MultiRegionConsistency::Eventual)] {
            let described = replicated(consistency);
            check_description("t", &described.clone().build(), Writers::ThisRegion)
                .expect("the other regions do not write");
            let text = assert_refused(described, Writers::Any, Kind::Misconfigured);
            assert!(text.contains("eventual"), "{text}");
        }
        for writers in [Writers::Any, Writers::ThisRegion] {
            let described = replicated(Some(MultiRegionConsistency::Strong));
            let text = assert_refused(described, writers, Kind::Misconfigured);
            assert!(text.contains("strong"), "{text}");
        }
    }

    #[track_caller]
    fn assert_refused(described: TableDescriptionBuilder, writers: Writers, kind: Kind) -> String {
        let refused = check_description("t", &described.build(), writers);
        let refused = refused.expect_err("the table is not safe for rows");
        assert_eq!(refused.kind(), kind, "{refused}");
        refused.to_string()
    }

    /// Returns the description of a table that [`schema::input`] created.
    fn made(status: TableStatus) -> TableDescriptionBuilder {
        let input = schema::input("t");
        TableDescription::builder()
            .set_attribute_definitions(input.attribute_definitions)
            .set_key_schema(input.key_schema)
            .global_secondary_indexes(index().build())
            .table_status(status)
    }

    fn index() -> aws_sdk_dynamodb::types::builders::GlobalSecondaryIndexDescriptionBuilder {
        let asked = schema::input("t")
            .global_secondary_indexes
            .unwrap_or_default()
            .remove(0);
        GlobalSecondaryIndexDescription::builder()
            .index_name(asked.index_name)
            .set_key_schema(Some(asked.key_schema))
            .index_status(IndexStatus::Active)
    }
}

//! What a table must be like, so that nothing is lost in it.

use aws_sdk_dynamodb::types::{
    IndexStatus, KeySchemaElement, MultiRegionConsistency, TableDescription, TableStatus,
};
use thiserror::Error;

use super::item::{DUE_KEY, DUE_QUEUE, PK, SK};
use super::schema::DUE_INDEX;
use crate::backend::BoxError;

/// Why a table cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DynamoDbOpenError {
    /// Its rows would expire: DynamoDB would delete them.
    #[error("the table has a time to live; switch it off, since it deletes installations")]
    Expires,
    /// Replicas in other regions have their own opinion of what stands; the last writer wins.
    #[error(
        "the table is replicated to other regions with eventual consistency, which loses commits \
         if two regions write; write in one region only, and connect as its only writer"
    )]
    EventualReplicas,
    /// No such table in this account and region.
    #[error(
        "the table does not exist in this account and region; make it with \
         `DynamoDbBackend::create_table`, or from the text of `cloud_formation` or `terraform`"
    )]
    Missing,
    /// The index of what is due is not there, or has other keys.
    #[error(
        "the table has no global secondary index `{DUE_INDEX}` of `due_queue` and `due_key`, both \
         strings; make the table with `DynamoDbBackend::create_table`, or from the text of \
         `cloud_formation` or `terraform`"
    )]
    NoIndex,
    /// The table or its index is being made, changed or deleted, or cannot be used.
    #[error("the table is {status}, not active; try again when it is")]
    NotActive {
        /// What it is instead.
        status: String,
    },
    /// DynamoDB has no transactions in such a table.
    #[error(
        "the table is replicated to other regions with strong consistency, where DynamoDB has no \
         transactions; use a table of one region"
    )]
    StrongReplicas,
    /// It cannot be looked at.
    #[error("the table cannot be looked at")]
    Unavailable(#[source] BoxError),
    /// It is of another making.
    #[error("the table has other keys than `pk` and `sk`, both strings; use a table of its own")]
    WrongKeys,
}

/// Who else writes to the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Writers {
    /// Whoever has permission.
    Any,
    /// By the operator's word, only this region.
    ThisRegion,
}

pub(super) fn check_description(
    described: &TableDescription,
    writers: Writers,
) -> Result<(), DynamoDbOpenError> {
    if !has_keys(described, described.key_schema(), [(PK, "S"), (SK, "S")]) {
        return Err(DynamoDbOpenError::WrongKeys);
    }
    let index = described
        .global_secondary_indexes()
        .iter()
        .find(|index| index.index_name() == Some(DUE_INDEX))
        .ok_or(DynamoDbOpenError::NoIndex)?;
    if !has_keys(
        described,
        index.key_schema(),
        [(DUE_QUEUE, "S"), (DUE_KEY, "S")],
    ) {
        return Err(DynamoDbOpenError::NoIndex);
    }
    check_active(described)?;
    let strong = described.multi_region_consistency() == Some(&MultiRegionConsistency::Strong);
    match (described.replicas().is_empty(), strong, writers) {
        (true, false, _) | (false, false, Writers::ThisRegion) => Ok(()),
        (_, true, _) => Err(DynamoDbOpenError::StrongReplicas),
        (false, false, Writers::Any) => Err(DynamoDbOpenError::EventualReplicas),
    }
}

fn check_active(described: &TableDescription) -> Result<(), DynamoDbOpenError> {
    let not_active = |status: &str| DynamoDbOpenError::NotActive {
        status: status.into(),
    };
    match described.table_status() {
        // A table can be used while it is changed.
        Some(TableStatus::Active | TableStatus::Updating) => {}
        other => return Err(not_active(other.map_or("of no state", TableStatus::as_str))),
    }
    let index = described.global_secondary_indexes().iter();
    for index in index.filter(|index| index.index_name() == Some(DUE_INDEX)) {
        match index.index_status() {
            Some(IndexStatus::Active | IndexStatus::Updating) | None => {}
            Some(other) => return Err(not_active(other.as_str())),
        }
    }
    Ok(())
}

/// Whether these are the keys, the partition key first.
fn has_keys(
    described: &TableDescription,
    keys: &[KeySchemaElement],
    wanted: [(&str, &str); 2],
) -> bool {
    let found = keys.iter().map(|key| {
        let defined = described.attribute_definitions().iter();
        let mut named = defined.filter(|defined| defined.attribute_name() == key.attribute_name());
        (
            key.attribute_name(),
            named.next().map_or("", |it| it.attribute_type().as_str()),
        )
    });
    found.eq(wanted)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::builders::TableDescriptionBuilder;
    use aws_sdk_dynamodb::types::{GlobalSecondaryIndexDescription, ReplicaDescription};

    use super::*;
    use crate::backend::dynamodb::schema;

    #[test]
    fn the_table_that_is_made_is_accepted() {
        assert!(check_description(&made(TableStatus::Active).build(), Writers::Any).is_ok());
        assert!(check_description(&made(TableStatus::Updating).build(), Writers::Any).is_ok());
    }

    #[test]
    fn a_table_that_is_not_active_is_refused() {
        for status in [
            TableStatus::Creating,
            TableStatus::Deleting,
            TableStatus::Archived,
        ] {
            let described = made(status.clone()).build();
            let refused = check_description(&described, Writers::Any).expect_err("not active");
            let DynamoDbOpenError::NotActive { status: named } = refused else {
                panic!("{status}: {refused}");
            };
            assert_eq!(named, status.as_str());
        }
        let index = index().index_status(IndexStatus::Creating).build();
        let described = made(TableStatus::Active).set_global_secondary_indexes(Some(vec![index]));
        let refused = check_description(&described.build(), Writers::Any);
        assert!(
            matches!(refused, Err(DynamoDbOpenError::NotActive { .. })),
            "{refused:?}"
        );
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
                it.attribute_type = aws_sdk_dynamodb::types::ScalarAttributeType::N;
                it
            };
            defined.into_iter().map(number).collect()
        });
        for described in [
            made().set_key_schema(reversed),
            made().set_key_schema(alone),
            made().set_attribute_definitions(numbers),
        ] {
            let refused = check_description(&described.build(), Writers::Any);
            assert!(
                matches!(refused, Err(DynamoDbOpenError::WrongKeys)),
                "{refused:?}"
            );
        }
        for indexes in [vec![], vec![index().index_name("other").build()]] {
            let described = made().set_global_secondary_indexes(Some(indexes)).build();
            let refused = check_description(&described, Writers::Any);
            assert!(
                matches!(refused, Err(DynamoDbOpenError::NoIndex)),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn replicas_are_refused_unless_only_this_region_writes() {
        let replica = || {
            ReplicaDescription::builder()
                .region_name("eu-west-1")
                .build()
        };
        let eventual = [None, Some(MultiRegionConsistency::Eventual)];
        for consistency in eventual {
            let described = made(TableStatus::Active).replicas(replica());
            let described = described.set_multi_region_consistency(consistency).build();
            let refused = check_description(&described, Writers::Any);
            assert!(
                matches!(refused, Err(DynamoDbOpenError::EventualReplicas)),
                "{refused:?}"
            );
            assert!(check_description(&described, Writers::ThisRegion).is_ok());
        }
        let described = made(TableStatus::Active).replicas(replica());
        let described = described
            .multi_region_consistency(MultiRegionConsistency::Strong)
            .build();
        for writers in [Writers::Any, Writers::ThisRegion] {
            let refused = check_description(&described, writers);
            assert!(
                matches!(refused, Err(DynamoDbOpenError::StrongReplicas)),
                "{refused:?}"
            );
        }
    }

    /// As DynamoDB describes the table that we ask for.
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

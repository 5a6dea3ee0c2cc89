//! Checks of a table, before anything is kept in it.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    IndexStatus, KeySchemaElement, MultiRegionConsistency, PointInTimeRecoveryStatus,
    TableDescription, TableStatus, TimeToLiveStatus,
};
use thiserror::Error;

use super::refusal::{Call, Refusal, persist};
use super::schema::{self, DUE_INDEX};
use super::table::Table;
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
        "the table has no global secondary index `{DUE_INDEX}` of `due_shard` and `due_at`, both \
         numbers; make the table with `DynamoDbBackend::create_table`, or from the text of \
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

/// The same client, but without the SDK's retries, which make a write again that may have
/// happened; and with timeouts, unless it has its own.
pub(super) fn tamed(client: &Client) -> Client {
    let config = client.config();
    let mut timeouts =
        config.timeout_config().cloned().unwrap_or_else(|| TimeoutConfig::builder().build());
    let ours = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(CALL_TIMEOUT)
        .build();
    timeouts.take_defaults_from(&ours);
    let mut tamed =
        config.to_builder().retry_config(RetryConfig::disabled()).timeout_config(timeouts);
    if config.http_client().is_none() {
        tamed = tamed.http_client(super::DynamoDbBackend::https_client());
    }
    Client::from_conf(tamed.build())
}

/// Looks whether rows can be kept in this table.
pub(super) async fn check(table: &Table, writers: Writers) -> Result<(), DynamoDbOpenError> {
    let described = describe(table).await?.ok_or(DynamoDbOpenError::Missing)?;
    check_description(&described, writers)?;
    check_time_to_live(table).await?;
    warn_of_backups(table).await;
    Ok(())
}

/// Makes the table, unless it is there, and waits until it can be used.
pub(super) async fn create(table: &Table) -> Result<(), DynamoDbOpenError> {
    let input = schema::input(&table.name);
    let create = table
        .client
        .create_table()
        .set_table_name(input.table_name)
        .set_attribute_definitions(input.attribute_definitions)
        .set_key_schema(input.key_schema)
        .set_global_secondary_indexes(input.global_secondary_indexes)
        .set_billing_mode(input.billing_mode)
        .set_deletion_protection_enabled(input.deletion_protection_enabled);
    if let Err(error) = create.send().await
        && error.code() != Some("ResourceInUseException")
    {
        return Err(unavailable(Refusal::of(error)));
    }
    let mut status = String::new();
    for _ in 0..CREATE_LOOKS {
        match describe(table).await?.as_ref().map(check_active) {
            Some(Ok(())) => {
                protect(table).await;
                return Ok(());
            }
            Some(Err(DynamoDbOpenError::NotActive { status: is })) => status = is,
            Some(Err(error)) => return Err(error),
            None => {}
        }
        tokio::time::sleep(CREATE_PAUSE).await;
    }
    Err(DynamoDbOpenError::NotActive { status })
}

async fn describe(table: &Table) -> Result<Option<TableDescription>, DynamoDbOpenError> {
    let describe = || async {
        match table.client.describe_table().table_name(&*table.name).send().await {
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
            described => described.map(|described| described.table).map_err(Refusal::of),
        }
    };
    persist(Call::Reads, describe).await.map_err(unavailable)
}

fn check_description(
    described: &TableDescription,
    writers: Writers,
) -> Result<(), DynamoDbOpenError> {
    if !has_keys(described, described.key_schema(), [("pk", "S"), ("sk", "S")]) {
        return Err(DynamoDbOpenError::WrongKeys);
    }
    let index = described
        .global_secondary_indexes()
        .iter()
        .find(|index| index.index_name() == Some(DUE_INDEX))
        .ok_or(DynamoDbOpenError::NoIndex)?;
    if !has_keys(described, index.key_schema(), [("due_shard", "N"), ("due_at", "N")]) {
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
    let not_active = |status: &str| DynamoDbOpenError::NotActive { status: status.into() };
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
        (key.attribute_name(), named.next().map_or("", |it| it.attribute_type().as_str()))
    });
    found.eq(wanted)
}

/// Whatever attribute it goes by, and be it one that we do not write: somebody meant to have rows
/// deleted.
async fn check_time_to_live(table: &Table) -> Result<(), DynamoDbOpenError> {
    match table.client.describe_time_to_live().table_name(&*table.name).send().await {
        Ok(described) => {
            let status = described.time_to_live_description.and_then(|it| it.time_to_live_status);
            match status {
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {
                    Err(DynamoDbOpenError::Expires)
                }
                _ => Ok(()),
            }
        }
        Err(error) => {
            let error = error.code().unwrap_or("no answer");
            tracing::warn!(table = &*table.name, error, "cannot see whether rows expire");
            Ok(())
        }
    }
}

async fn warn_of_backups(table: &Table) {
    let described = table.client.describe_continuous_backups().table_name(&*table.name);
    let status = match described.send().await {
        Ok(described) => described
            .continuous_backups_description
            .and_then(|it| it.point_in_time_recovery_description)
            .and_then(|it| it.point_in_time_recovery_status),
        Err(error) => {
            let error = error.code().unwrap_or("no answer");
            tracing::warn!(table = &*table.name, error, "cannot see whether the table is backed up");
            return;
        }
    };
    if status != Some(PointInTimeRecoveryStatus::Enabled) {
        tracing::warn!(
            table = &*table.name,
            "the table has no point-in-time recovery; switch it on, since installations that are \
             lost have to be made again by the users"
        );
    }
}

/// Switches point-in-time recovery on, where there is such a thing.
async fn protect(table: &Table) {
    let on = aws_sdk_dynamodb::types::PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(true)
        .build()
        .expect("the switch is all that is needed");
    let update = table.client.update_continuous_backups().table_name(&*table.name);
    if let Err(error) = update.point_in_time_recovery_specification(on).send().await {
        let error = error.code().unwrap_or("no answer");
        tracing::warn!(table = &*table.name, error, "cannot switch point-in-time recovery on");
    }
}

fn unavailable(refusal: Refusal) -> DynamoDbOpenError {
    match refusal {
        Refusal::Busy(error)
        | Refusal::Denied(error)
        | Refusal::Malformed(error)
        | Refusal::Open(error) => DynamoDbOpenError::Unavailable(error),
        Refusal::Unmet(_) => DynamoDbOpenError::Unavailable("a condition was not met".into()),
    }
}

/// DynamoDB answers within some ten milliseconds. A commit of 2 MiB over a slow line may take
/// seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// With the pause, five minutes. It mostly takes ten seconds.
const CREATE_LOOKS: usize = 600;

const CREATE_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;

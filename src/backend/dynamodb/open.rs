//! Making a table, and looking at it before anything is kept in it.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, TableDescription, TimeToLiveStatus,
};

use super::DynamoDbBackend;
use super::checks::{DynamoDbOpenError, Writers, check_description};
use super::refusal::{Call, Refusal, persist};
use super::schema;
use super::table::Table;

/// The same client, but without the SDK's retries, which make a write again that may have
/// happened; and with timeouts, unless it has its own.
pub(super) fn tamed(client: &Client) -> Client {
    let config = client.config();
    let mut timeouts = config
        .timeout_config()
        .cloned()
        .unwrap_or_else(|| TimeoutConfig::builder().build());
    let ours = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(CALL_TIMEOUT)
        .build();
    timeouts.take_defaults_from(&ours);
    let mut tamed = config
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if config.http_client().is_none() {
        tamed.set_http_client(DynamoDbBackend::https_client_if_any());
    }
    Client::from_conf(tamed.build())
}

/// Looks whether rows can be kept in this table.
pub(super) async fn check(table: &Table, writers: Writers) -> Result<(), DynamoDbOpenError> {
    let described = describe(table).await?.ok_or(DynamoDbOpenError::Missing)?;
    check_description(&described, writers)?;
    check_time_to_live(table).await?;
    if writers == Writers::Any {
        check_global_table(table).await?;
    }
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
        // Whoever writes to it, it is one of ours.
        let is_ours = |it: &TableDescription| check_description(it, Writers::ThisRegion);
        match describe(table).await?.as_ref().map(is_ours) {
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
        match table
            .client
            .describe_table()
            .table_name(&*table.name)
            .send()
            .await
        {
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
            described => described
                .map(|described| described.table)
                .map_err(Refusal::of),
        }
    };
    persist(Call::Reads, describe).await.map_err(unavailable)
}

/// Whatever attribute it goes by, and be it one that we do not write: somebody meant to have rows
/// deleted.
async fn check_time_to_live(table: &Table) -> Result<(), DynamoDbOpenError> {
    let describe = || async {
        let describe = table.client.describe_time_to_live();
        match describe.table_name(&*table.name).send().await {
            Err(error) if is_not_told(&error) => {
                warn_of(table, &error, "cannot see whether rows expire");
                Ok(None)
            }
            described => described
                .map(|it| it.time_to_live_description)
                .map_err(Refusal::of),
        }
    };
    let described = persist(Call::Reads, describe).await.map_err(unavailable)?;
    match described.and_then(|it| it.time_to_live_status) {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {
            Err(DynamoDbOpenError::Expires)
        }
        _ => Ok(()),
    }
}

/// Global tables of the first version (2017.11.29) are tables of the same name in each region, and
/// a table does not say that it is part of one.
async fn check_global_table(table: &Table) -> Result<(), DynamoDbOpenError> {
    let describe = || async {
        let describe = table.client.describe_global_table();
        match describe.global_table_name(&*table.name).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("GlobalTableNotFoundException") => Ok(false),
            Err(error) if is_not_told(&error) => {
                warn_of(table, &error, "cannot see whether the table is replicated");
                Ok(false)
            }
            Err(error) => Err(Refusal::of(error)),
        }
    };
    match persist(Call::Reads, describe).await.map_err(unavailable)? {
        true => Err(DynamoDbOpenError::EventualReplicas),
        false => Ok(()),
    }
}

/// Whether this will not be told, however often it is asked: by want of permission, or by an
/// emulator.
fn is_not_told(error: &impl ProvideErrorMetadata) -> bool {
    error.code().is_some_and(|code| NOT_TOLD.contains(&code))
}

fn warn_of(table: &Table, error: &impl ProvideErrorMetadata, what: &str) {
    let error = error.code().unwrap_or("no answer");
    tracing::warn!(table = &*table.name, error, "{what}");
}

async fn warn_of_backups(table: &Table) {
    let described = table
        .client
        .describe_continuous_backups()
        .table_name(&*table.name);
    let status = match described.send().await {
        Ok(described) => described
            .continuous_backups_description
            .and_then(|it| it.point_in_time_recovery_description)
            .and_then(|it| it.point_in_time_recovery_status),
        Err(error) => {
            let error = error.code().unwrap_or("no answer");
            tracing::warn!(
                table = &*table.name,
                error,
                "cannot see whether the table is backed up"
            );
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
    let on = PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(true)
        .build()
        .expect("the switch is all that is needed");
    let update = table
        .client
        .update_continuous_backups()
        .table_name(&*table.name);
    if let Err(error) = update.point_in_time_recovery_specification(on).send().await {
        let error = error.code().unwrap_or("no answer");
        tracing::warn!(
            table = &*table.name,
            error,
            "cannot switch point-in-time recovery on"
        );
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

const NOT_TOLD: [&str; 2] = ["AccessDeniedException", "UnknownOperationException"];

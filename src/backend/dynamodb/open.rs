//! Creates a table, and checks that a table keeps rows safely.

use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, TableDescription, TimeToLiveStatus,
};

use super::checks::{Writers, check_description, refused};
use super::refusal::{Call, Refusal, persist};
use super::schema;
use super::table::Table;
use crate::backend::{ConnectError, ConnectErrorKind as Kind};

/// Checks that this table keeps rows safely.
pub(super) async fn check(table: &Table, writers: Writers) -> Result<(), ConnectError> {
    let refused = |kind, text: &str| refused(&table.name, kind, text);
    let described = describe(table).await?.ok_or_else(|| {
        refused(
            Kind::NotMigrated,
            "does not exist in this account and region; create it with \
             `DynamoDbBackend::create_table`, or from the text of `cloud_formation` or `terraform`",
        )
    })?;
    check_description(&table.name, &described, writers)?;
    if has_time_to_live(table).await? {
        return Err(refused(
            Kind::Misconfigured,
            "has a time to live, which deletes installations; switch it off",
        ));
    }
    if writers == Writers::Any && is_global(table).await? {
        return Err(refused(Kind::Misconfigured, super::checks::EVENTUAL));
    }
    warn_of_backups(table).await;
    Ok(())
}

/// Creates the table, unless it exists, and waits until it is ready.
pub(super) async fn create(table: &Table) -> Result<(), ConnectError> {
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
        return Err(failed(table, Refusal::of(error)));
    }
    let mut outcome = Err(refused(
        &table.name,
        Kind::Unavailable,
        "was created, but DynamoDB does not list it yet; try again",
    ));
    for _ in 0..CREATE_LOOKS {
        if let Some(described) = describe(table).await? {
            // A table that other regions write to is still a table of this crate.
            outcome = check_description(&table.name, &described, Writers::ThisRegion);
            match &outcome {
                Ok(()) => {
                    protect(table).await;
                    break;
                }
                Err(error) if error.kind() == Kind::Unavailable => {}
                Err(_) => break,
            }
        }
        tokio::time::sleep(CREATE_PAUSE).await;
    }
    outcome
}

async fn describe(table: &Table) -> Result<Option<TableDescription>, ConnectError> {
    let describe = || {
        table
            .client
            .describe_table()
            .table_name(&*table.name)
            .send()
    };
    let described = ask(table, "ResourceNotFoundException", None, describe).await?;
    Ok(described.and_then(|described| described.table))
}

/// Returns whether rows expire by any attribute, even by one that this crate does not write.
async fn has_time_to_live(table: &Table) -> Result<bool, ConnectError> {
    let unknown = Some("cannot check whether rows expire");
    let describe = || {
        let describe = table.client.describe_time_to_live();
        describe.table_name(&*table.name).send()
    };
    let described = ask(table, "", unknown, describe).await?;
    let described = described.and_then(|it| it.time_to_live_description);
    Ok(matches!(
        described.and_then(|it| it.time_to_live_status),
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    ))
}

/// Returns whether the table is part of a global table of version 2017.11.29. Such a global table
/// consists of tables of the same name in each region, and a table's description does not name it.
async fn is_global(table: &Table) -> Result<bool, ConnectError> {
    let unknown = Some("cannot check whether the table is replicated");
    let describe = || {
        let describe = table.client.describe_global_table();
        describe.global_table_name(&*table.name).send()
    };
    let described = ask(table, "GlobalTableNotFoundException", unknown, describe).await?;
    Ok(described.is_some())
}

/// Returns the response; `None` if DynamoDB's error has the code `absent`. With `unknown`, also
/// returns `None`, and logs this text as a warning, if the call is not allowed or an emulator does
/// not know it.
async fn ask<T, E, F>(
    table: &Table,
    absent: &str,
    unknown: Option<&str>,
    make: impl Fn() -> F + Sync,
) -> Result<Option<T>, ConnectError>
where
    T: Send,
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
{
    let ask = || async {
        let error = match make().await {
            Ok(response) => return Ok(Some(response)),
            Err(error) => error,
        };
        let code = error.code().unwrap_or_default();
        match unknown {
            _ if code == absent && !absent.is_empty() => Ok(None),
            Some(unknown) if NOT_TOLD.contains(&code) => {
                warn(table, &error, unknown);
                Ok(None)
            }
            _ => Err(Refusal::of(error)),
        }
    };
    let answered = persist(Call::Reads, ask).await;
    answered.map_err(|refusal| failed(table, refusal))
}

fn warn(table: &Table, error: &impl ProvideErrorMetadata, what: &str) {
    let error = error.code().unwrap_or("no response");
    tracing::warn!(
        table = &*table.name,
        what,
        error,
        "a setting of the table cannot be checked"
    );
}

async fn warn_of_backups(table: &Table) {
    let describe = table.client.describe_continuous_backups();
    let status = match describe.table_name(&*table.name).send().await {
        Ok(described) => described
            .continuous_backups_description
            .and_then(|it| it.point_in_time_recovery_description)
            .and_then(|it| it.point_in_time_recovery_status),
        Err(error) => return warn(table, &error, "cannot check whether the table is backed up"),
    };
    if status != Some(PointInTimeRecoveryStatus::Enabled) {
        tracing::warn!(
            table = &*table.name,
            "the table has no point-in-time recovery; switch it on, because users must install \
             the app again if installations are lost"
        );
    }
}

/// Switches point-in-time recovery on. Emulators do not have it.
async fn protect(table: &Table) {
    let on = PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(true)
        .build()
        .expect("the only required field is set");
    let update = table.client.update_continuous_backups();
    let update = update
        .table_name(&*table.name)
        .point_in_time_recovery_specification(on);
    if let Err(error) = update.send().await {
        warn(table, &error, "cannot switch point-in-time recovery on");
    }
}

fn failed(table: &Table, refusal: Refusal) -> ConnectError {
    let (kind, text) = match refusal {
        Refusal::Denied(_) => (
            Kind::Denied,
            "cannot be checked, because DynamoDB refused the request; check the credentials, the \
             region and the permissions that the documentation of `DynamoDbBackend` lists",
        ),
        Refusal::Malformed(_) => (
            Kind::Invalid,
            "cannot be checked, because DynamoDB found the request malformed; check the table's \
             name and the region",
        ),
        _ => (
            Kind::Unavailable,
            "cannot be checked, because DynamoDB did not respond; check the network and the region",
        ),
    };
    refused(&table.name, kind, text).with_source(refusal.into_cause())
}

/// With the pause, five minutes. A table usually takes ten seconds.
const CREATE_LOOKS: usize = 600;

const CREATE_PAUSE: Duration = Duration::from_millis(500);

/// Codes of a missing permission, and of an operation that an emulator does not know.
const NOT_TOLD: [&str; 2] = ["AccessDeniedException", "UnknownOperationException"];

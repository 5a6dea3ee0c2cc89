//! What DynamoDB's errors mean, and which calls are retried.

use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_get_items::TransactGetItemsError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;
use thiserror::Error as ThisError;

use super::item::Item;
use crate::backend::{BoxError, Error};
use crate::random;

/// Why a call failed, by its consequence.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nothing was written; the same call may succeed a moment later.
    Busy(BoxError),
    /// Nothing was written. Retries fail until the operator changes the table or its policies.
    Denied(BoxError),
    /// Nothing was written, and a retry fails again.
    Malformed(BoxError),
    /// It is unknown whether the call was applied.
    Open(BoxError),
    /// Nothing was written, because these conditions were not met.
    Unmet(Vec<Unmet>),
}

/// A condition that was not met.
#[derive(Debug)]
pub(super) struct Unmet {
    /// The index of its write.
    pub(super) at: usize,
    /// The stored item.
    pub(super) item: Option<Item>,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(error) => Self::Malformed(error),
            Refusal::Unmet(_) => Self::Conflict,
            other => Self::Unavailable(other.into_cause()),
        }
    }
}

impl Refusal {
    pub(super) fn into_cause(self) -> BoxError {
        match self {
            Self::Busy(error)
            | Self::Denied(error)
            | Self::Malformed(error)
            | Self::Open(error) => error,
            Self::Unmet(_) => "a condition was not met".into(),
        }
    }

    /// Maps the error of a call that has no conditions, or whose conditions the caller handles.
    pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let code = error.code().unwrap_or_default().to_owned();
        let failed = Box::new(Failed::of(&error));
        match error {
            SdkError::ConstructionFailure(_) => Self::Malformed(failed),
            SdkError::ServiceError(_) if BUSY.contains(&&*code) => Self::Busy(failed),
            SdkError::ServiceError(_) if MALFORMED.contains(&&*code) => Self::Malformed(failed),
            SdkError::ServiceError(answer) if answer.raw().status().is_client_error() => {
                Self::Denied(failed)
            }
            _ => Self::Open(failed),
        }
    }

    pub(super) fn of_transact_write(
        error: SdkError<TransactWriteItemsError, HttpResponse>,
    ) -> Self {
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                Self::of_reasons(canceled.cancellation_reasons())
            }
            // DynamoDB returns this for a token that was sent before. A token is sent again only
            // after a response that says that nothing was written.
            Some(TransactWriteItemsError::TransactionInProgressException(_)) => {
                Self::Open(Box::new(Failed::of(&error)))
            }
            _ => Self::of(error),
        }
    }

    pub(super) fn of_transact_get(error: SdkError<TransactGetItemsError, HttpResponse>) -> Self {
        match error.as_service_error() {
            Some(TransactGetItemsError::TransactionCanceledException(canceled)) => {
                Self::of_reasons(canceled.cancellation_reasons())
            }
            _ => Self::of(error),
        }
    }

    /// Maps the reasons of a canceled transaction, which wrote nothing. There is one reason for
    /// each action; most are `None`.
    fn of_reasons(reasons: &[CancellationReason]) -> Self {
        let codes = || {
            reasons
                .iter()
                .filter_map(|reason| reason.code())
                .filter(|it| *it != "None")
        };
        let unmet = |(at, reason): (usize, &CancellationReason)| {
            let unmet = reason.code() == Some("ConditionalCheckFailed");
            unmet.then(|| Unmet {
                at,
                item: reason.item.clone(),
            })
        };
        let unmet: Vec<_> = reasons.iter().enumerate().filter_map(unmet).collect();
        if !unmet.is_empty() {
            return Self::Unmet(unmet);
        }
        let error = format!(
            "the transaction was canceled: {}",
            codes().collect::<Vec<_>>().join(", ")
        );
        if codes().any(|code| MALFORMED_REASONS.contains(&code)) {
            return Self::Malformed(error.into());
        }
        if codes().all(|code| BUSY_REASONS.contains(&code)) {
            Self::Busy(error.into())
        } else {
            Self::Denied(error.into())
        }
    }
}

/// Defines the mapping of one write's error, whose condition may not have been met.
macro_rules! of_write {
    ($name:ident, $error:ident) => {
        impl Refusal {
            pub(super) fn $name(error: SdkError<$error, HttpResponse>) -> Self {
                match error.as_service_error() {
                    Some($error::ConditionalCheckFailedException(unmet)) => {
                        Self::Unmet(vec![Unmet {
                            at: 0,
                            item: unmet.item.clone(),
                        }])
                    }
                    _ => Self::of(error),
                }
            }
        }
    };
}

of_write!(of_delete, DeleteItemError);
of_write!(of_put, PutItemError);
of_write!(of_update, UpdateItemError);

/// Retries a call until its outcome is known. Retries if the error says that nothing was written
/// and that the cause is temporary. A call that only reads is also retried if no response arrived.
/// Each pause has a random length, up to a limit that doubles.
pub(super) async fn persist<T, F>(call: Call, mut make: impl FnMut() -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Refusal>>,
{
    let mut unanswered = 0;
    for attempt in 0..BUSY_RETRIES {
        match make().await {
            Err(Refusal::Busy(_)) => {}
            Err(Refusal::Open(_)) if call == Call::Reads && unanswered < OPEN_RETRIES => {
                unanswered += 1;
            }
            answered => return answered,
        }
        pause(attempt).await;
    }
    make().await
}

/// Whether a call may be applied twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    Reads,
    Writes,
}

/// Waits for a random part of a limit that doubles with each attempt.
pub(super) async fn pause(attempt: u32) {
    let limit = PAUSE
        .saturating_mul(1 << attempt.min(16))
        .min(LONGEST_PAUSE);
    let part = f64::from(u32::from_be_bytes(random::bytes())) / f64::from(u32::MAX);
    tokio::time::sleep(limit.mul_f64(part)).await;
}

/// The text of an SDK error, with its causes. The SDK's `Debug` would show the whole response, with
/// its rows.
#[derive(Debug, ThisError)]
#[error("{0}")]
struct Failed(String);

impl Failed {
    fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let mut words = error.to_string();
        if let (Some(code), message) = (error.code(), error.message()) {
            words = format!("{code}: {}", message.unwrap_or("no message"));
        }
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source.filter(|_| !matches!(error, SdkError::ServiceError(_))) {
            words = format!("{words}: {cause}");
            source = cause.source();
        }
        Self(words)
    }
}

/// Error codes that mean that nothing was written, and that a retry may succeed.
const BUSY: [&str; 6] = [
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TransactionConflictException",
];

/// The same causes, as cancellation reasons of a transaction.
const BUSY_REASONS: [&str; 3] = [
    "ProvisionedThroughputExceeded",
    "ThrottlingError",
    "TransactionConflict",
];

/// Error codes that the same request always returns.
const MALFORMED: [&str; 4] = [
    "IdempotentParameterMismatchException",
    "ItemCollectionSizeLimitExceededException",
    "SerializationException",
    "ValidationException",
];

/// The same causes, as cancellation reasons of a transaction.
const MALFORMED_REASONS: [&str; 2] = ["ItemCollectionSizeLimitExceeded", "ValidationError"];

/// With the pauses, about two seconds: longer than a conflict lasts, shorter than a caller waits.
const BUSY_RETRIES: u32 = 8;

/// The number of retries that the SDK makes by default.
const OPEN_RETRIES: u32 = 2;

/// About the time that DynamoDB takes for a transaction.
const PAUSE: Duration = Duration::from_millis(20);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

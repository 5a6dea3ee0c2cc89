//! What the errors of AWS KMS mean.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

use super::arn::KeyArn;
use crate::seal::KeyError;

/// Returns the error of a call. `action` is the permission that the call needs.
pub(super) fn key_error<E, R>(error: SdkError<E, R>, key: &KeyArn, action: &str) -> KeyError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    let key = key.as_str();
    let Some(service) = error.as_service_error() else {
        return unavailable(error);
    };
    match service.code().unwrap_or_default() {
        "InvalidCiphertextException" => KeyError::Changed,
        "DisabledException" => refused(format!(
            "the KMS key `{key}` is disabled: enable it with `aws kms enable-key`"
        )),
        "KMSInvalidStateException" | "KMSInvalidState" => refused(format!(
            "the KMS key `{key}` is in a state in which it cannot be used. If its deletion is \
             pending, cancel that with `aws kms cancel-key-deletion`, then enable it"
        )),
        "AccessDeniedException" | "AccessDenied" => refused(format!(
            "AWS denies `{action}` on `{key}`: permit it in the policy of the process's role, and \
             in the key's policy. A condition on the encryption context may not match"
        )),
        "InvalidKeyUsageException" => refused(format!(
            "the KMS key `{key}` is not for encryption: make one with the usage ENCRYPT_DECRYPT \
             and the spec SYMMETRIC_DEFAULT"
        )),
        code @ ("UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException"
        | "OptInRequired") => refused(format!(
            "AWS does not accept the credentials of this process ({code}): check their source, and \
             the machine's clock"
        )),
        "IncorrectKeyException" => KeyError::UnknownKey {
            reason: format!(
                "another KMS key than `{key}` wrapped the data key: its row was changed, or restore \
                 the provider's former key URL"
            ),
        },
        "NotFoundException" => KeyError::UnknownKey {
            reason: format!(
                "the KMS key `{key}` does not exist: check the ARN's account and region. A deleted \
                 key cannot be restored"
            ),
        },
        "ValidationException" | "SerializationException" => refused(format!(
            "AWS KMS does not accept the call of `{action}` on `{key}`"
        )),
        // Throttling, internal errors, and codes that are not known.
        _ => unavailable(error),
    }
}

/// Returns the error for a response that another key was used for.
pub(super) fn other_key(key: &KeyArn) -> KeyError {
    refused(format!(
        "AWS KMS responded for another key than `{}`: check the endpoint",
        key.as_str()
    ))
}

/// Returns the cause without the response. Its `Debug` would show the body, which may hold a key.
fn unavailable<E, R>(error: SdkError<E, R>) -> KeyError
where
    E: Error + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    let cause = error.into_source();
    KeyError::Unavailable(cause.unwrap_or_else(|_| "AWS KMS did not respond".into()))
}

fn refused(reason: String) -> KeyError {
    KeyError::Refused { reason }
}

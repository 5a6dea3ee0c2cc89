//! Key providers on real servers: OpenBao, and moto for AWS.

use slack_installs::{DataKey, KeyContext, KeyError, KeyId};

mod aws_kms;
mod aws_secret;
mod bao;
mod moto;
mod vault;
mod vault_login;
mod vault_outage;

#[path = "../support/http_proxy.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of DynamoDB"
)]
mod proxy;
#[path = "../support/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of other servers"
)]
mod server;

const APP: &str = "100000000001.200000000002";

fn context(epoch: u64) -> KeyContext<'static> {
    KeyContext {
        app: APP,
        key_id: KeyId::from_bytes([7; 16]),
        epoch,
    }
}

fn is_unknown(result: &Result<DataKey, KeyError>) -> bool {
    matches!(result, Err(KeyError::UnknownKey { .. }))
}

fn is_changed(result: &Result<DataKey, KeyError>) -> bool {
    matches!(result, Err(KeyError::Changed))
}

fn is_unavailable(result: &Result<DataKey, KeyError>) -> bool {
    matches!(result, Err(KeyError::Unavailable(_)))
}

/// Returns the reason of a refused call.
fn reason(result: Result<DataKey, KeyError>) -> String {
    match result {
        Err(KeyError::Refused { reason } | KeyError::UnknownKey { reason }) => reason,
        other => panic!("the call was not refused: {other:?}"),
    }
}

//! DynamoDB: the conformance suite, and what only DynamoDB makes difficult.

#![allow(unreachable_pub)]

use slack_installs::backend::{CacheOptions, CachedBackend, DynamoDbBackend, Faults, Flaky};
use slack_installs::conformance;

use self::support::dynamodb::Emulator;

mod clear;
mod faults;
mod histories;
mod kit;
mod tables;

#[path = "../support"]
mod support {
    #![allow(dead_code, unreachable_pub)]

    pub mod dynamodb;
    pub mod linearizable;
    #[path = "http_proxy.rs"]
    pub mod proxy;
    pub mod server;
}

conformance!(dynamodb);
conformance!(dynamodb_cached);
conformance!(dynamodb_that_loses_answers);

async fn dynamodb() -> (DynamoDbBackend, Emulator) {
    let emulator = Emulator::start();
    (emulator.backend().await, emulator)
}

async fn dynamodb_cached() -> (CachedBackend<DynamoDbBackend>, Emulator) {
    let (backend, emulator) = dynamodb().await;
    (
        CachedBackend::new(backend, CacheOptions::default()),
        emulator,
    )
}

async fn dynamodb_that_loses_answers() -> (Flaky<DynamoDbBackend>, Emulator) {
    let (backend, emulator) = dynamodb().await;
    (Flaky::new(backend, Faults::default()), emulator)
}

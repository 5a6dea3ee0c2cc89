//! DynamoDB: lost answers, and what only DynamoDB makes difficult. `tests/suite` has the rest.

#![allow(unreachable_pub)]

use slack_installs::backend::{DynamoDbBackend, Faults, Flaky};
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
    pub mod queues;
    pub mod server;
}

conformance!(dynamodb_that_loses_answers);

async fn dynamodb_that_loses_answers() -> (Flaky<DynamoDbBackend>, Emulator) {
    let emulator = Emulator::start();
    let flaky = Flaky::new(emulator.backend().await, Faults::default());
    (flaky, emulator)
}

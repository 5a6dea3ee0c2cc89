//! DynamoDB: lost responses, and what is difficult only on DynamoDB. `tests/suite` has the other
//! tests.

#![allow(unreachable_pub)]

use slack_installs::backend::{DynamoDbBackend, Key};
use slack_installs::conformance;
use slack_installs::testing::{Faults, Flaky};

use self::support::dynamodb::{Emulator, WAYS_TO_SPOIL, spoil};

mod clear;
mod faults;
mod histories;
mod kit;
mod tables;

#[path = "../support"]
mod support {
    #![allow(dead_code, unreachable_pub)]

    pub mod dynamodb;
    pub mod history;
    #[path = "http_proxy.rs"]
    pub mod proxy;
    pub mod queues;
    pub mod server;
}

conformance!(dynamodb_that_loses_answers, spoil_row);

async fn dynamodb_that_loses_answers() -> (Flaky<DynamoDbBackend>, (Emulator, String)) {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let backend = kit::connect(&emulator.client(), &table).await;
    let flaky = Flaky::new(backend, Faults::default());
    (flaky, (emulator, table))
}

async fn spoil_row(_: &Flaky<DynamoDbBackend>, (emulator, table): &(Emulator, String), key: Key) {
    spoil(&emulator.client(), table, &key, WAYS_TO_SPOIL[0]).await;
}

//! An emulator of DynamoDB.

use std::sync::Arc;

use slack_installs::backend::DynamoDbBackend;

use super::House;
use crate::support::checks::Database;
use crate::{contract, malformed, server, stores, suite_cached};
use emulator::{Emulator, WAYS_TO_SPOIL, spoil};

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../../support/dynamodb.rs"]
mod emulator;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamodb() {
    let emulator = Emulator::start();
    let backend = Arc::new(emulator.backend().await);
    stores("dynamodb", &Database::from(backend)).await;
}

/// The table is its own, because the emulator is slow to scan the rows of the other checks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamodb_keeps_the_contract() {
    let emulator = Emulator::start();
    let (client, table) = (emulator.client(), emulator.table().await);
    let backend = DynamoDbBackend::connect(&client, &table).await;
    let backend = backend.expect("the table was just created");
    for way in WAYS_TO_SPOIL {
        malformed("dynamodb", &backend, way, &|key| {
            let (client, table) = (&client, &table);
            Box::pin(async move { spoil(client, table, &key, way).await })
        })
        .await;
    }
    contract("dynamodb", &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamodb_through_a_cache() {
    let emulator = Emulator::start();
    let backend = Arc::new(emulator.backend().await);
    suite_cached("dynamodb through a cache", backend).await;
}

pub async fn house() -> House {
    let emulator = Emulator::start();
    let backend = emulator.backend().await;
    let refuses = &["sealed/large", "metadata/large"];
    House::new("dynamodb", backend, emulator).refusing(refuses)
}

//! Helpers of the DynamoDB tests.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use slack_installs::backend::{
    Backend, Change, DynamoDbBackend, Expect, Metadata, Partition, Row, Sealed, Slot, Version,
};

use crate::support::dynamodb::{Emulator, client};
use crate::support::proxy::Proxy;

/// A table with a direct backend and one behind a proxy.
pub struct Bench {
    pub emulator: Emulator,
    pub table: String,
    pub proxy: Proxy,
    /// Connects directly to the emulator.
    pub straight: DynamoDbBackend,
    /// Connects through the proxy.
    pub proxied: DynamoDbBackend,
}

impl Bench {
    pub async fn new() -> Self {
        let emulator = Emulator::start();
        let table = emulator.table().await;
        let proxy = Proxy::start(&emulator.url).await;
        let straight = connect(&emulator.client(), &table).await;
        let proxied = connect(&client(&proxy.url), &table).await;
        Self {
            emulator,
            table,
            proxy,
            straight,
            proxied,
        }
    }

    /// Returns the sort keys of all items of a partition, including items that are not rows.
    pub async fn items(&self, partition: &Partition) -> Vec<String> {
        let partition = AttributeValue::S(partition.to_string());
        let query = self
            .emulator
            .client()
            .query()
            .table_name(&self.table)
            .consistent_read(true);
        let query = query.key_condition_expression("pk = :pk");
        let found = query
            .expression_attribute_values(":pk", partition)
            .send()
            .await;
        let found = found
            .expect("the emulator responds")
            .items
            .unwrap_or_default();
        let name = |item: &std::collections::HashMap<_, AttributeValue>| {
            item["sk"].as_s().expect("names are text").clone()
        };
        found.iter().map(name).collect()
    }
}

pub async fn connect(client: &Client, table: &str) -> DynamoDbBackend {
    DynamoDbBackend::connect(client, table)
        .await
        .expect("the table was just made")
}

pub fn tenant(name: &str) -> Partition {
    Partition::new(name).expect("the tests use plain, short names")
}

pub fn slot(name: &str) -> Slot {
    Slot::new(name).expect("the tests use plain, short names")
}

pub fn slots(count: usize) -> Vec<Slot> {
    (0..count)
        .map(|at| slot(&format!("user/U{at:03}")))
        .collect()
}

/// Returns a row with a new version. Its sealed bytes have the form of an envelope, but no key
/// opens them.
pub fn row() -> Row {
    let mut sealed = b"SLE1".to_vec();
    sealed.resize(160, 0x5a);
    let sealed = Sealed::from_stored(sealed);
    Row {
        version: Version::mint(),
        metadata: Metadata::new("{}"),
        sealed,
        due: None,
    }
}

pub fn put(slot: &Slot, row: &Row, expect: Expect) -> Change {
    Change::Put {
        slot: slot.clone(),
        row: row.clone(),
        expect,
    }
}

pub fn delete(slot: &Slot, only: Option<Version>) -> Change {
    Change::Delete {
        slot: slot.clone(),
        only,
    }
}

/// Creates a row in an empty slot.
pub async fn plant(backend: &dyn Backend, partition: &Partition, slot: &Slot) -> Row {
    let row = row();
    let changes = [put(slot, &row, Expect::Absent)];
    backend
        .commit(partition, &changes)
        .await
        .expect("the slot is empty");
    row
}

/// Creates a row in each of these empty slots.
pub async fn fill(backend: &dyn Backend, partition: &Partition, slots: &[Slot]) -> Vec<Row> {
    let rows: Vec<_> = slots.iter().map(|_| row()).collect();
    let changes: Vec<_> = slots
        .iter()
        .zip(&rows)
        .map(|(slot, row)| put(slot, row, Expect::Absent))
        .collect();
    for some in changes.chunks(90) {
        backend
            .commit(partition, some)
            .await
            .expect("the slot is empty");
    }
    rows
}

pub async fn rows(
    backend: &dyn Backend,
    partition: &Partition,
    slots: &[Slot],
) -> Vec<Option<Row>> {
    let mut rows = Vec::new();
    for some in slots.chunks(90) {
        rows.extend(
            backend
                .read(partition, some)
                .await
                .expect("the emulator responds"),
        );
    }
    rows
}

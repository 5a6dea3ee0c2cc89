//! Which tables are used, and which are refused.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TimeToLiveSpecification,
};
use slack_installs::backend::{Backend, DynamoDbBackend, DynamoDbOpenError, Expect};

use crate::kit::{connect, plant, put, row, rows, slot, tenant};
use crate::support::dynamodb::{Emulator, client};
use crate::support::proxy::{Fate, Proxy};

#[tokio::test]
async fn many_processes_may_make_the_table_at_once() {
    let emulator = Emulator::start();
    let mut makers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = emulator.client();
        makers.spawn(async move { DynamoDbBackend::create_table(&client, "rows-of-all").await });
    }
    while let Some(made) = makers.join_next().await {
        made.expect("it does not panic")
            .expect("the table is made, or there");
    }
    let backend = connect(&emulator.client(), "rows-of-all").await;
    let (partition, bot) = (tenant(&format!("app/{:?}", row().version)), slot("bot"));
    let planted = plant(&backend, &partition, &bot).await;

    DynamoDbBackend::create_table(&emulator.client(), "rows-of-all")
        .await
        .expect("it is there");
    assert_eq!(rows(&backend, &partition, &[bot]).await, [Some(planted)]);
}

#[tokio::test]
async fn a_missing_table_is_refused_with_the_remedy() {
    let emulator = Emulator::start();
    let refused = DynamoDbBackend::connect(&emulator.client(), "none").await;
    let refused = refused.expect_err("there is no such table");
    assert!(matches!(refused, DynamoDbOpenError::Missing), "{refused:?}");
    assert!(refused.to_string().contains("create_table"), "{refused}");
}

#[tokio::test]
async fn a_table_of_another_making_is_refused() {
    let emulator = Emulator::start();
    for (name, keys) in [("id", ["id", "at"]), ("pk", ["pk", "sk"])] {
        let name = format!("{name}-{:?}", row().version);
        let mut table = emulator.client().create_table().table_name(&name);
        for (key, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
            let defined = AttributeDefinition::builder().attribute_name(*key);
            let defined = defined.attribute_type(ScalarAttributeType::S).build();
            let element = KeySchemaElement::builder()
                .attribute_name(*key)
                .key_type(kind)
                .build();
            table = table
                .attribute_definitions(defined.expect("it is complete"))
                .key_schema(element.expect("it is complete"));
        }
        let table = table.billing_mode(BillingMode::PayPerRequest);
        table.send().await.expect("the name is new");
        let refused = DynamoDbBackend::connect(&emulator.client(), &name).await;
        match keys[0] {
            "id" => assert!(
                matches!(refused, Err(DynamoDbOpenError::WrongKeys)),
                "{refused:?}"
            ),
            _ => assert!(
                matches!(refused, Err(DynamoDbOpenError::NoIndex)),
                "{refused:?}"
            ),
        }
    }
}

#[tokio::test]
async fn a_table_whose_rows_expire_is_refused() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let expiry = TimeToLiveSpecification::builder()
        .attribute_name("due_at")
        .enabled(true);
    let expiry = expiry.build().expect("it is complete");
    let update = emulator.client().update_time_to_live().table_name(&table);
    update
        .time_to_live_specification(expiry)
        .send()
        .await
        .expect("the emulator can do that");
    let refused = DynamoDbBackend::connect(&emulator.client(), &table).await;
    assert!(
        matches!(refused, Err(DynamoDbOpenError::Expires)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_looked_at_for_lack_of_permission_is_not_refused() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let proxy = Proxy::start(&emulator.url).await;
    let denied = r#"{"__type":"x#AccessDeniedException","message":"made up"}"#;
    proxy.decide(move |request| match request.operation.as_str() {
        "DescribeContinuousBackups" | "DescribeTimeToLive" => Fate::Answer(400, denied.into()),
        _ => Fate::Pass,
    });
    connect(&client(&proxy.url), &table).await;

    proxy.decide(move |_| Fate::Answer(400, denied.into()));
    let refused = DynamoDbBackend::connect(&client(&proxy.url), &table).await;
    assert!(
        matches!(refused, Err(DynamoDbOpenError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let proxy = Proxy::start(&emulator.url).await;
    let backend = connect(&client(&proxy.url), &table).await;
    let url = proxy.url.clone();
    drop(proxy);
    let refused = DynamoDbBackend::connect(&client(&url), &table).await;
    assert!(
        matches!(refused, Err(DynamoDbOpenError::Unavailable(_))),
        "{refused:?}"
    );
    let bot = slot("bot");
    let changes = [put(&bot, &row(), Expect::Any)];
    let partition = tenant("app/T1");
    for outcome in [
        backend.read(&partition, &[bot]).await.map(drop),
        backend.commit(&partition, &changes).await,
        backend.scan(None, 1).await.map(drop),
        backend.due(std::time::SystemTime::now(), 1).await.map(drop),
    ] {
        let error = outcome.expect_err("there is no server");
        assert!(error.is_transient(), "{error:?}");
    }
}

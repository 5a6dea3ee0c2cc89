//! Which tables are accepted, and which are refused.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TimeToLiveSpecification,
};
use slack_installs::backend::{
    Backend, ConnectError, ConnectErrorKind as Kind, DynamoDbBackend, Expect, Scope,
};

use crate::kit::{connect, plant, put, row, rows, slot, tenant};
use crate::support::dynamodb::{Emulator, client};
use crate::support::proxy::{Fate, Proxy};
use crate::support::queues::refreshes;

#[tokio::test]
async fn many_processes_may_make_the_table_at_once() {
    let emulator = Emulator::start();
    let mut makers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = emulator.client();
        makers.spawn(async move { DynamoDbBackend::create_table(&client, "rows-of-all").await });
    }
    while let Some(made) = makers.join_next().await {
        made.expect("it does not panic").expect("the table exists");
    }
    let backend = connect(&emulator.client(), "rows-of-all").await;
    let (partition, bot) = (tenant(&format!("app/{:?}", row().version)), slot("bot"));
    let planted = plant(&backend, &partition, &bot).await;

    DynamoDbBackend::create_table(&emulator.client(), "rows-of-all")
        .await
        .expect("exists");
    assert_eq!(rows(&backend, &partition, &[bot]).await, [Some(planted)]);
}

#[tokio::test]
async fn a_url_with_an_endpoint_makes_the_table_and_opens_it() {
    let emulator = Emulator::start();
    let name = format!("by-url-{:?}", row().version);
    for _ in 0..2 {
        let url = format!("dynamodb:{name}?endpoint={}", emulator.url);
        let backend = slack_installs::backend::connect(&url).await;
        backend.expect("the emulator makes it");
    }
    connect(&emulator.client(), &name).await;
}

#[tokio::test]
async fn a_missing_table_is_refused_with_the_remedy() {
    let emulator = Emulator::start();
    let refused = DynamoDbBackend::connect(&emulator.client(), "none").await;
    let refused = refused.expect_err("there is no such table");
    assert_eq!(refused.kind(), Kind::NotMigrated, "{refused:?}");
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
            "id" => assert_refused(refused, Kind::Foreign, ""),
            _ => assert_refused(refused, Kind::NotMigrated, ""),
        }
    }
}

#[tokio::test]
async fn a_table_whose_rows_expire_is_refused() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let expiry = TimeToLiveSpecification::builder()
        .attribute_name("due_key")
        .enabled(true);
    let expiry = expiry.build().expect("it is complete");
    let update = emulator.client().update_time_to_live().table_name(&table);
    update
        .time_to_live_specification(expiry)
        .send()
        .await
        .expect("the emulator can do that");
    let refused = DynamoDbBackend::connect(&emulator.client(), &table).await;
    assert_refused(refused, Kind::Misconfigured, "time to live");
}

#[tokio::test]
async fn what_cannot_be_looked_at_for_lack_of_permission_is_not_refused() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let proxy = Proxy::start(&emulator.url).await;
    let denied = r#"{"__type":"x#AccessDeniedException","message":"made up"}"#;
    proxy.decide(move |request| match request.operation.as_str() {
        "DescribeContinuousBackups" | "DescribeGlobalTable" | "DescribeTimeToLive" => {
            Fate::Answer(400, denied.into())
        }
        _ => Fate::Pass,
    });
    connect(&client(&proxy.url), &table).await;

    proxy.decide(move |_| Fate::Answer(400, denied.into()));
    let refused = DynamoDbBackend::connect(&client(&proxy.url), &table).await;
    assert_refused(refused, Kind::Denied, "");
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
    assert_refused(refused, Kind::Unavailable, "");
    let bot = slot("bot");
    let changes = [put(&bot, &row(), Expect::Any)];
    let partition = tenant("app/T1");
    for outcome in [
        backend.read(&partition, &[bot]).await.map(drop),
        backend.commit(&partition, &changes).await,
        backend.scan(&Scope::Everything, None, 1).await.map(drop),
        backend
            .due(&refreshes(), std::time::SystemTime::now(), None, 1)
            .await
            .map(drop),
    ] {
        let error = outcome.expect_err("there is no server");
        assert!(error.is_transient(), "{error:?}");
    }
}

/// If a check gets no response, the table is not known to be safe.
#[tokio::test]
async fn a_question_without_an_answer_is_asked_again_and_then_unavailable() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let proxy = Proxy::start(&emulator.url).await;
    for operation in ["DescribeGlobalTable", "DescribeTimeToLive"] {
        let failed = Fate::Answer(500, r#"{"__type":"x#InternalServerError"}"#.into());
        let fate = failed.clone();
        proxy.decide(move |request| {
            if request.operation == operation {
                fate.clone()
            } else {
                Fate::Pass
            }
        });
        let refused = DynamoDbBackend::connect(&client(&proxy.url), &table).await;
        assert_refused(refused, Kind::Unavailable, "");
        let asked = std::sync::atomic::AtomicBool::new(false);
        proxy.decide(move |request| {
            let is_first = request.operation == operation
                && !asked.swap(true, std::sync::atomic::Ordering::Relaxed);
            if is_first { failed.clone() } else { Fate::Pass }
        });
        connect(&client(&proxy.url), &table).await;
    }
}

/// Global tables of version 2017.11.29: the description of the table itself does not show them.
#[tokio::test]
async fn a_global_table_of_the_first_version_is_refused_unless_one_region_writes() {
    let emulator = Emulator::start();
    let table = emulator.table().await;
    let proxy = Proxy::start(&emulator.url).await;
    let not_found = r#"{"__type":"x#GlobalTableNotFoundException","message":"made up"}"#;
    let found = r#"{"GlobalTableDescription":{"GlobalTableName":"made up"}}"#;
    for (status, body) in [(400, not_found), (200, found)] {
        proxy.decide(move |request| match request.operation.as_str() {
            "DescribeGlobalTable" => Fate::Answer(status, body.into()),
            _ => Fate::Pass,
        });
        let opened = DynamoDbBackend::connect(&client(&proxy.url), &table).await;
        match status {
            200 => assert_refused(opened, Kind::Misconfigured, "eventual"),
            _ => drop(opened.expect("a table of one region")),
        }
        DynamoDbBackend::connect_as_only_writer(&client(&proxy.url), &table)
            .await
            .expect("the only writer");
    }
}

#[tokio::test]
async fn a_table_of_another_making_is_left_alone_by_who_would_make_it() {
    let emulator = Emulator::start();
    let name = format!("other-{:?}", row().version);
    let key = AttributeDefinition::builder().attribute_name("id");
    let key = key.attribute_type(ScalarAttributeType::S).build();
    let element = KeySchemaElement::builder().attribute_name("id");
    let element = element.key_type(KeyType::Hash).build();
    let table = emulator.client().create_table().table_name(&name);
    let table = table
        .attribute_definitions(key.expect("it is complete"))
        .key_schema(element.expect("it is complete"))
        .billing_mode(BillingMode::PayPerRequest);
    table.send().await.expect("the name is new");
    let proxy = Proxy::start(&emulator.url).await;
    let refused = DynamoDbBackend::create_table(&client(&proxy.url), &name).await;
    assert_refused(refused, Kind::Foreign, "");
    let asked = proxy.operations();
    assert!(
        !asked.iter().any(|it| it == "UpdateContinuousBackups"),
        "{asked:?}"
    );
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(opened: Result<T, ConnectError>, kind: Kind, text: &str) {
    let refused = opened.expect_err("it must be refused");
    assert_eq!(refused.kind(), kind, "{refused:?}");
    assert!(refused.to_string().contains(text), "{refused}");
}

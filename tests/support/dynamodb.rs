//! A DynamoDB for tests: dynoxide as a child process, or the server that a URL names.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use slack_installs::backend::{DynamoDbBackend, Key, Version};

use super::server::Server;

/// A DynamoDB. If the test started it, dropping this value ends it.
#[derive(Debug)]
pub struct Emulator {
    pub url: String,
    _server: Option<Server>,
}

impl Emulator {
    pub fn start() -> Self {
        if let Ok(url) = std::env::var(URL) {
            return Self { url, _server: None };
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM);
        assert!(program.is_file(), "{PROGRAM} is not built; {REMEDY}");
        let (server, url) = Server::start_announced(&mut Command::new(program));
        Self {
            url,
            _server: Some(server),
        }
    }

    pub fn client(&self) -> Client {
        client(&self.url)
    }

    /// Creates a table. It is not removed, because the emulator keeps it in memory.
    pub async fn table(&self) -> String {
        let name = format!("t{:?}", Version::mint());
        DynamoDbBackend::create_table(&self.client(), &name)
            .await
            .expect("the name is new");
        name
    }

    pub async fn backend(&self) -> DynamoDbBackend {
        let table = self.table().await;
        DynamoDbBackend::connect(&self.client(), table)
            .await
            .expect("the table was just created")
    }
}

/// Returns a client that waits for responses even if the machine is busy.
pub fn client(url: &str) -> Client {
    hasty_client(url, Duration::from_secs(120))
}

/// Returns a client whose attempts time out after this time.
pub fn hasty_client(url: &str, patience: Duration) -> Client {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(patience);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .timeout_config(timeouts.build());
    Client::from_conf(config.build())
}

/// Updates that keep a row in its place, but make it impossible to parse.
pub const WAYS_TO_SPOIL: [&str; 5] = [
    "SET version = :bytes",
    "REMOVE version",
    "REMOVE sealed",
    "SET sealed = :text",
    "SET metadata = :bytes",
];

/// Spoils a row in one of these ways, without the backend.
pub async fn spoil(client: &Client, table: &str, key: &Key, way: &str) {
    let mut update = client
        .update_item()
        .table_name(table)
        .key("pk", AttributeValue::S(key.partition.to_string()))
        .key("sk", AttributeValue::S(key.slot.to_string()))
        .update_expression(way)
        .condition_expression("attribute_exists(pk)");
    for (name, value) in [
        (":bytes", AttributeValue::B(Blob::new([0]))),
        (":text", AttributeValue::S("text".into())),
    ] {
        if way.contains(name) {
            update = update.expression_attribute_values(name, value);
        }
    }
    update.send().await.expect("the row exists");
}

const PROGRAM: &str = "tests/emulators/dynoxide/target/debug/dynoxide-server";

const REMEDY: &str = "run `scripts/tools emulators`, or name the URL of another DynamoDB emulator \
                      in SLACK_INSTALLS_TEST_DYNAMODB_URL";

const URL: &str = "SLACK_INSTALLS_TEST_DYNAMODB_URL";

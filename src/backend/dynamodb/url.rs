//! From `dynamodb:TABLE?endpoint=URL` to a backend.

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, Region};

use super::{DynamoDbBackend, DynamoDbOpenError};

impl DynamoDbBackend {
    /// Opens `TABLE`, or `TABLE?endpoint=URL`, with AWS' default chain of regions and credentials.
    /// At an endpoint both may be missing, and the table is created if it does not exist.
    pub(in crate::backend) async fn from_url(place: &str) -> Result<Self, DynamoDbOpenError> {
        let (table, endpoint) = match place.split_once("?endpoint=") {
            Some((table, endpoint)) => (table, Some(endpoint)),
            None => (place, None),
        };
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        let http_client = match plain {
            true => Some(aws_smithy_http_client::Builder::new().build_http()),
            false => Self::https_client_if_any(),
        };
        if let Some(http_client) = http_client {
            loader = loader.http_client(http_client);
        }
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
            // An emulator requires some, and accepts any.
            if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
                let any = Credentials::new("emulator", "emulator", None, None, "emulator");
                loader = loader
                    .credentials_provider(any)
                    .region(Region::new("us-east-1"));
            }
        }
        let client = Client::new(&loader.load().await);
        if endpoint.is_some() {
            Self::create_table(&client, table).await?;
        }
        Self::connect(&client, table).await
    }
}

//! Opens a DynamoDB backend by a URL `dynamodb:TABLE?endpoint=URL`.

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, Region};

use super::{DynamoDbBackend, http};
use crate::backend::ConnectError;
use crate::backend::connect::{ByUrl, take_parameter};

#[async_trait]
impl ByUrl for DynamoDbBackend {
    const EXAMPLES: &str = "`dynamodb:TABLE`";

    /// With an endpoint, region and credentials are optional, and the table is created.
    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        let (place, endpoint) = take_parameter(url, "endpoint");
        let table = place.strip_prefix("dynamodb:").unwrap_or(&place);
        let Some(endpoint) = endpoint else {
            return Self::connect(&client(None).await, table).await;
        };
        let client = client(Some(&endpoint)).await;
        Self::create_table(&client, table).await?;
        Self::connect(&client, table).await
    }
}

async fn client(endpoint: Option<&str>) -> Client {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    let http_client = match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") => {
            Some(aws_smithy_http_client::Builder::new().build_http())
        }
        _ => http::https_if_any(),
    };
    if let Some(http_client) = http_client {
        loader = loader.http_client(http_client);
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
        // An emulator requires credentials, and accepts any.
        if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
            let any = Credentials::new("emulator", "emulator", None, None, "emulator");
            loader = loader
                .credentials_provider(any)
                .region(Region::new("us-east-1"));
        }
    }
    Client::new(&loader.load().await)
}

//! Opens a DynamoDB backend by a URL `dynamodb:TABLE?endpoint=URL`.

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;

use super::DynamoDbBackend;
use crate::aws;
use crate::backend::ConnectError;
use crate::backend::connect::{ByUrl, take_parameter};

#[async_trait]
impl ByUrl for DynamoDbBackend {
    const EXAMPLES: &str = "`dynamodb:TABLE`";

    /// With an endpoint, region and credentials are optional, and the table is created.
    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        let (place, endpoint) = take_parameter(url, "endpoint");
        let table = place.strip_prefix("dynamodb:").unwrap_or(&place);
        let client = Client::new(&aws::config(endpoint.as_deref(), None).await);
        if endpoint.is_some() {
            Self::create_table(&client, table).await?;
        }
        Self::connect(&client, table).await
    }
}

//! The app, as the fake Slack knows it.

use std::sync::Arc;

use url::Url;

use crate::tenant::{AppId, ClientId};

/// The one app of a fake Slack.
pub(super) struct App {
    pub(super) client_id: ClientId,
    pub(super) client_secret: String,
    pub(super) id: AppId,
    pub(super) name: String,
    pub(super) redirect_urls: Vec<Url>,
    pub(super) signing_secret: Arc<str>,
    /// The deprecated `token` field of every payload.
    pub(super) verification_token: String,
}

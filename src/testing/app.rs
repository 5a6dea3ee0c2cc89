//! The one app of a fake Slack.

use std::sync::Arc;

use url::Url;

use crate::tenant::{AppId, ClientId};

use super::mint::Mint;
use super::world::World;

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

impl App {
    pub(super) fn new(world: &World, mint: &mut Mint) -> Self {
        Self {
            client_id: ClientId::new(mint.client_id()).expect("a made-up id is well formed"),
            client_secret: mint.app_secret(),
            id: AppId::new(mint.id("A0")).expect("a made-up id is well formed"),
            name: world.app_name.clone(),
            redirect_urls: world.redirect_urls.clone(),
            signing_secret: mint.app_secret().into(),
            verification_token: mint.ticket(),
        }
    }
}

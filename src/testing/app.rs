//! The app of a fake Slack: its ids and secrets.

use std::sync::Arc;

use url::Url;

use crate::installation::Scopes;
use crate::tenant::{AppId, ClientId};

use super::mint::Mint;
use super::world::World;

/// The only app of a fake Slack.
pub(super) struct App {
    /// The scopes that are known in addition to the list.
    pub(super) added_scopes: Scopes,
    pub(super) client_id: ClientId,
    pub(super) client_secret: String,
    pub(super) id: AppId,
    pub(super) name: String,
    pub(super) redirect_urls: Vec<Url>,
    pub(super) signing_secret: Arc<str>,
    /// The value of the deprecated field `token` in every payload.
    pub(super) verification_token: String,
}

impl App {
    pub(super) fn new(world: &World, mint: &mut Mint) -> Self {
        Self {
            added_scopes: world.added_scopes.clone(),
            client_id: ClientId::new(mint.client_id()).expect("a generated id has the right form"),
            client_secret: mint.app_secret(),
            id: AppId::new(mint.id("A0")).expect("a generated id has the right form"),
            name: world.app_name.clone(),
            redirect_urls: world.redirect_urls.clone(),
            signing_secret: mint.app_secret().into(),
            verification_token: mint.ticket(),
        }
    }
}

//! A transport between a client and Slack, with hooks before and after each call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use slack_installs::slack::{Transport, TransportError};

/// Hooks around the calls of a [`HookedTransport`], which get the call's path. The defaults pass
/// every call on.
#[async_trait]
pub(crate) trait CallHooks: Send + Sync + 'static {
    /// Runs before a call.
    async fn before(&self, _: &str) {}

    /// Runs after a call, whether or not Slack responded.
    async fn after(&self, _: &str) {}

    /// Rewrites the body of a response.
    fn rewrite(&self, _: &str, body: Bytes) -> Bytes {
        body
    }
}

/// A transport with hooks. Clones share both.
pub(crate) struct HookedTransport<H> {
    inner: Arc<dyn Transport>,
    hooks: Arc<H>,
}

impl<H> HookedTransport<H> {
    pub(crate) fn over(inner: impl Transport, hooks: H) -> Self {
        Self {
            inner: Arc::new(inner),
            hooks: Arc::new(hooks),
        }
    }
}

impl<H> Clone for HookedTransport<H> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            hooks: Arc::clone(&self.hooks),
        }
    }
}

impl<H> Deref for HookedTransport<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.hooks
    }
}

impl<H> fmt::Debug for HookedTransport<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedTransport")
    }
}

#[async_trait]
impl<H: CallHooks> Transport for HookedTransport<H> {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let path = request.uri().path().to_owned();
        self.hooks.before(&path).await;
        let answer = self.inner.send(request).await;
        self.hooks.after(&path).await;
        Ok(answer?.map(|body| self.hooks.rewrite(&path, body)))
    }
}

/// Rewrites the bodies of responses.
pub(crate) struct Rewritten<F>(F);

impl<F> Rewritten<F>
where
    F: Fn(&str, Bytes) -> Bytes + Send + Sync + 'static,
{
    pub(crate) fn over(inner: impl Transport, rewrite: F) -> HookedTransport<Self> {
        HookedTransport::over(inner, Self(rewrite))
    }
}

impl<F> CallHooks for Rewritten<F>
where
    F: Fn(&str, Bytes) -> Bytes + Send + Sync + 'static,
{
    fn rewrite(&self, path: &str, body: Bytes) -> Bytes {
        (self.0)(path, body)
    }
}

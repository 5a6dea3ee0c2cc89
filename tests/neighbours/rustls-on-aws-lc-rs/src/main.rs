//! rustls with its default aws-lc-rs, and this crate with aws-lc-rs too.

#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    shared::slack_is_called_by_tls().await;
    shared::a_bare_builder_has_a_provider();
}

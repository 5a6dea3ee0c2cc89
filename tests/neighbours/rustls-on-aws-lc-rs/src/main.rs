//! rustls with aws-lc-rs, as it has it by default; this crate with it too.

#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    shared::slack_is_called_by_tls().await;
    shared::a_bare_builder_has_a_provider();
}

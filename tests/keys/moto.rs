//! moto, which imitates AWS.

use std::process::Command;

use tempfile::TempDir;

use crate::bao::until;
use crate::server::{Server, directory, find, free_port};

/// A server with the services KMS and Secrets Manager.
pub(crate) struct Moto {
    pub(crate) url: String,
    _server: Server,
    _directory: TempDir,
}

impl Moto {
    pub(crate) async fn start() -> Self {
        let remedy = "run `scripts/tools servers`";
        let program = find("moto_server", &["target/tools/venv/bin"], remedy);
        let (port, directory) = (free_port(), directory());
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Server::start(&mut command, &directory.path().join("log"));
        let url = format!("http://127.0.0.1:{port}");
        until("moto is ready", async || {
            reqwest::get(format!("{url}/moto-api/data.json"))
                .await
                .is_ok()
        })
        .await;
        Self {
            url,
            _server: server,
            _directory: directory,
        }
    }
}

pub(crate) const REGION: &str = "eu-central-1";

//! More of what the rotator must do: one file for each subject.

#[macro_use]
mod support;

#[path = "rotation_more/reinstall.rs"]
mod reinstall;
#[path = "rotation_more/succession.rs"]
mod succession;

use slack_installs::rotation::RefusedToken;
use slack_installs::testing::{Person, Rotation, Workspace};
use slack_installs::{InstallationKey, TeamId};

use support::rotation::{ADMIN, ALPHA, Stage};

const REFRESH: &str = "oauth.v2.access";

async fn installed() -> Stage {
    installed_with(Rotation::default()).await
}

async fn installed_with(rotation: Rotation) -> Stage {
    let stage = Stage::new(rotation).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage
}

/// Many tenants.
async fn fleet(stage: &Stage, size: usize) -> Vec<InstallationKey> {
    let mut tenants = Vec::new();
    for number in 0..size {
        let id = format!("T0FLEET{number:04}");
        stage.fake.add_workspace(Workspace::new(&id, "Fleet"));
        stage.fake.add_person(&id, Person::admin(ADMIN, "ada"));
        stage.install(&id, "chat:write", "").await;
        tenants.push(InstallationKey::workspace(TeamId::new(id).expect("an id")));
    }
    tenants
}

/// The host's own error.
#[derive(Debug)]
enum Posting {
    Expired,
}

impl RefusedToken for Posting {
    fn is_token_expired(&self) -> bool {
        matches!(self, Self::Expired)
    }
}

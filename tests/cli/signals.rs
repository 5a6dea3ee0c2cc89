//! A command that is interrupted.

use std::time::Duration;

use tokio::process::Command;

use super::House;
use crate::support::app::{ADA, ALPHA};
use slack_installs::store::Mark;
use slack_installs::testing::Fault;

async fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    let sent = kill.args([name, &process.to_string()]).status().await;
    assert!(sent.expect("`kill` runs").success());
}

#[tokio::test]
async fn a_signal_ends_a_long_command_with_its_own_code() {
    let house = House::new().await;
    house.install(ADA).await;
    for name in ["-INT", "-TERM"] {
        let calls = house.app.fake.calls("auth.test");
        house
            .app
            .fake
            .inject("auth.test", Fault::delay(Duration::from_secs(60)));
        let running = house
            .command(&["reconcile", "--pause", "0", "--dry-run"])
            .spawn()
            .expect("the program starts");
        while house.app.fake.calls("auth.test") == calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        signal(running.id().expect("it runs"), name).await;
        let output = running.wait_with_output().await.expect("it ends");
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("interrupted"), "{text}");
    }
}

#[tokio::test]
async fn a_refresh_that_is_interrupted_stores_the_pair_that_slack_issued() {
    let house = House::new().await;
    house.install(ADA).await;
    house.age(ALPHA).await;
    let calls = house.app.fake.calls("oauth.v2.access");
    // Slack issues the pair, and its response is late.
    let slow = Fault::delay(Duration::from_millis(1500)).after_effect();
    house.app.fake.inject("oauth.v2.access", slow);
    let running = house
        .command(&["refresh", ALPHA, "--yes"])
        .spawn()
        .expect("the program starts");
    while house.app.fake.calls("oauth.v2.access") == calls {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal(running.id().expect("it runs"), "-INT").await;
    let output = running.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let stored = house.app.stored(ALPHA, None).await;
    let token = stored.installation.bot.expect("a bot").grant.access_token;
    let live = house.app.fake.bot_token(ALPHA).expect("installed");
    assert_eq!(Mark::of_access_token(&live), Mark::of_access_token(&token));
}

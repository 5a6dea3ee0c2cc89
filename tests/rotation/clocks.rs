//! Times on which processes must agree, and clocks that do not.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slack_installs::store::{ChainKey, Credential, RotationStore as _};
use tracing_subscriber::fmt::MakeWriter;

use super::support::rotation::HOUR;
use super::{ahead, fleet, installed};

#[tokio::test(start_paused = true)]
async fn every_process_finds_a_chain_due_at_the_same_time_and_tenants_apart() {
    let stage = installed().await;
    let mut soft_at = Vec::new();
    for tenant in fleet(&stage, 20).await {
        let key = ChainKey {
            credential: Credential::Bot,
            tenant,
        };
        let mut seen = Vec::new();
        for _ in 0..5 {
            let stored = stage.store.chain(&key).await.expect("answers");
            seen.push(stored.expect("installed").chain.soft_at().expect("it ends"));
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "each reading is a process of its own");
        let chain = stage.store.chain(&key).await.expect("answers");
        let ends = chain.expect("installed").chain.expires_at.expect("it ends");
        let before = ends.duration_since(seen[0]).expect("before its end");
        assert!(
            (HOUR * 3 / 2..=HOUR * 5 / 2).contains(&before),
            "{before:?}"
        );
        soft_at.push(seen[0]);
    }
    soft_at.sort();
    let spread = soft_at[19].duration_since(soft_at[0]).expect("sorted");
    assert!(spread > Duration::from_secs(10 * 60), "{spread:?}");
}

/// Everything that is logged by this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_not_slacks_is_told_of() {
    let stage = installed().await;
    let token = stage.fake.bot_token(super::ALPHA).expect("installed");
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logs = tracing::subscriber::set_default(subscriber);
    let text = || String::from_utf8_lossy(&log.0.lock().expect("no panic")).into_owned();
    stage.slack().auth_test(&token).await.expect("alive");
    assert!(!text().contains("clock"), "{}", text());
    for skew in [-600_i64, 600] {
        log.0.lock().expect("no panic").clear();
        let by = Duration::from_secs(skew.unsigned_abs());
        let off = match skew > 0 {
            true => ahead(&stage, by),
            false => {
                let clock = stage.fake.clock();
                slack_installs::Clock::from_fn(move || clock.now() - by)
            }
        };
        let slack = stage.slack().with_clock(off);
        slack.auth_test(&token).await.expect("alive");
        assert!(
            text().contains("this machine's clock is not Slack's"),
            "{}",
            text()
        );
        let is_behind = format!("is_behind={}", skew < 0);
        assert!(text().contains(&is_behind), "{}", text());
        assert!(!text().contains(token.expose()));
    }
}

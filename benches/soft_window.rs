//! Measures `authorize` with a rotator, from memory, while tokens are due but still valid. Hundreds
//! of refreshes wait for a Slack that takes half a second. Compares this with two other sides:
//! nothing is due, and Slack responds at once.
//!
//! The three sides take turns of some milliseconds in one run. Each turn uses new tenants, with
//! [`CALLS`] calls each. So one of twenty calls in the soft window starts a refresh, and the 99th
//! percentile includes those calls.
//!
//! Run `cargo bench --features testing --bench soft_window`.

use std::time::{Duration, Instant};

use serde_json::json;
use slack_installs::request::{VerifiedRequest, Verifier};
use slack_installs::testing::{Fault, Person, Rotation, Workspace};
use slack_installs::{Authorizer, TokenRotator};

use support::rotation::{ADMIN, Stage};

#[macro_use]
#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // Runs on a worker thread, as handlers do.
    let run = runtime.spawn(run());
    runtime.block_on(run).expect("no panic");
}

async fn run() {
    let mut sides = [
        Side::new("not due", false, Duration::ZERO).await,
        Side::new("soft, Slack at once", true, Duration::ZERO).await,
        Side::new("soft, Slack slow", true, SLOW).await,
    ];
    for round in 0..ROUNDS {
        for nth in 0..sides.len() {
            let side = &mut sides[(round + nth) % 3];
            side.turn(round).await;
        }
    }
    println!(
        "{:20} {:>9} {:>9} {:>12} {:>9} {:>8}   times \"not due\"",
        "authorize", "p50 µs", "p99 µs", "first p50 µs", "refreshes", "waiting"
    );
    let still = [50, 99].map(|percent| percentile(&sides[0].times, percent));
    for side in &sides {
        let [p50, p99] = [50, 99].map(|percent| percentile(&side.times, percent));
        println!(
            "{:20} {:9.1} {:9.1} {:12.1} {:9} {:8}   p50 {:.2}, p99 {:.2}",
            side.name,
            p50.as_secs_f64() * 1e6,
            p99.as_secs_f64() * 1e6,
            percentile(&side.first, 50).as_secs_f64() * 1e6,
            side.stage.refreshes(),
            side.most_waiting,
            p50.as_secs_f64() / still[0].as_secs_f64(),
            p99.as_secs_f64() / still[1].as_secs_f64(),
        );
    }
    for side in sides {
        side.rotator.shutdown(Duration::from_secs(10)).await;
    }
}

/// One side: the tenants of one fake Slack.
struct Side {
    name: &'static str,
    stage: Stage,
    authorizer: Authorizer,
    rotator: TokenRotator,
    requests: Vec<VerifiedRequest>,
    times: Vec<Duration>,
    /// The times of the first call for each tenant. It starts the refresh if one is due.
    first: Vec<Duration>,
    /// The highest number of refreshes that waited for Slack.
    most_waiting: usize,
}

impl Side {
    async fn new(name: &'static str, is_due: bool, slow: Duration) -> Self {
        let stage = Stage::new(Rotation::default()).await;
        let verifier = Verifier::new(&stage.fake.signing_secret()).with_clock(stage.fake.clock());
        let url = url::Url::parse("https://bot.example.com/slack/events").expect("a URL");
        let mut requests = Vec::new();
        for number in 0..ROUNDS * TENANTS {
            let team = format!("T0SOFT{number:05}");
            let ada = Person::admin(ADMIN, "Ada");
            stage
                .fake
                .add_workspace(Workspace::new(&team, "Soft").with_person(ada));
            stage.install(&team, "chat:write", "").await;
        }
        if is_due {
            stage.soften();
        }
        for number in 0..ROUNDS * TENANTS {
            let team = format!("T0SOFT{number:05}");
            let event = json!({"type": "app_mention", "user": ADMIN, "text": "hello"});
            let (head, body) = stage.fake.event(&team, event).request(&url).into_parts();
            let verified = verifier.verify(&head.headers, body);
            requests.push(verified.expect("it is signed"));
        }
        if slow > Duration::ZERO {
            stage
                .fake
                .inject("oauth.v2.access", Fault::delay(slow).always());
        }
        let rotator = stage.rotator();
        let authorizer = Authorizer::new(stage.store.clone())
            .with_rotator(&rotator)
            .with_clock(stage.fake.clock());
        Self {
            name,
            stage,
            authorizer,
            rotator,
            requests,
            times: Vec::new(),
            first: Vec::new(),
            most_waiting: 0,
        }
    }

    /// Measures the tenants of this round.
    async fn turn(&mut self, round: usize) {
        let requests = &self.requests[round * TENANTS..][..TENANTS];
        for (nth, request) in requests.iter().cycle().take(CALLS * TENANTS).enumerate() {
            let begun = Instant::now();
            let authorized = self.authorizer.authorize(request).await;
            self.times.push(begun.elapsed());
            if nth < TENANTS {
                self.first.push(begun.elapsed());
            }
            assert!(authorized.expect("it is installed").bot_token().is_some());
            // Lets background tasks run, as on a server, where callers wait for the network
            // between two calls.
            tokio::task::yield_now().await;
        }
        let counts = self.stage.fake.refresh_counts();
        self.most_waiting = self.most_waiting.max(self.waiting(counts.accepted, round));
    }

    /// Returns the number of due chains that have no new pair yet.
    fn waiting(&self, refreshed: usize, round: usize) -> usize {
        match self.name {
            "not due" => 0,
            _ => (round + 1) * TENANTS - refreshed,
        }
    }
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// Calls per tenant.
const CALLS: usize = 20;

const ROUNDS: usize = 50;

const SLOW: Duration = Duration::from_millis(500);

/// Tenants per turn.
const TENANTS: usize = 50;

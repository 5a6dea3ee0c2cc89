//! Token rotation by real processes on real databases, which are killed and stopped at each step.
//!
//! A process here is another run of this test binary. It announces each step to the database and to
//! Slack, and waits for a permit. The parent counts the steps of one refresh, and disturbs the next
//! refreshes at the first step, the second, and so on. The parent moves time instead of waiting.

mod child;
mod gate;
#[allow(dead_code)]
#[path = "../support/hooked.rs"]
mod hooked;
#[allow(dead_code)]
#[path = "../support/hooked_transport.rs"]
mod hooked_transport;
mod orders;
#[allow(dead_code, unreachable_pub)]
#[path = "../support/postgres.rs"]
mod postgres;
mod process;
#[allow(dead_code)]
#[path = "../redis/servers.rs"]
mod redis_servers;
#[allow(dead_code, unreachable_pub)]
#[path = "../support/server.rs"]
mod server;
mod slack;
mod trial;
mod verdict;
mod world;

use std::time::Duration;

use child::Child;
use postgres::Postgres;
use redis_servers::Redis;
use slack_installs::testing::GracePolicy::{self, AllLive, FirstOnly, NewestOnly, SameChild};
use trial::Case;
use trial::Meanwhile::{self, Ask, Reinstall, Uninstall, Work};
use trial::Signal::{self, Kill, Stop};
use world::World;

/// The name of the test that becomes a process of the fleet if a variable is set.
const PROCESS: &str = "a_process_ends_when_its_parent_does";

#[test]
fn a_process_ends_when_its_parent_does() {
    if std::env::var_os(orders::VARIABLE).is_some() {
        return process::run();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ended = runtime.block_on(async { Child::bare().orphan().await });
    assert!(ended.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_refresh_survives_a_kill_or_a_stop_at_any_step() {
    let server = Postgres::start().await;
    let database = server.database("fleet").await;
    disturb_everywhere(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_a_refresh_survives_a_kill_or_a_stop_at_any_step() {
    let server = Redis::start().await;
    disturb_everywhere(&server.url()).await;
}

/// Disturbs each case at each step. Prints the number of calls to Slack, and the lost
/// installations.
async fn disturb_everywhere(database: &str) {
    let mut world = World::open(database).await;
    let mut other = world.process(false).await;
    let steps = world.steps(&mut other).await;
    world.outwait(&mut other).await;
    let mut wrongs = Vec::new();
    for case in CASES {
        let mut line = Vec::new();
        let mut lost = Vec::new();
        for (nth, step) in (1..).zip(&steps) {
            let outcome = world.disturb(case, nth, &mut other).await;
            assert_eq!(outcome.step, *step, "every refresh takes the same steps");
            for wrong in outcome.wrongs() {
                wrongs.push(format!("{wrong}\n  {outcome}"));
            }
            let mark = if outcome.is_lost() { "!" } else { "" };
            line.push(format!("{}{mark}", outcome.counts.calls));
            lost.extend(outcome.is_lost().then_some(nth - 1));
        }
        assert!(wrongs.len() < TOO_MANY, "{}", wrongs.join("\n"));
        println!("{case}: calls at each step (! lost): {}", line.join(" "));
        if case.signal == Kill && case.grace.is_zero() {
            assert_eq!(
                lost,
                window(&steps),
                "installations are lost in the window and nowhere else"
            );
        }
    }
    println!("steps: {}", steps.join(", "));
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

/// Returns the steps at which Slack has issued a pair that is not saved.
fn window(steps: &[String]) -> Vec<usize> {
    let issued = steps.iter().position(|step| step == slack::DONE);
    let saved = steps.iter().rposition(|step| step == "after the commit");
    (issued.expect("Slack is asked")..saved.expect("the steps contain a save")).collect()
}

/// The number of failures after which the test stops.
const TOO_MANY: usize = 20;

const fn case(signal: Signal, meanwhile: Meanwhile, grace: u64, policy: GracePolicy) -> Case {
    Case {
        signal,
        meanwhile,
        grace: Duration::from_secs(grace),
        policy,
    }
}

const CASES: [Case; 16] = [
    case(Kill, Ask, 30, NewestOnly),
    case(Kill, Ask, 30, AllLive),
    case(Kill, Ask, 30, SameChild),
    case(Kill, Ask, 30, FirstOnly),
    case(Kill, Ask, 0, NewestOnly),
    case(Kill, Work, 30, NewestOnly),
    case(Kill, Reinstall, 30, NewestOnly),
    case(Kill, Uninstall, 30, NewestOnly),
    case(Stop, Ask, 30, NewestOnly),
    case(Stop, Ask, 30, AllLive),
    case(Stop, Ask, 30, SameChild),
    case(Stop, Ask, 30, FirstOnly),
    case(Stop, Ask, 0, NewestOnly),
    case(Stop, Work, 30, NewestOnly),
    case(Stop, Reinstall, 30, NewestOnly),
    case(Stop, Uninstall, 30, NewestOnly),
];

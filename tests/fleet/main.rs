//! Token rotation by real processes on real databases, killed and stopped at each step.
//!
//! A process here is this test binary once more. It announces each step towards the database and
//! Slack, and waits for leave; the parent counts the steps of one refresh and disturbs the next
//! refreshes at the first, the second, … of them. Time is moved, not waited for.

mod child;
mod gate;
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
mod world;

use std::time::Duration;

use child::Child;
use postgres::Postgres;
use redis_servers::Redis;
use trial::{Case, Meanwhile, Signal};
use world::World;

/// The name of the test that is a process of the fleet, where a variable says so.
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

async fn disturb_everywhere(database: &str) {
    let mut world = World::open(database).await;
    let mut other = world.process(false).await;
    let steps = world.steps(&mut other).await;
    println!("{steps:?}");
    for case in CASES {
        for nth in 1..=steps.len() {
            let outcome = world.disturb(case, nth, &mut other).await;
            println!(
                "{outcome} {:?} f{} l{}",
                outcome.reached, outcome.forgotten, outcome.live
            );
        }
    }
}

const fn case(signal: Signal, meanwhile: Meanwhile, grace: u64) -> Case {
    Case {
        signal,
        meanwhile,
        grace: Duration::from_secs(grace),
    }
}

const CASES: [Case; 6] = [
    case(Signal::Kill, Meanwhile::Ask, 30),
    case(Signal::Kill, Meanwhile::Ask, 0),
    case(Signal::Stop, Meanwhile::Ask, 30),
    case(Signal::Stop, Meanwhile::Ask, 0),
    case(Signal::Stop, Meanwhile::Reinstall, 30),
    case(Signal::Stop, Meanwhile::Uninstall, 30),
];

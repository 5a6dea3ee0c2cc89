//! Runs the same suite on every backend, without and with a cache. The suite has the contract, the
//! store, the rotator, the flows above them that failed in other libraries, and random concurrent
//! histories. Each test ends with a line that says how many of each have passed.
//!
//! With a cache, checks of the store and of flows are one process, which sees its own writes at
//! once. Checks of the rotator are several processes. Each one has its own cache and may see writes
//! two seconds late. `tests/store/cached.rs` checks what another process sees, and when.

#![allow(unreachable_pub, reason = "the servers are shared with other tests")]
#![allow(
    clippy::future_not_send,
    reason = "a check runs on the thread of its test"
)]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/flow_behaviour.rs"]
mod flow_behaviour;
#[path = "../support/rotation_behaviour.rs"]
mod rotation_behaviour;
#[path = "../support/store_behaviour.rs"]
mod store_behaviour;

mod backends;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../support/history.rs"]
mod history;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod large;
mod moving;
#[cfg(feature = "postgres")]
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../support/postgres.rs"]
mod postgres;
#[cfg(feature = "redis")]
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../redis/servers.rs"]
mod redis_servers;
#[allow(dead_code, reason = "not every build has every server")]
#[path = "../support/server.rs"]
mod server;
#[allow(dead_code, reason = "not every build has every backend")]
#[path = "../support/spoil.rs"]
mod spoil;

use std::sync::Arc;
use std::time::Duration;

use slack_installs::CacheOptions;
use slack_installs::backend::{Backend, Partition};
use slack_installs::testing::conformance::{CHECKS, MALFORMED_CHECKS, Spoil};

use flow_behaviour::FLOWS;
use rotation_behaviour::ROTATION;
use store_behaviour::STORE;
use support::Db;
use support::checks::{Check, Database};

/// Runs everything on a database, and prints the number of checks. The contract comes last, because
/// it leaves large rows.
async fn suite<B: Backend + ?Sized>(name: &str, backend: Arc<B>) {
    let database = Database::from(backend);
    stores(name, &database).await;
    contract(name, &database.backend).await;
}

/// Runs the store, the rotator and the flows.
async fn stores(name: &str, database: &Database) {
    run(name, STORE, || Db::new(database.clone())).await;
    run(name, ROTATION, || database.clone()).await;
    run(name, FLOWS, || database.clone()).await;
    let (store, rotation, flows) = (STORE.len(), ROTATION.len(), FLOWS.len());
    println!("{name}: store {store}, rotation {rotation}, flows {flows}: all passed");
}

/// Runs the contract, and random concurrent histories.
async fn contract(name: &str, backend: &dyn Backend) {
    for check in CHECKS {
        let running = Running(name, check.name);
        (check.run)(backend).await;
        drop(running);
    }
    for seed in 0..HISTORIES {
        let running = Running(name, "a history");
        let tenant = Partition::new(format!("histories/T{seed}")).expect("a name");
        history::check(backend, &tenant, seed).await;
        drop(running);
    }
    let conformance = CHECKS.len();
    println!("{name}: conformance {conformance}, histories {HISTORIES}: all passed");
}

/// Runs the contract's rule on rows that cannot be parsed.
async fn malformed<'a>(name: &str, backend: &'a dyn Backend, way: &str, spoil: Spoil<'a>) {
    for check in MALFORMED_CHECKS {
        let running = Running(name, check.name);
        (check.run)(backend, spoil).await;
        drop(running);
    }
    println!(
        "{name}: malformed rows {} by {way:?}: all passed",
        MALFORMED_CHECKS.len()
    );
}

/// Runs everything that reads through a store, on stores with a cache.
async fn suite_cached<B: Backend + ?Sized>(name: &str, backend: Arc<B>) {
    let database = Database::from(backend);
    let of_one_process = database.clone().cached(MOMENT);
    run(name, STORE, || Db::new(of_one_process.clone())).await;
    run(name, FLOWS, || of_one_process.clone()).await;
    let of_several = database.cached(CacheOptions::default().max_age);
    run(name, ROTATION, || of_several.clone()).await;
    let (store, rotation, flows) = (STORE.len(), ROTATION.len(), FLOWS.len());
    println!("{name}: store {store}, rotation {rotation}, flows {flows}: all passed");
}

async fn run<T>(name: &str, checks: &[Check<T>], on: impl Fn() -> T) {
    for check in checks {
        let running = Running(name, check.name);
        (check.run)(on()).await;
        drop(running);
    }
}

/// Prints the name of a check that panics.
struct Running<'a>(&'a str, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {} FAILED", self.0, self.1);
        }
    }
}

/// How long a cache keeps rows if a check writes to the database without the store. The check waits
/// for as long.
const MOMENT: Duration = Duration::from_millis(20);

/// The number of random histories of concurrent calls. Each must have an order that explains it.
const HISTORIES: u64 = 20;

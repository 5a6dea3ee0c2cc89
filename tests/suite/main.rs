//! The same suite on every backend, alone and through the cache: the contract, the store, the
//! rotator, and the flows above them where peers went wrong. Each test ends with a line that says
//! how many checks of each list it has passed.

#![allow(unreachable_pub, reason = "the servers are shared with other tests")]
#![allow(
    clippy::future_not_send,
    reason = "a check runs on the thread of its test"
)]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[macro_use]
#[path = "../support/flow_behaviour.rs"]
mod flow_behaviour;
#[macro_use]
#[path = "../support/rotation_behaviour.rs"]
mod rotation_behaviour;
#[macro_use]
#[path = "../support/store_behaviour.rs"]
mod store_behaviour;

mod backends;
#[cfg(feature = "dynamodb")]
#[path = "../support/dynamodb.rs"]
mod dynamodb;
#[cfg(all(
    feature = "dynamodb",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
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

use std::sync::Arc;

use slack_installs::backend::Backend;
use slack_installs::backend::conformance::CHECKS;

use support::Db;
use support::checks::{Check, Database};

/// Runs everything on a database, and says so. The contract comes last, since it leaves large rows
/// behind.
async fn suite(name: &str, database: Database) {
    run(name, STORE, || Db::new(database.process())).await;
    run(name, ROTATION, || database.clone()).await;
    run(name, FLOWS, || database.process()).await;
    let backend = database.process();
    for check in CHECKS {
        let running = Running(name, check.name);
        (check.run)(&backend).await;
        drop(running);
    }
    let conformance = CHECKS.len();
    let (store, rotation, flows) = (STORE.len(), ROTATION.len(), FLOWS.len());
    println!(
        "{name}: conformance {conformance}, store {store}, rotation {rotation}, flows {flows}: \
         all passed"
    );
}

async fn run<T>(name: &str, checks: &[Check<T>], on: impl Fn() -> T) {
    for check in checks {
        let running = Running(name, check.name);
        (check.run)(on()).await;
        drop(running);
    }
}

/// Names the check that panics.
struct Running<'a>(&'a str, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {} FAILED", self.0, self.1);
        }
    }
}

const FLOWS: &[Check<Arc<dyn Backend>>] = &flow_behaviour!();
const ROTATION: &[Check<Database>] = &rotation_behaviour!();
const STORE: &[Check<Db>] = &store_behaviour!();

//! A key service is away for longer and longer while a store is used. Only the store's time moves:
//! the servers run in real time.

use std::time::Duration;

use slack_installs::backend::MemoryBackend;
use slack_installs::store::{Error, StateId};
use slack_installs::{
    ClientId, EncryptedStore, InstallationStore as _, KeyProvider, StateStore as _,
};
use tokio::time::timeout;

use crate::APP;
use crate::aws_kms::Bench;
use crate::bao::{Bao, ROOT};
use crate::installs::{With as _, bot_token, in_workspace, noon, workspace_key};
use crate::proxy::Fate;

type Store = EncryptedStore<MemoryBackend>;

async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn opened(provider: impl KeyProvider) -> Store {
    let app = ClientId::new(APP).expect("a client id");
    let store = EncryptedStore::open(MemoryBackend::default(), provider, app).await;
    let store = store.expect("the provider makes a key");
    for number in 0..TENANTS {
        write(&store, number, 0)
            .await
            .expect("the key is in memory");
    }
    // The key is as old as it gets before it is fetched again.
    advance(OLDEST).await;
    store
}

fn token(number: usize, round: u64) -> String {
    format!("xoxb-{number}-{round}")
}

async fn write(store: &Store, number: usize, round: u64) -> Result<(), Error> {
    let mut installation = in_workspace(&format!("T{number}")).with_bot(&token(number, round));
    installation.installed_at = noon() + Duration::from_secs(round);
    store.store(&installation).await.map(drop)
}

/// Reads and writes every tenant for ten minutes. Returns the last round.
async fn ten_minutes(store: &Store) -> u64 {
    let rounds = 20;
    for round in 1..=rounds {
        advance(Duration::from_secs(30)).await;
        for number in 0..TENANTS {
            let read = store
                .fetch(&workspace_key(&format!("T{number}")), None)
                .await;
            let read = read.expect("the key is in memory").expect("installed");
            assert_eq!(bot_token(&read), Some(&*token(number, round - 1)));
            write(store, number, round)
                .await
                .expect("the key is in memory");
        }
    }
    rounds
}

/// Asserts that every call fails because of the key, in time.
async fn all_fails(store: &Store) {
    for number in 0..TENANTS {
        let (key, state) = (workspace_key(&format!("T{number}")), StateId([7; 32]));
        let calls = async {
            let read = store.fetch(&key, None).await.map(drop);
            let consumed = store.consume(&state, noon()).await.map(drop);
            [read, write(store, number, 99).await, consumed]
        };
        let outcomes = timeout(DEADLINE, calls).await.expect("it has a deadline");
        for outcome in outcomes {
            assert!(
                matches!(&outcome, Err(error @ Error::Key(_)) if error.is_transient()),
                "{outcome:?}"
            );
        }
    }
}

/// Asserts that every tenant has what was written last.
async fn all_is_there(store: &Store, round: u64) {
    for number in 0..TENANTS {
        let read = store
            .fetch(&workspace_key(&format!("T{number}")), None)
            .await;
        let read = read
            .expect("the service is back")
            .expect("nothing was lost");
        assert_eq!(bot_token(&read), Some(&*token(number, round)));
        write(store, number, 100)
            .await
            .expect("the service is back");
    }
}

#[tokio::test]
async fn openbao_may_be_sealed_for_ten_minutes_and_after_fifteen_every_call_fails_until_it_is_back()
{
    let bao = Bao::start().await;
    let store = opened(bao.with_token(ROOT)).await;
    bao.seal().await;
    let last = ten_minutes(&store).await;
    advance(BOUND - OLDEST - TEN_MINUTES).await;
    all_fails(&store).await;
    bao.unseal().await;
    advance(SOON).await;
    all_is_there(&store, last).await;
}

#[tokio::test]
async fn kms_may_be_away_for_ten_minutes_and_after_fifteen_every_call_fails_until_it_is_back() {
    for fate in [
        Fate::Cut,
        Fate::Silence,
        Fate::Answer(400, "{\"__type\":\"ThrottlingException\"}".into()),
        Fate::Answer(400, "{\"__type\":\"DisabledException\"}".into()),
    ] {
        let bench = Bench::new().await;
        let store = opened(bench.provider.clone()).await;
        bench.proxy.decide(move |_| fate.clone());
        let last = ten_minutes(&store).await;
        advance(BOUND - OLDEST - TEN_MINUTES).await;
        all_fails(&store).await;
        assert!(!bench.proxy.operations().is_empty());
        bench.proxy.decide(|_| Fate::Pass);
        advance(SOON).await;
        all_is_there(&store, last).await;
    }
}

const TENANTS: usize = 5;

/// A second less than the age at which every process has fetched a key again.
const OLDEST: Duration = Duration::from_secs(4 * 60 + 29);
const TEN_MINUTES: Duration = Duration::from_secs(10 * 60);
/// The age at which a key leaves memory.
const BOUND: Duration = Duration::from_secs(15 * 60);

/// How long a failure is remembered, and more.
const SOON: Duration = Duration::from_secs(2);

/// More than the 2 s that each of three calls may take, for a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

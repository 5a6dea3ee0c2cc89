//! A change of the master key while processes with the old one and with the new one run.

use slack_installs::store::{ChainKey, Credential, Departure, LifecycleStore, RotationStore};
use slack_installs::{Grant, Hold};

use super::*;
use crate::support::installs::rotating;

/// A process of the app, by the master keys that it has.
#[derive(Clone, Copy, Debug)]
enum Process {
    /// The old master key.
    Old,
    /// The new one, and the old one as retired.
    Both,
    /// The new one only: the old one was forgotten.
    New,
}

impl Process {
    fn provider(self) -> LocalKeyProvider {
        match self {
            Self::Old => local(),
            Self::Both => LocalKeyProvider::new(master_key_of(0x22)).with_retired(master_key()),
            Self::New => LocalKeyProvider::new(master_key_of(0x22)),
        }
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Rotate,
    /// Installs the app again, without a webhook and without metadata, which are then kept.
    Store,
    Refresh,
    Hold,
    Uninstall,
}

/// Each operation of each process succeeds, or fails with a fault of a key and changes no row.
#[tokio::test(start_paused = true)]
async fn in_every_order_of_a_rollout_nothing_is_overwritten_and_nothing_lost() {
    use Act::{Hold, Refresh, Rotate, Store, Uninstall};
    use Process::{Both, New, Old};
    let steps = [
        (Both, Rotate),
        (Old, Store),
        (New, Store),
        (Old, Refresh),
        (New, Hold),
        (Both, Refresh),
    ];
    let mut failed = 0;
    for order in permutations(steps.len()) {
        let mut world = World::new().await;
        for at in &order {
            failed += usize::from(!world.act(steps[*at]).await);
            // Half of the keys' longest age.
            advance(Duration::from_secs(8 * 60)).await;
            world.is_whole().await;
        }
        for process in [Old, New, Both] {
            world.act((process, Uninstall)).await;
        }
        let fetched = world.reader().await.fetch(&workspace_key("T1"), None).await;
        assert!(fetched.expect("opens").is_none(), "{order:?}");
    }
    assert!(failed > 0, "some process lacks some key");
}

struct World {
    db: Db,
    stores: [Option<Store>; 3],
    /// The bot's token, and how many pairs it has had.
    token: String,
    pairs: usize,
    is_held: bool,
}

impl World {
    async fn new() -> Self {
        let db = memory();
        let old = db.store_with(Process::Old.provider()).await;
        let mut first = in_workspace("T1")
            .with_bot("xoxb-1")
            .with_webhook("C1", WEBHOOK);
        first.bot.as_mut().expect("it was set").grant = pair(0);
        first.metadata = Some("plan=gold".to_owned());
        old.store(&first).await.expect("stored");
        Self {
            db,
            stores: [Some(old), None, None],
            token: token(0),
            pairs: 0,
            is_held: false,
        }
    }

    /// Returns whether the operation succeeded.
    async fn act(&mut self, (process, act): (Process, Act)) -> bool {
        let before = self.db.rows().await;
        let done = self.attempt(process, act).await;
        match &done {
            Ok(()) => {}
            Err(Error::Key(_) | Error::KeyringRolledBack(_)) => {
                assert_eq!(self.db.rows().await, before, "{process:?} {act:?}");
            }
            Err(error) => panic!("{process:?} {act:?}: {error:?}"),
        }
        done.is_ok()
    }

    async fn attempt(&mut self, process: Process, act: Act) -> Result<(), Error> {
        let Some(store) = self.open(process).await? else {
            return Ok(());
        };
        let (key, next) = (workspace_key("T1"), self.pairs + 1);
        match act {
            Act::Rotate => drop(store.rotate_data_key().await?),
            Act::Store => {
                let mut again = in_workspace("T1").with_bot("xoxb-1");
                again.installed_at = noon() + Duration::from_secs(next as u64);
                again.bot.as_mut().expect("it was set").grant = pair(next);
                store.store(&again).await?;
                (self.pairs, self.token) = (next, token(next));
            }
            Act::Refresh => {
                let chain = ChainKey {
                    tenant: key,
                    credential: Credential::Bot,
                };
                let grant = pair(next);
                let mut decide = |chain: Option<&slack_installs::store::Chain>| {
                    let mut chain = chain?.clone();
                    let mark = grant.refresh_token.as_ref();
                    chain.refresh = mark.map(slack_installs::store::Mark::of);
                    chain.generation += 1;
                    Some(chain)
                };
                store.update(&chain, Some(&grant), &mut decide).await?;
                (self.pairs, self.token) = (next, token(next));
            }
            Act::Hold => {
                let hold = Hold {
                    is_on: true,
                    reason: "ticket 1".to_owned(),
                    at: noon(),
                };
                store.hold(&key, &hold).await?;
                self.is_held = true;
            }
            Act::Uninstall => {
                // The hold is kept, and so must be opened.
                let Some((revision, _)) = store.glance(&key).await? else {
                    return Ok(());
                };
                let departure = Departure::new(key, "app_uninstalled", noon());
                store.purge(&departure, revision, None).await?;
            }
        }
        Ok(())
    }

    /// Returns the store of this process, which starts with its first operation.
    async fn open(&mut self, process: Process) -> Result<Option<Store>, Error> {
        let slot = &mut self.stores[process as usize];
        if slot.is_none() {
            let (backend, app) = (Arc::clone(&self.db.backend), self.db.app.clone());
            match EncryptedStore::open(backend, process.provider(), app).await {
                Ok(store) => *slot = Some(store),
                Err(KeyringError::Key(_)) => return Ok(None),
                Err(error) => panic!("{process:?}: {error:?}"),
            }
        }
        Ok(slot.clone())
    }

    /// Opens the store with every master key.
    async fn reader(&self) -> Store {
        self.db.store_with(Process::Both.provider()).await
    }

    /// Asserts that the installation has the newest token, and everything that was ever added.
    async fn is_whole(&self) {
        let reader = self.reader().await;
        let fetched = reader.fetch(&workspace_key("T1"), None).await;
        let fetched = fetched.expect("it opens").expect("installed");
        assert_eq!(bot_token(&fetched), Some(self.token.as_str()));
        assert_eq!(fetched.metadata.as_deref(), Some("plan=gold"));
        assert_eq!(fetched.incoming_webhooks.len(), 1);
        assert_eq!(fetched.hold.is_some(), self.is_held);
        let report = reader.verify(None, 100).await.expect("available");
        assert_eq!((report.unreadable, report.without_key), (vec![], vec![]));
    }
}

fn token(number: usize) -> String {
    format!("xoxe.xoxb-1-{number}")
}

fn pair(number: usize) -> Grant {
    rotating(&token(number), &format!("xoxe-1-{number}"))
}

/// Returns every order of this many things.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = permutations(last).into_iter();
    let longer = shorter.flat_map(|order| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    });
    longer.collect()
}

const WEBHOOK: &str = "https://hooks.slack.com/services/T1/B1/secret";

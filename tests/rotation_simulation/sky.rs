//! One node's connection to the database and to Slack, where a run's faults happen.

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use slack_installs::backend::{
    Backend, Change, Cursor, Error as BackendError, MemoryBackend, Page, Partition, Queue, Row,
    Scope, Slot,
};
use slack_installs::slack::{Transport, TransportError};
use slack_installs::testing::FakeTransport;
use tokio::time::{Instant, sleep};

use crate::database::Ends;
use crate::ledger::Ledger;
use crate::run::Switch;
use crate::watch::Watch;
use crate::weather::{Dice, Weather};

/// What all parts of a run share.
pub(crate) struct Sky {
    dice: Mutex<Dice>,
    pub(crate) weather: Weather,
    /// Set at the start of the last lifetime of a token: from then on there are no faults.
    pub(crate) is_clear: AtomicBool,
    pub(crate) faults: AtomicUsize,
    /// The end of Slack's outage.
    pub(crate) blackout: Mutex<Option<Instant>>,
    pub(crate) trouble: Mutex<Ends>,
}

/// The fate of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Done,
    Crash { after: bool },
    Lost { after: bool },
    Stall { after: bool, by: Duration },
}

impl Sky {
    pub(crate) fn new(weather: Weather, dice: Dice) -> Self {
        Self {
            dice: Mutex::new(dice),
            weather,
            is_clear: AtomicBool::new(false),
            faults: AtomicUsize::new(0),
            blackout: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn dice<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.dice.lock().expect("the lock is not poisoned"))
    }

    pub(crate) fn is_clear(&self) -> bool {
        self.is_clear.load(Ordering::SeqCst)
    }

    /// Delays a response until its caller has stopped waiting for it and has repeated the call.
    async fn delay(&self) {
        let late = self.weather.late;
        if late == 0 || self.is_clear() {
            return;
        }
        let (is_late, by) = self.dice(|dice| (dice.hits(late), dice.millis(5_900, 12_000)));
        if is_late {
            self.faults.fetch_add(1, Ordering::SeqCst);
            sleep(by).await;
        }
    }

    fn is_black(&self) -> bool {
        let blackout = *self.blackout.lock().expect("no panic");
        blackout.is_some_and(|until| Instant::now() < until) && !self.is_clear()
    }

    fn fate(&self, lost: u32) -> (Duration, Fate) {
        let Weather {
            crashes, stalls, ..
        } = self.weather;
        let (pause, fate) = self.dice(|dice| {
            let pause = dice.millis(1, 400);
            let after = dice.hits(500);
            let fate = match () {
                () if dice.hits(crashes) => Fate::Crash { after },
                () if dice.hits(lost) => Fate::Lost { after },
                () if dice.hits(stalls) => Fate::Stall {
                    after,
                    by: dice.millis(14_000, 40_000),
                },
                () => Fate::Done,
            };
            (pause, fate)
        });
        if self.is_clear() {
            (pause, Fate::Done)
        } else {
            let is_fault = fate != Fate::Done;
            self.faults.fetch_add(is_fault.into(), Ordering::SeqCst);
            (pause, fate)
        }
    }
}

/// A crashed node hangs forever at its next operation, so that it has no further effect. The
/// operation itself may still be carried out. `every_await` shows that these places are enough.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) sky: Arc<Sky>,
    pub(crate) ledger: Arc<Ledger>,
    /// The number of this life of the node.
    pub(crate) life: usize,
    pub(crate) is_down: Arc<AtomicBool>,
    /// Set after the start. Before that, the node has no faults, because a node must start to
    /// count.
    pub(crate) has_started: Arc<AtomicBool>,
}

impl Link {
    async fn carry<T>(
        &self,
        lost: u32,
        effect: impl AsyncFnOnce() -> T,
        failure: impl FnOnce(bool) -> T,
    ) -> T {
        if !self.has_started.load(Ordering::SeqCst) {
            return effect().await;
        }
        self.hang_if_down().await;
        let (pause, fate) = self.sky.fate(lost);
        sleep(pause).await;
        match fate {
            Fate::Crash { after: false } => self.crash().await,
            Fate::Lost { after: false } => return failure(false),
            Fate::Stall { after: false, by } => sleep(by).await,
            _ => {}
        }
        if self.is_down() && self.sky.dice(|dice| dice.hits(500)) {
            pending::<()>().await;
        }
        let answer = effect().await;
        self.hang_if_down().await;
        match fate {
            Fate::Crash { after: true } => self.crash().await,
            Fate::Lost { after: true } => return failure(true),
            Fate::Stall { after: true, by } => sleep(by).await,
            _ => {}
        }
        self.hang_if_down().await;
        answer
    }

    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    async fn crash(&self) {
        self.is_down.store(true, Ordering::SeqCst);
        self.ledger.die(self.life);
        pending::<()>().await;
    }

    async fn hang_if_down(&self) {
        if self.is_down() {
            pending::<()>().await;
        }
    }
}

/// A node's database.
pub(crate) struct Database {
    pub(crate) inner: Arc<MemoryBackend>,
    pub(crate) link: Link,
    pub(crate) watch: Arc<Watch>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

fn lost_row(_: bool) -> BackendError {
    BackendError::Unavailable("a simulated loss".into())
}

#[async_trait]
impl Backend for Database {
    async fn read(
        &self,
        partition: &Partition,
        slots: &[Slot],
    ) -> Result<Vec<Option<Row>>, BackendError> {
        let outages = self.link.sky.weather.outages;
        let effect = async || {
            self.link.connect().await?;
            self.inner.read(partition, slots).await
        };
        self.link
            .carry(outages, effect, |after| Err(lost_row(after)))
            .await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), BackendError> {
        let outages = self.link.sky.weather.outages;
        let effect = async || {
            self.link.connect().await?;
            self.link.lock(changes).await?;
            self.inner.commit(partition, changes).await?;
            self.watch.committed(changes).await;
            Ok(())
        };
        self.link
            .carry(outages, effect, |after| Err(lost_row(after)))
            .await
    }

    async fn scan(
        &self,
        scope: &Scope,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        let effect = async || {
            self.link.connect().await?;
            self.inner.due(queue, now, from, limit).await
        };
        self.link
            .carry(0, effect, |after| Err(lost_row(after)))
            .await
    }
}

/// A node's network.
pub(crate) struct Network {
    pub(crate) inner: FakeTransport,
    pub(crate) link: Link,
    pub(crate) switch: Switch,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

#[async_trait]
impl Transport for Network {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let Link {
            sky, ledger, life, ..
        } = &self.link;
        let asked = ledger.ask(&request, *life);
        let effect = async || {
            if sky.is_black() {
                away(sky).await
            } else {
                if asked.is_refresh() && sky.weather.moves && !sky.is_clear() {
                    // The tenant is put on hold during its refresh.
                    if sky.dice(|dice| dice.hits(HELD)) {
                        self.switch.hold(true).await;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
                let answer = self.inner.send(request).await;
                if let Ok(answer) = &answer {
                    ledger.answer(&asked, answer.body());
                }
                if asked.is_refresh() {
                    sky.delay().await;
                }
                answer
            }
        };
        let failure = |_| Err(TransportError::Lost("a simulated loss".into()));
        let answer = self.link.carry(sky.weather.lost, effect, failure).await;
        match &answer {
            Ok(_) => ledger.hear(&asked),
            Err(_) => ledger.miss(&asked),
        }
        answer
    }
}

/// Of 1,000 refreshes, how many meet an operator who puts the tenant on hold.
const HELD: u32 = 200;

/// Slack's outage: Slack does nothing, whatever it responds.
async fn away(sky: &Sky) -> Result<http::Response<Bytes>, TransportError> {
    let status = |code: u16| {
        let answer = http::Response::builder().status(code);
        answer
            .header("retry-after", "20")
            .body(Bytes::from_static(b"<html>"))
    };
    let kind = sky.dice(|dice| dice.below(5));
    Ok(match kind {
        0 => return Err(TransportError::NotSent("a simulated outage".into())),
        1 => return Err(TransportError::Lost("a simulated outage".into())),
        2 => {
            sleep(Duration::from_secs(10)).await;
            return Err(TransportError::Lost("a simulated outage".into()));
        }
        3 => status(429),
        _ => status(503),
    }
    .expect("a plain response"))
}

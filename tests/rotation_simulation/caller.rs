//! A caller that needs a token from time to time, and checks everything that it gets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use slack_installs::rotation::{CallError, Error, RefusedToken};
use slack_installs::store::Credential;
use slack_installs::{Clock, EncryptedStore, InstallationStore as _, TokenRotator};
use tokio::time::{Instant, sleep};

use crate::run::{LONGEST_BLACKOUT, Moves};
use crate::sky::{Database, Sky};
use crate::watch::{Watch, credentials, team};

pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) rotator: TokenRotator,
    pub(crate) store: EncryptedStore<Database>,
    pub(crate) sky: Arc<Sky>,
    pub(crate) clock: Clock,
    pub(crate) watch: Arc<Watch>,
    pub(crate) moves: Arc<Mutex<Moves>>,
    /// The latest expiry of a token that this process handed out, by the token's installation.
    pub(crate) seen: HashMap<usize, SystemTime>,
}

/// Slack's refusal of the application's own call.
#[derive(Debug)]
struct Refused {
    is_expired: bool,
}

impl RefusedToken for Refused {
    fn is_token_expired(&self) -> bool {
        self.is_expired
    }
}

/// A token that was handed out.
struct Got {
    access: String,
    expires_at: Option<SystemTime>,
    /// The moves up to that time.
    moves: Moves,
}

impl Caller {
    pub(crate) async fn ask_again_and_again(mut self) {
        loop {
            let (pause, patience, whose, way) = self.sky.dice(|dice| {
                let bursts = dice.hits(300);
                let pause = if bursts { 50 } else { 120_000 };
                (
                    dice.millis(0, pause),
                    dice.millis(1_000, 25_000),
                    dice.below(3),
                    dice.below(4),
                )
            });
            sleep(pause).await;
            let whose = credentials()[usize::try_from(whose).expect("small")].clone();
            match way {
                0 => self.fetch(&whose, patience).await,
                1 => self.call(&whose, patience).await,
                _ => self.ask(&whose, patience).await,
            }
        }
    }

    async fn ask(&mut self, whose: &Credential, patience: Duration) {
        let before = self.moves();
        let rotator = self.rotator.within(patience);
        let begun = Instant::now();
        let outcome = rotator.token_for(&team(), whose.clone()).await;
        self.judge_wait(begun, patience);
        match outcome {
            Ok(token) => {
                let got = Got {
                    access: token.access_token.expose().to_owned(),
                    expires_at: token.expires_at,
                    moves: self.moves(),
                };
                self.judge_hold(&got, &before);
                self.judge(whose, &got, &before);
            }
            Err(error) => self.excuse(whose, &error, &before),
        }
    }

    /// Fetches the installation and brings it up to date, like the authorize middleware.
    async fn fetch(&mut self, whose: &Credential, patience: Duration) {
        let before = self.moves();
        let user = match whose {
            Credential::Bot => None,
            Credential::User(id) => Some(id),
        };
        let Ok(Some(installation)) = self.store.fetch(&team(), user).await else {
            return;
        };
        let rotator = self.rotator.within(patience);
        let begun = Instant::now();
        let refreshed = rotator.refreshed(installation).await;
        self.judge_wait(begun, patience);
        let installation = &refreshed.installation;
        let bot = installation.bot.as_ref().map(|bot| &bot.grant);
        let user_grant = installation.user.as_ref().map(|user| &user.grant);
        for (whose, grant) in [(&Credential::Bot, bot), (whose, user_grant)] {
            if let Some(grant) = grant {
                let got = Got {
                    access: grant.access_token.expose().to_owned(),
                    expires_at: grant.expires_at,
                    moves: self.moves(),
                };
                self.judge(whose, &got, &before);
            }
        }
        let errors = [&refreshed.bot_error, &refreshed.user_error];
        for error in errors.into_iter().flatten() {
            self.excuse(whose, error, &before);
        }
    }

    /// Calls Slack as the application does.
    async fn call(&mut self, whose: &Credential, patience: Duration) {
        let before = self.moves();
        let got = Mutex::new(Vec::new());
        let (sky, watch) = (&self.sky, &self.watch);
        let rotator = self.rotator.within(patience);
        let operation = |token: slack_installs::rotation::Token| {
            let access = token.access_token.expose().to_owned();
            let is_expired = token.expires_at.is_some_and(|end| end <= self.clock.now());
            let is_live = watch.fake.is_live(&access);
            let lies = sky.weather.lies && sky.dice(|dice| dice.hits(100));
            got.lock().expect("no panic").push(Got {
                access,
                expires_at: token.expires_at,
                moves: *self.moves.lock().expect("no panic"),
            });
            async move {
                if is_live && !lies {
                    Ok(())
                } else {
                    Err(Refused {
                        is_expired: is_expired || lies,
                    })
                }
            }
        };
        let begun = Instant::now();
        let outcome = rotator.call(&team(), whose.clone(), operation).await;
        self.judge_wait(begun, patience);
        let got = got.into_inner().expect("no panic");
        if got.len() > 2 {
            self.fail("an operation was repeated more than once");
        }
        if let [first, second] = &*got
            && first.access == second.access
        {
            self.fail("an operation was repeated with the token that Slack refused");
        }
        for got in &got {
            self.judge_hold(got, &before);
            self.judge(whose, got, &before);
        }
        match outcome {
            Ok(()) | Err(CallError::Operation(Refused { .. })) => {}
            Err(CallError::Token(error)) => self.excuse(whose, &error, &before),
            Err(error) => self.fail(&format!("{error:?}")),
        }
    }

    /// Whatever a call waits for, its patience covers it. Timers have whole milliseconds.
    fn judge_wait(&self, begun: Instant, patience: Duration) {
        let took = begun.elapsed();
        if took > patience + Duration::from_millis(2) {
            self.fail(&format!("a caller waited for {took:?} of {patience:?}"));
        }
    }

    /// A tenant on hold gets no token. This includes callers that have waited since before the hold
    /// for a pair that Slack issued during it. A caller that read its pair before the hold may
    /// still get it.
    fn judge_hold(&self, got: &Got, before: &Moves) {
        let now = got.moves;
        if before.is_on_hold && now == *before {
            self.fail("a tenant on hold got a token");
        }
        if let Some(held_at) = now.held_at
            && self.watch.ledger.is_bought_after(&got.access, held_at)
        {
            self.fail("a caller that waited got a token that was issued during a hold");
        }
    }

    fn judge(&mut self, whose: &Credential, got: &Got, before: &Moves) {
        let pair = self.watch.ledger.name(&got.access);
        let is_live = self.watch.fake.is_live(&got.access);
        let end = if is_live { "" } else { ", which is dead" };
        self.note(|| format!("the token of pair {pair:?} of {whose:?}{end}"));
        let now = self.clock.now();
        let skew = self.sky.weather.skew;
        if got.expires_at.is_some_and(|end| end + skew <= now) {
            self.fail("an expired token was handed out");
        }
        let ledger = &self.watch.ledger;
        if !ledger.is_stored(&got.access) {
            self.fail("a token was handed out before it was saved");
        }
        let root = ledger.root(&got.access);
        let has_moved = self.moves() != *before || root != self.watch.root(whose);
        if !is_live && !has_moved {
            // Slack cannot be asked during an outage.
            let recently = match self.sky.weather.blackouts {
                0 => RECENTLY,
                _ => RECENTLY + LONGEST_BLACKOUT,
            };
            let nobody_knows = ledger.may_be_ended(&got.access, recently);
            if !nobody_knows || self.sky.weather.lets_know() {
                self.fail("a token was handed out that Slack had revoked");
            }
        }
        if let (Some(root), Some(end)) = (root, got.expires_at) {
            let latest = self.seen.entry(root).or_insert(end);
            let is_older = end < *latest;
            *latest = end.max(*latest);
            if is_older {
                self.fail("an older token came after a newer one");
            }
        }
    }

    fn excuse(&self, whose: &Credential, error: &Error, before: &Moves) {
        self.note(|| format!("{whose:?}: {error:?}"));
        let weather = self.sky.weather;
        let is_excused = match error {
            Error::Busy => true,
            Error::NotInstalled { .. } => weather.moves,
            Error::OnHold => before.is_on_hold || self.moves() != *before,
            Error::Configuration { .. } => false,
            _ => !weather.is_calm(),
        };
        if !is_excused {
            self.fail(&format!("a caller got {error:?}"));
        }
    }

    fn moves(&self) -> Moves {
        *self.moves.lock().expect("no panic")
    }

    fn note(&self, what: impl FnOnce() -> String) {
        let name = &self.name;
        self.watch.story.note(|| format!("{name}: {}", what()));
    }

    fn fail(&self, what: &str) {
        self.watch.story.fail(&format!("{}: {what}", self.name));
    }
}

/// The sum of the longest validity of a result of `auth.test`, a caller's patience, and a stall.
const RECENTLY: Duration = Duration::from_secs(120);

//! The faults that a run may have, and the dice that decide which of them happen.

use std::time::Duration;

use crate::database::{self, Troubles};

/// The faults that a run may have, and thus what must hold for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) name: &'static str,
    /// Of 1,000 calls to Slack, how many are lost, before or after their effect.
    pub(crate) lost: u32,
    /// Of 1,000 refreshes, how many have a response that comes too late for the call's timeout.
    pub(crate) late: u32,
    /// Of 1,000 operations, how many stall for longer than a lease.
    pub(crate) stalls: u32,
    /// Of 1,000 operations, how many are a node's last.
    pub(crate) crashes: u32,
    /// Of 1,000 database operations, how many fail, before or after their effect.
    pub(crate) outages: u32,
    pub(crate) database: Troubles,
    /// Of 1,000 moments, how many begin an outage of Slack that lasts minutes.
    pub(crate) blackouts: u32,
    /// Of 1,000 moments, how many replace a node in an orderly way.
    pub(crate) deploys: u32,
    /// The largest deviation of a node's clock.
    pub(crate) skew: Duration,
    /// Whether the app is reinstalled and removed, and tenants are put on hold, during the run.
    pub(crate) moves: bool,
    /// Whether Slack sometimes reports a token as expired that is not.
    pub(crate) lies: bool,
}

pub(crate) const CALM: Weather = Weather {
    name: "calm",
    lost: 0,
    late: 0,
    stalls: 0,
    crashes: 0,
    outages: 0,
    database: database::NONE,
    blackouts: 0,
    deploys: 0,
    skew: Duration::ZERO,
    moves: false,
    lies: false,
};

const WEATHERS: [Weather; 10] = [
    CALM,
    Weather {
        name: "stalls",
        stalls: 100,
        skew: Duration::from_secs(40),
        ..CALM
    },
    Weather {
        name: "lost",
        lost: 200,
        lies: true,
        ..CALM
    },
    Weather {
        name: "late",
        late: 250,
        lost: 150,
        ..CALM
    },
    Weather {
        name: "crashes",
        crashes: 30,
        ..CALM
    },
    Weather {
        name: "outages",
        outages: 200,
        ..CALM
    },
    Weather {
        name: "blackouts",
        blackouts: 25,
        lies: true,
        ..CALM
    },
    Weather {
        name: "deploys",
        deploys: 60,
        outages: 50,
        stalls: 40,
        ..CALM
    },
    Weather {
        name: "moves",
        moves: true,
        stalls: 60,
        skew: Duration::from_secs(40),
        ..CALM
    },
    Weather {
        name: "storm",
        lost: 100,
        late: 50,
        stalls: 60,
        crashes: 20,
        outages: 100,
        database: Troubles {
            refuses: 5,
            locks: 20,
            drains: 5,
        },
        blackouts: 5,
        deploys: 20,
        skew: Duration::from_secs(120),
        moves: true,
        lies: true,
    },
];

/// Returns every weather.
pub(crate) fn all() -> impl Iterator<Item = Weather> {
    WEATHERS.into_iter().chain(database::WEATHERS)
}

impl Weather {
    pub(crate) fn named(name: &str) -> Self {
        all().find(|weather| weather.name == name).expect("a name")
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.name == "calm"
    }

    /// Reports whether no refresh token is ever used twice, so that no token is revoked early.
    pub(crate) fn lets_know(&self) -> bool {
        self.lost == 0
            && self.crashes == 0
            && self.stalls == 0
            && self.skew.is_zero()
            && self.database.is_none()
    }

    /// Reports whether calls are repeated on purpose within Slack's grace. The promise covers such
    /// calls.
    pub(crate) fn relies_on_grace(&self) -> bool {
        self.lost > 0 || self.crashes > 0
    }
}

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(crate) fn hits(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille.into()
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

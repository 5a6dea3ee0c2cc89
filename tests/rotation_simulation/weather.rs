//! What may go wrong in a run, and the dice that decide what does.

use std::time::Duration;

/// What may go wrong in a run, and so what must hold of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) name: &'static str,
    /// Of calls to Slack: how many in 1,000 are lost, before or after their effect.
    pub(crate) lost: u32,
    /// Of all operations: how many in 1,000 stall for longer than a lease.
    pub(crate) stalls: u32,
    /// Of all operations: how many in 1,000 are a node's last.
    pub(crate) crashes: u32,
    /// Of database operations: how many in 1,000 fail, before or after their effect.
    pub(crate) outages: u32,
    /// Of moments: how many in 1,000 begin an outage of Slack's, of minutes.
    pub(crate) blackouts: u32,
    /// Of moments: how many in 1,000 replace a node in good order.
    pub(crate) deploys: u32,
    /// The most that a node's clock is off.
    pub(crate) skew: Duration,
    /// The app is reinstalled and removed, and tenants are put on hold, in between.
    pub(crate) moves: bool,
    /// Now and then Slack calls a token expired that is not.
    pub(crate) lies: bool,
}

const CALM: Weather = Weather {
    name: "calm",
    lost: 0,
    stalls: 0,
    crashes: 0,
    outages: 0,
    blackouts: 0,
    deploys: 0,
    skew: Duration::ZERO,
    moves: false,
    lies: false,
};

pub(crate) const WEATHERS: [Weather; 9] = [
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
        stalls: 60,
        crashes: 20,
        outages: 100,
        blackouts: 5,
        deploys: 20,
        skew: Duration::from_secs(120),
        moves: true,
        lies: true,
    },
];

impl Weather {
    pub(crate) fn named(name: &str) -> Self {
        let mut all = WEATHERS.into_iter();
        all.find(|weather| weather.name == name).expect("a name")
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.name == "calm"
    }

    /// Whether no refresh token is ever used again, so that nobody's token ends before its time.
    pub(crate) fn lets_know(&self) -> bool {
        self.lost == 0 && self.crashes == 0 && self.stalls == 0 && self.skew.is_zero()
    }

    /// Whether calls are repeated on purpose, within Slack's grace: that is what is promised.
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

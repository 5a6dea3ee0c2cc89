//! A rotation of the data key while the fleet runs. The operator is killed at random places.

use std::time::Duration;

use ring::digest;
use tokio::sync::mpsc;

use crate::Failure;
use crate::fleet::Fleet;
use crate::operator::{Operation, Place};
use crate::orders::Orders;
use crate::tally::Report;

/// The part of a rotation that is carried out between two words of `scripts/chaos`.
pub(crate) struct Drill {
    pub(crate) orders: Orders,
    /// The data key that is replaced, in hex.
    pub(crate) old: String,
    pub(crate) destroys: bool,
    /// How often the operator is killed.
    pub(crate) kills: usize,
    pub(crate) seed: u64,
}

/// What the operators did.
#[derive(Default)]
pub(crate) struct Drilled {
    pub(crate) kills: usize,
    /// How many rows were sealed again, and the time that it took.
    pub(crate) rows: usize,
    pub(crate) took: Duration,
}

impl Drill {
    /// Starts operators until one has done everything.
    pub(crate) async fn run(self) -> Result<Drilled, Failure> {
        let mut done = Drilled::default();
        let mut dice = Dice::new(self.seed, self.destroys);
        let mut reach = if self.destroys { 4.0 } else { 8.0 };
        loop {
            let place = (done.kills < self.kills).then(|| dice.place(reach));
            if self.was_killed(place, &mut done).await? {
                done.kills += 1;
                eprintln!("the operator was killed at {place:?}");
            } else if place.is_none() {
                return Ok(done);
            } else {
                // Less is left to do than that.
                reach = 2.0;
            }
        }
    }

    /// Runs one operator. Returns whether it came to the place where it is killed.
    async fn was_killed(&self, place: Option<Place>, done: &mut Drilled) -> Result<bool, Failure> {
        let operation = Operation {
            old: self.old.clone(),
            destroys: self.destroys,
            place,
        };
        let orders = Orders {
            operation: Some(operation),
            ..self.orders.clone()
        };
        let (news, mut coming) = mpsc::unbounded_channel();
        let mut process = Fleet::new(orders, 0).launch(0, &news).await?;
        loop {
            match coming.recv().await {
                Some((_, Some(Report::Resealed(time, rows)))) => {
                    done.rows += rows;
                    done.took += time;
                }
                Some((_, Some(Report::Paused))) => {
                    process.kill().await?;
                    return Ok(true);
                }
                Some((_, Some(_))) => {}
                Some((_, None)) | None => {
                    process.ended().await?;
                    return Ok(false);
                }
            }
        }
    }
}

/// Random places, the same ones for the same seed.
struct Dice {
    seed: [u8; 9],
    thrown: u64,
}

impl Dice {
    fn new(seed: u64, destroys: bool) -> Self {
        let mut bytes = [u8::from(destroys); 9];
        bytes[1..].copy_from_slice(&seed.to_be_bytes());
        Self {
            seed: bytes,
            thrown: 0,
        }
    }

    /// Returns a place among the first 2^`reach` calls. Early ones are more likely, because most
    /// steps of a rotation are a few calls, and one is very many.
    fn place(&mut self, reach: f64) -> Place {
        self.thrown += 1;
        let text = [&self.seed[..], &self.thrown.to_be_bytes()].concat();
        let hash = digest::digest(&digest::SHA256, &text);
        let [high, low, side, ..] = hash.as_ref() else {
            unreachable!("a hash has 32 bytes");
        };
        let share = f64::from(u16::from_be_bytes([*high, *low])) / 65536.0;
        Place {
            call: (share * reach).exp2() as usize,
            is_after: side % 2 == 0,
        }
    }
}

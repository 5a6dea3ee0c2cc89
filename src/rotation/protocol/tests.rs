//! Tests each operand of each decision with a row of a table. The model tests how several processes
//! interact.

use super::schedule::{FIRST_REST, LONGEST_REST, PARKED, PARKED_LOOK, PERSISTENT};
use super::*;
use crate::clock::to_epoch;
use crate::store::SUSPECT;

mod calls;
mod handout;
mod pairs;
mod verdicts;
mod worker;

const OURS: u128 = 0xA;

const OTHERS: u128 = 0xB;

/// Returns the time this many seconds after a fixed time in 2026.
fn at(seconds: i64) -> SystemTime {
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    match u64::try_from(seconds) {
        Ok(seconds) => day + Duration::from_secs(seconds),
        Err(_) => day - Duration::from_secs(seconds.unsigned_abs()),
    }
}

const NOW: i64 = 36_000;

fn now() -> SystemTime {
    at(NOW)
}

/// Returns the chain with one change.
fn with(mut chain: Chain, change: impl FnOnce(&mut Chain)) -> Chain {
    change(&mut chain);
    chain
}

/// Returns a chain whose pair is fresh at [`NOW`]. The pair lives for 12 h and was issued at
/// 10,000 s, so it is soft from 44,200 s on at the earliest.
fn fresh() -> Chain {
    let expires_at = Some(at(10_000 + 43_200));
    Chain {
        generation: 4,
        ..Chain::unused(InstallId(1), Some(Mark(40)), at(10_000), expires_at)
    }
}

/// Returns a chain whose token expires in 1,000 s: in less than two hours and in more than five
/// minutes.
fn soft() -> Chain {
    Chain {
        issued_at: at(NOW - 43_200 + 1_000),
        expires_at: Some(at(NOW + 1_000)),
        ..fresh()
    }
}

fn hard() -> Chain {
    Chain {
        issued_at: at(NOW - 43_200),
        expires_at: Some(now()),
        ..fresh()
    }
}

fn lease(owner: u128, until: i64) -> Option<Lease> {
    let until = at(until);
    Some(Lease { owner, until })
}

/// Returns a chain whose fields all differ from the values that a step sets.
fn busy() -> Chain {
    Chain {
        alternates: vec![Mark(50), Mark(51)],
        lease: lease(OURS, NOW + 7),
        attempts: 3,
        attempted_at: Some(at(NOW - 8)),
        unheard_at: Some(at(NOW - 2_000)),
        retry_at: Some(at(NOW - 20)),
        failures: 6,
        last_error: Some("earlier".into()),
        idle: 1,
        ..hard()
    }
}

fn ticket() -> Ticket {
    Ticket {
        install: InstallId(1),
        generation: 4,
        owner: OURS,
        candidates: vec![Mark(40), Mark(51)],
    }
}

#[test]
fn the_times_of_the_protocol_are_those_of_its_page() {
    let hour = 3600;
    let times = [
        (LEASE, 15),
        (CALL, 6),
        (SAVE, 2),
        (CONFIRM, 5),
        (LATE, 30),
        (HOLDS, 660),
        (FORCED, 300),
        (LONGEST_WAIT, 720),
        (LONG_AGO, 24 * hour),
        (KEEP_ALIVE, 20 * 24 * hour),
        (PARKED_LOOK, 24 * hour),
        (FIRST_REST, 120),
        (LONGEST_REST, 6 * hour),
    ];
    for (place, (time, seconds)) in times.into_iter().enumerate() {
        assert_eq!(time.as_secs(), seconds, "{place}");
    }
    assert_eq!((PARKED, PERSISTENT, LONG_OUTAGE, SUSPECT), (2, 10, 50, 2));
}

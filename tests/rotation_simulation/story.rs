//! What happened in a run, for the analysis of a failed seed.

use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

pub(crate) struct Story {
    begun: Instant,
    lines: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            lines: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let at = self.begun.elapsed().as_secs_f64();
        held(&self.lines).push(format!("{at:9.3} {}", text()));
    }

    pub(crate) fn fail(&self, what: &str) {
        self.note(|| format!("WRONG: {what}"));
        held(&self.failures).push(what.to_owned());
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        held(&self.failures).clone()
    }

    pub(crate) fn print(&self) {
        held(&self.lines).iter().for_each(|line| println!("{line}"));
    }

    /// Returns a hash (FNV-1a) that shows whether two runs took the same course.
    pub(crate) fn digest(&self) -> u64 {
        let lines = held(&self.lines);
        let bytes = lines.iter().flat_map(|line| line.bytes());
        bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        })
    }
}

fn held<T>(lines: &Mutex<T>) -> MutexGuard<'_, T> {
    lines.lock().expect("the lock is not poisoned")
}

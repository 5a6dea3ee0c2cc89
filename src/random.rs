//! Random bytes from the operating system.

use ring::rand::{SecureRandom, SystemRandom};

/// Returns `N` unpredictable bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system's random source works; no key is safe without it");
    bytes
}

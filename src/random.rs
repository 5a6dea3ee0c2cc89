//! Random bytes from the operating system.

use ring::rand::{SecureRandom, SystemRandom};

/// That many bytes, unpredictable.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system's random source works; nothing here is safe without it");
    bytes
}

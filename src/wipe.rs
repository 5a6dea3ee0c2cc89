//! Buffers that are wiped when they are dropped. They hold what is sent to Slack and received from
//! it.
//!
//! The copies that hyper, the TLS library and the kernel make are not ours, and are not wiped.

use bytes::{Buf, BufMut as _, Bytes};
use zeroize::{Zeroize as _, Zeroizing};

/// A buffer that wipes each allocation that it leaves.
pub(crate) struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn put(&mut self, data: impl Buf) {
        let needed = self.0.len() + data.remaining();
        if needed > self.0.capacity() {
            // `Vec` would free the old allocation without wiping it.
            let larger = Vec::with_capacity(needed.max(2 * self.0.capacity()));
            let old = std::mem::replace(&mut self.0, Zeroizing::new(larger));
            self.0.extend_from_slice(&old);
        }
        (*self.0).put(data);
    }

    /// Returns the bytes. They are wiped when their last clone is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

/// Returns these bytes. They are wiped when their last clone is dropped.
pub(crate) fn wiped(text: String) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text))
}

/// Bytes from a transport. They are wiped when dropped, unless the transport still has them.
pub(crate) struct Wiped(Bytes);

impl Wiped {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        // Bytes of `Buffer` cannot be changed. They wipe themselves.
        if let Ok(mut bytes) = std::mem::take(&mut self.0).try_into_mut() {
            bytes.as_mut().zeroize();
        }
    }
}

/// Reads memory that was freed.
#[cfg(all(test, target_os = "linux"))]
pub(crate) mod memory {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    /// Where a secret is in the memory of this process.
    pub(crate) struct Place {
        address: u64,
        secret: Vec<u8>,
    }

    impl Place {
        /// Remembers the place of the second half of this secret. The allocator writes into the
        /// beginning of what is freed.
        pub(crate) fn of(bytes: &[u8]) -> Self {
            let half = &bytes[bytes.len() / 2..];
            assert!(half.len() >= 32, "the secret is too short for this test");
            let address = half.as_ptr().addr() as u64;
            // Kept in another form, so that this copy is no second place.
            let secret = half.iter().map(|byte| !byte).collect();
            Self { address, secret }
        }

        /// Returns whether the secret is still there.
        pub(crate) fn has_secret(&self) -> bool {
            let mut found = vec![0; self.secret.len()];
            let memory = File::open("/proc/self/mem").expect("Linux has it");
            // An error means that the memory was returned to the system.
            let is_read = memory.read_exact_at(&mut found, self.address).is_ok();
            is_read && found.iter().zip(&self.secret).all(|(a, b)| *a == !b)
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::memory::Place;
    use super::*;

    fn secret() -> String {
        "xoxb-canary-".repeat(20)
    }

    #[test]
    fn memory_that_is_not_wiped_is_found() {
        let bytes = secret().into_bytes();
        let place = Place::of(&bytes);
        assert!(place.has_secret());
        drop(bytes);
        assert!(
            place.has_secret(),
            "this test could not see the faults that it is for"
        );
    }

    #[test]
    fn bytes_are_wiped_when_their_last_clone_is_dropped() {
        let bytes = wiped(secret());
        let (place, clone) = (Place::of(&bytes), bytes.clone());
        drop(bytes);
        assert!(place.has_secret(), "a reader still has it");
        drop(clone);
        assert!(!place.has_secret());
    }

    #[test]
    fn a_buffer_that_grows_leaves_nothing_behind() {
        let mut buffer = Buffer::with_capacity(240);
        buffer.put(secret().as_bytes());
        let first = Place::of(&buffer.0);
        buffer.put(secret().as_bytes());
        assert!(!first.has_secret());
        assert_eq!(buffer.len(), 480);
        let bytes = buffer.freeze();
        assert_eq!(bytes, secret().repeat(2));
        let second = Place::of(&bytes);
        drop(bytes);
        assert!(!second.has_secret());
    }

    #[test]
    fn what_a_transport_returned_is_wiped_if_nobody_else_has_it() {
        for is_shared in [false, true] {
            let bytes = Bytes::from(secret());
            let other = is_shared.then(|| bytes.clone());
            let ours = Wiped::new(bytes);
            let place = Place::of(&ours);
            drop(ours);
            assert_eq!(place.has_secret(), is_shared);
            drop(other);
        }
    }
}

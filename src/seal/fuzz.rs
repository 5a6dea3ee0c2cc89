//! Fuzz target: ciphertexts and their contexts.

use super::Sealed;
use super::envelope::{self, Context, RECORD};
use super::key::{DataKey, KeyId};
use crate::edit::edit;

/// With the first byte `b`, the rest is a ciphertext. With `e`, the rest edits a good one.
/// Otherwise it is two contexts of five lines each: what is sealed in one opens only there.
pub(crate) fn envelope(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let (key, id) = (DataKey::from_bytes([7; 32]), KeyId::from_bytes([9; 16]));
    let text = String::from_utf8_lossy(rest);
    let mut lines = text.split('\n');
    let mut context = || {
        let mut line = || lines.next().unwrap_or_default();
        Context {
            app: line(),
            partition: line(),
            slot: line(),
            kind: line(),
            version: &[1; 16],
            due: None,
            metadata: line(),
        }
    };
    let (one, other) = (context(), context());
    let seal = |context: &Context<'_>, plaintext: &[u8]| {
        envelope::seal_with_random(RECORD, id, &key, context, plaintext, &[3; 32])
    };
    match first {
        b'b' => {
            let stored = Sealed::from_stored(rest);
            assert!(stored.as_bytes().is_empty() || stored.as_bytes() == rest);
            let _ = (stored.key_id(), stored.wrapped_key().is_ok());
            assert!(
                envelope::open(RECORD, &key, &one, rest).is_err(),
                "a forgery"
            );
        }
        b'e' => {
            let good = seal(&one, rest);
            let mut bytes = good.as_bytes().to_vec();
            edit(&mut bytes, rest);
            let opened = envelope::open(RECORD, &key, &one, &bytes);
            assert_eq!(
                opened.is_ok(),
                bytes == good.as_bytes(),
                "a changed ciphertext"
            );
        }
        _ => {
            let sealed = seal(&one, b"plaintext");
            let is_same = format!("{one:?}") == format!("{other:?}");
            let opened = envelope::open(RECORD, &key, &other, sealed.as_bytes());
            assert_eq!(opened.is_ok(), is_same, "another context");
        }
    }
}

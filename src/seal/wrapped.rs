//! The form of a data key that was wrapped outside this process.
//!
//! It begins with the name of the key that wrapped it. So a process finds out without a call to a
//! key service whether it has the key, and the error names the key that is missing. The name is
//! not authenticated. A provider only compares it with its own.

use super::envelope;
use crate::wording::printable;

/// Returns a wrapped data key with the name of the key that wrapped it.
#[cfg(any(feature = "aws-kms", feature = "vault", test))]
pub(crate) fn named(name: &str, wrapped: &[u8]) -> Vec<u8> {
    let len = u16::try_from(name.len()).expect("the names of keys are short");
    [MAGIC, &len.to_be_bytes(), name.as_bytes(), wrapped].concat()
}

/// Returns the name and the rest. Returns `None` if the bytes have another form.
pub(crate) fn parse(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (len, rest) = rest.split_first_chunk()?;
    let (name, wrapped) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    Some((std::str::from_utf8(name).ok()?, wrapped))
}

/// Returns which key wrapped this data key, and in which of its versions. Two wrapped keys with the
/// same result were wrapped by the same key. Returns `None` for a provider of another crate.
///
/// The result is not authenticated. It is right if the provider unwraps the data key.
pub(crate) fn wrapper(bytes: &[u8]) -> Option<Vec<u8>> {
    if let Some(master_key) = envelope::key_id(bytes) {
        return Some(master_key.as_bytes().to_vec());
    }
    let (name, wrapped) = parse(bytes)?;
    // Vault and OpenBao write `vault:v3:` before the ciphertext. AWS KMS does not say which version
    // of its key it used, and keeps all of them.
    let version = wrapped
        .split(|byte| *byte == b':')
        .take(2)
        .collect::<Vec<_>>();
    let version = match version.as_slice() {
        [VAULT, version] => *version,
        _ => b"",
    };
    Some([name.as_bytes(), b" ", version].concat())
}

/// Returns a name from the database in a form that a log can show.
pub(crate) fn shown(name: &str) -> String {
    let shown: String = name.chars().take(SHOWN).collect();
    format!("`{}`", printable(&shown))
}

const MAGIC: &[u8] = b"SLW1";

const SHOWN: usize = 200;

/// What Vault and OpenBao write before the version of a ciphertext.
const VAULT: &[u8] = b"vault";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_names_the_key_that_wrapped_it() {
        let wrapped = named("vault transit/keys/a", b"\0\xff");
        assert_eq!(
            parse(&wrapped),
            Some(("vault transit/keys/a", &b"\0\xff"[..]))
        );
        assert_eq!(wrapped, b"SLW1\0\x14vault transit/keys/a\0\xff");
    }

    #[test]
    fn the_key_that_wrapped_is_told_apart_from_another_key_and_from_an_older_version() {
        let one = named("vault-transit transit/keys/a", b"vault:v1:AAAA");
        let again = named("vault-transit transit/keys/a", b"vault:v1:BBBB");
        assert_eq!(wrapper(&one), wrapper(&again));
        let kms = |name: &str, blob: &[u8]| wrapper(&named(name, blob));
        assert_eq!(kms("aws-kms k", b"\0:\x01"), kms("aws-kms k", b"\0:\x02"));
        let others = [
            wrapper(&named("vault-transit transit/keys/a", b"vault:v10:AAAA")),
            wrapper(&named("vault-transit transit/keys/b", b"vault:v1:AAAA")),
            kms("aws-kms k", b"1"),
            kms("aws-kms l", b"1"),
        ];
        for (at, other) in others.iter().enumerate() {
            assert!(other.is_some() && *other != wrapper(&one));
            assert!(!others[..at].contains(other), "{at}");
        }
        assert_eq!(wrapper(b"bytes of another provider"), None);
    }

    #[test]
    fn bytes_of_another_form_have_no_name() {
        for bytes in [
            &b""[..],
            b"SLE1\0\0",
            b"SLW1",
            b"SLW1\0",
            b"SLW1\0\x02a",
            b"SLW1\0\x01\xff",
        ] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_name_from_the_database_cannot_write_lines_into_a_log() {
        assert_eq!(shown("a\nb"), r"`a\nb`");
        assert_eq!(shown(&"a".repeat(1000)).len(), SHOWN + 2);
    }
}

//! The form of a data key that was wrapped outside this process.
//!
//! It begins with the name of the key that wrapped it. So a process finds out without a call to a
//! key service whether it has the key, and the error names the key that is missing. The name is
//! not authenticated. A provider only compares it with its own.

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

/// Returns a name from the database in a form that a log can show.
pub(crate) fn shown(name: &str) -> String {
    let shown: String = name.chars().take(SHOWN).collect();
    format!("`{}`", shown.escape_debug())
}

const MAGIC: &[u8] = b"SLW1";

const SHOWN: usize = 200;

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

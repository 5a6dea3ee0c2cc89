//! The context that a key service binds a wrapped data key to.

use crate::seal::KeyContext;

/// Returns the pairs of the context. Stored data keys depend on each name and value.
///
/// They are not secret: the log of a key service shows them.
pub(super) fn pairs(
    context: &KeyContext<'_>,
    environment: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("purpose", "slack-installs data key".to_owned()),
        ("app", context.app.to_owned()),
        ("key-id", context.key_id.to_string()),
        ("epoch", context.epoch.to_string()),
    ];
    if let Some(environment) = environment {
        pairs.push(("environment", environment.to_owned()));
    }
    pairs
}

/// Returns the pairs as bytes: each text with its length in front.
#[cfg(feature = "vault")]
pub(super) fn bytes(context: &KeyContext<'_>, environment: Option<&str>) -> Vec<u8> {
    let pairs = pairs(context, environment).into_iter();
    let texts = pairs.flat_map(|(name, value)| [name.to_owned(), value]);
    texts.fold(Vec::new(), |mut bytes, text| {
        let len = u32::try_from(text.len()).expect("names and ids are short");
        bytes.extend(len.to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::KeyId;

    fn context() -> KeyContext<'static> {
        KeyContext {
            app: "1.2",
            key_id: KeyId::from_bytes([0xab; 16]),
            epoch: 7,
        }
    }

    #[test]
    fn the_context_of_stored_data_keys_never_changes() {
        let expected = [
            ("purpose", "slack-installs data key"),
            ("app", "1.2"),
            ("key-id", "abababababababababababababababab"),
            ("epoch", "7"),
            ("environment", "staging"),
        ];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(pairs(&context(), Some("staging")), expected);
        assert_eq!(pairs(&context(), None), expected[..4]);
    }

    #[cfg(feature = "vault")]
    #[test]
    fn the_bytes_of_the_context_never_change_and_are_unambiguous() {
        let expected =
            b"\0\0\0\x07purpose\0\0\0\x17slack-installs data key\0\0\0\x03app\0\0\0\x031.2\
            \0\0\0\x06key-id\0\0\0\x20abababababababababababababababab\0\0\0\x05epoch\0\0\0\x017";
        assert_eq!(bytes(&context(), None), expected);
    }
}

//! Fuzz target: the cursors of backends, which your app may pass through a URL.

use std::time::{Duration, UNIX_EPOCH};

use super::{Cursor, Key};

/// A cursor that is accepted means the same when it is written again.
pub(crate) fn cursor(text: &str) {
    let cursor = Cursor(text.to_owned());
    if let Ok(key) = cursor.key("memory") {
        assert_eq!(Cursor::after("memory", &key), cursor);
        assert_eq!(Key::parse(&key.to_string()), Some(key));
    }
    if let Ok((at, key)) = cursor.due("memory")
        && let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(at))
    {
        let again = Cursor::after_due("memory", time, &key);
        let again = again.due("memory").expect("our own cursor");
        assert_eq!(again, (at, key));
    }
    #[cfg(feature = "redis")]
    super::redis::fuzz_cursor(&cursor);
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    super::sql::fuzz_cursor(&cursor);
    #[cfg(feature = "dynamodb")]
    super::dynamodb::fuzz_cursor(&cursor);
}

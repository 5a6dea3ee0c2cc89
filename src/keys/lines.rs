//! A text with several master keys.

use crate::seal::{LocalKeyProvider, MasterKey, MasterKeyError};

/// Parses a text with one master key in each line: the first is the primary, and the others are
/// retired. Ignores empty lines, and lines that begin with `#`.
pub(crate) fn master_keys(text: &str) -> Result<LocalKeyProvider, MasterKeyError> {
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let primary = MasterKey::parse(lines.next().unwrap_or_default())?;
    lines.try_fold(LocalKeyProvider::new(primary), |provider, line| {
        Ok(provider.with_retired(MasterKey::parse(line)?))
    })
}

//! An error with all that caused it, for an operator's log.

/// The error and its causes, one after the other. None of this crate's shows a secret; a host's
/// own stands as the host wrote it.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

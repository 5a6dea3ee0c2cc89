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

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::with_causes;

    #[derive(Debug, Error)]
    #[error("the page was not stored")]
    struct Outer(#[source] Middle);

    #[derive(Debug, Error)]
    #[error("the database did not answer")]
    struct Middle(#[source] std::fmt::Error);

    #[test]
    fn an_error_is_told_with_each_of_its_causes_in_order() {
        let error = Outer(Middle(std::fmt::Error));
        let innermost = std::fmt::Error.to_string();
        assert_eq!(
            with_causes(&error),
            format!("the page was not stored: the database did not answer: {innermost}")
        );
        assert_eq!(with_causes(&std::fmt::Error), innermost);
    }
}

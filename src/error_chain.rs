//! Formats an error with its sources as one line of a log.

/// Joins the messages of an error and of its sources. This crate's own errors contain no secret.
/// An error of your app is shown as your app wrote it.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::error_chain;

    #[derive(Debug, Error)]
    #[error("the page was not stored")]
    struct Outer(#[source] Middle);

    #[derive(Debug, Error)]
    #[error("the database did not respond")]
    struct Middle(#[source] std::fmt::Error);

    #[test]
    fn an_error_is_shown_with_each_of_its_sources_in_order() {
        let error = Outer(Middle(std::fmt::Error));
        let innermost = std::fmt::Error.to_string();
        assert_eq!(
            error_chain(&error),
            format!("the page was not stored: the database did not respond: {innermost}")
        );
        assert_eq!(error_chain(&std::fmt::Error), innermost);
    }
}

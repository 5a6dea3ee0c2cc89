//! Formats an error with its sources as one line of a log.

/// Joins the messages of an error and of its sources. A message that an error already shows is left
/// out. This crate's own errors contain no secret. An error of your app is shown as your app wrote
/// it.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for source in std::iter::successors(error.source(), |error| error.source()) {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
    }
    text
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

    #[derive(Debug, Error)]
    #[error("the keyring cannot be read: {0}")]
    struct Shows(#[source] Middle);

    #[test]
    fn a_source_that_an_error_shows_is_not_repeated() {
        let innermost = std::fmt::Error.to_string();
        assert_eq!(
            error_chain(&Shows(Middle(std::fmt::Error))),
            format!("the keyring cannot be read: the database did not respond: {innermost}")
        );
    }

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

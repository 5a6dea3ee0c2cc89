//! Fuzz target: Slack's responses.

use std::fmt;

use http::StatusCode;

use super::answers;
use crate::clock::from_epoch;

/// The input is the body of a response. What is wrong with it is said without repeating it.
pub(crate) fn responses(input: &[u8]) {
    let at = from_epoch(1_790_000_000);
    match answers::exchanged(input, at) {
        Ok(Ok(exchanged)) => {
            let is_ownerless = exchanged.ownerless().is_some();
            let issued = exchanged.issued();
            assert!(!is_ownerless || issued.is_err(), "a token without an owner");
            if let Ok(issued) = issued {
                // Without a token, the install flow refuses it.
                drop(format!("{issued:?}"));
            }
        }
        Ok(Err(unusable)) => check(&unusable.error()),
        Err(error) => check(&error),
    }
    match answers::renewed(input, at) {
        Ok(renewed) => assert!(renewed.grant.refresh_token.is_some(), "a pair has both"),
        Err(error) => check(&error),
    }
    drop(answers::auth_test(input).map_err(|error| check(&error)));
    drop(answers::teams(input).map_err(|error| check(&error)));
    drop(answers::person(input).map_err(|error| check(&error)));
    for status in [StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR] {
        super::client::fuzz_answer(status, input);
    }
}

fn check(error: &impl fmt::Debug) {
    let text = format!("{error:?}");
    assert!(!text.contains("xox"), "an error repeats a token");
}

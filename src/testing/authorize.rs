//! Serves the authorize page and handles its buttons.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::consent::{Ask, field, pairs};
use super::core::Core;
use super::page::{self, Choice};
use super::response::{html, redirect};
use super::state::State;
use super::world::{ConsentError, Who};

impl Core {
    /// Handles `GET`: shows the page.
    pub(super) fn authorize_page(&self, query: &str) -> Response<Bytes> {
        let query = pairs(query.as_bytes());
        let ask = match Ask::read(&query, &self.app) {
            Ok(ask) => ask,
            Err(error) => return refusal(error),
        };
        let state = self.state();
        let page = page::consent(&self.app, &ask, &query, &choices(&state, &ask));
        html(StatusCode::OK, page)
    }

    /// Handles `POST`: the person clicked a button.
    pub(super) fn authorize_answer(&self, form: &[u8]) -> Response<Bytes> {
        let form = pairs(form);
        let callback = Ask::read(&form, &self.app).and_then(|ask| {
            let who = field(&form, "who").and_then(chosen);
            match (field(&form, "answer"), who) {
                (Some("allow"), Some(who)) => self.state().allow(&ask, &who, self.clock.now()),
                (Some("allow"), None) => Err(ConsentError::NotAllowed),
                _ => Ok(ask.cancelled()),
            }
        });
        match callback {
            Ok(url) => redirect(&url),
            Err(error) => refusal(error),
        }
    }
}

fn choices(state: &State, ask: &Ask) -> Vec<Choice> {
    let choices = state.world.choices().map(|(person, key)| {
        let place = state
            .world
            .named(&key)
            .map_or_else(|| key.id(), |place| &place.name);
        let whole = if key.is_org() { "all of " } else { "" };
        Choice {
            label: format!("{} in {whole}{place} ({})", person.name, key.id()),
            preselected: ask.team.as_deref() == Some(key.id()),
            value: format!("{}@{}", person.id, key.id()),
        }
    });
    choices.collect()
}

fn chosen(value: &str) -> Option<Who> {
    let (user, place) = value.split_once('@')?;
    let user = user.to_owned().try_into().ok()?;
    Some(Who {
        user,
        place: Some(place.to_owned()),
    })
}

fn refusal(error: ConsentError) -> Response<Bytes> {
    let code = match error {
        ConsentError::NotAllowed => "not_allowed",
        ConsentError::Refused(code) => code,
    };
    html(StatusCode::BAD_REQUEST, page::refusal(code))
}

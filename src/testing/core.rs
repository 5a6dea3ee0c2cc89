//! The fake without a transport: takes a request and returns the response.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use url::Url;

use crate::clock::Clock;
use crate::slack::Environment;

use super::api;
use super::app::App;
use super::calls::Outcome;
use super::canned;
use super::consent::{self, Ask};
use super::fault::Fault;
use super::mint::Mint;
use super::posts::{REPLIES, WEBHOOKS};
use super::response::{self, status};
use super::state::State;
use super::world::{ConsentError, World};

/// The data that the server, the transport and the handle share.
pub(super) struct Core {
    pub(super) ahead: Arc<AtomicU64>,
    pub(super) app: App,
    pub(super) clock: Clock,
    pub(super) environment: Environment,
    state: Mutex<State>,
}

impl Core {
    pub(super) fn new(world: World, base: &str) -> Arc<Self> {
        let mut mint = Mint::new(world.seed);
        let app = App::new(&world, &mut mint);
        let ahead = Arc::new(AtomicU64::new(0));
        let (start, moved) = (world.clock.clone(), Arc::clone(&ahead));
        let environment = Environment::at(base).expect("the base URL is on loopback, or is https");
        let state = State::new(world, mint, environment.base());
        Arc::new(Self {
            ahead,
            app,
            clock: Clock::from_fn(move || {
                start.now() + Duration::from_millis(moved.load(Ordering::SeqCst))
            }),
            environment,
            state: Mutex::new(state),
        })
    }

    /// Locks the state. A lock that a panicking test poisoned is still used, because a panic leaves
    /// no half-done change.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask(&self, authorize: &Url) -> Result<Ask, ConsentError> {
        let query = consent::pairs(authorize.query().unwrap_or_default().as_bytes());
        Ask::read(&query, &self.app)
    }

    /// Returns the response, after the delay of a fault if there is one.
    pub(super) async fn answer_in_time(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let arrival = self.arrive(&request);
        let fault = arrival.fault.as_ref();
        let delay = fault
            .map(|fault| fault.delay)
            .filter(|delay| !delay.is_zero());
        let is_late = fault.is_some_and(|fault| fault.after_effect);
        if let Some(delay) = delay.filter(|_| !is_late) {
            tokio::time::sleep(delay).await;
        }
        let answer = self.carry_out(&request, &arrival);
        if let Some(delay) = delay.filter(|_| is_late) {
            tokio::time::sleep(delay).await;
        }
        answer
    }

    /// Records the arrival of a Web API call, and takes the fault that applies to it.
    pub(super) fn arrive(&self, request: &Request<Bytes>) -> Arrival {
        let is_call = [Method::GET, Method::POST].contains(request.method());
        let method = request
            .uri()
            .path()
            .strip_prefix("/api/")
            .filter(|_| is_call);
        let Some(method) = method else {
            return Arrival::default();
        };
        // The app chose the path, so a text that is not a method name is not stored.
        let is_name = (1..=64).contains(&method.len())
            && method
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.');
        let method = if is_name { method } else { "?" };
        let mut state = self.state();
        Arrival {
            call: Some((
                method.to_owned(),
                state.calls.arrive(method, self.clock.now()),
            )),
            fault: state.faults.strike(method),
        }
    }

    pub(super) fn carry_out(
        &self,
        request: &Request<Bytes>,
        arrival: &Arrival,
    ) -> Option<Response<Bytes>> {
        let path = request.uri().path();
        let mut response = match (&arrival.call, request.method()) {
            (Some((method, number)), _) => {
                self.call(method, *number, request, arrival.fault.as_ref())?
            }
            (None, &Method::GET) if path == AUTHORIZE => {
                self.authorize_page(request.uri().query().unwrap_or_default())
            }
            (None, &Method::POST) if path == AUTHORIZE => self.authorize_answer(request.body()),
            (None, &Method::POST) if path.starts_with(REPLIES) => self.reply(request),
            (None, &Method::POST) if path.starts_with(WEBHOOKS) => self.webhook(request),
            (None, _) => status(StatusCode::NOT_FOUND),
        };
        let date = httpdate::fmt_http_date(self.clock.now());
        let stamps = [
            ("date", date),
            ("x-slack-req-id", self.state().request_id()),
        ];
        for (name, value) in stamps {
            let value =
                HeaderValue::try_from(value).expect("dates and hex digits are visible ASCII");
            response.headers_mut().insert(name, value);
        }
        Some(response)
    }

    /// Applies a Web API call and its fault.
    fn call(
        &self,
        method: &str,
        number: usize,
        request: &Request<Bytes>,
        fault: Option<&Fault>,
    ) -> Option<Response<Bytes>> {
        let incoming = api::Incoming::read(method, request);
        if let Ok(incoming) = &incoming {
            note_caller(&mut self.state(), number, incoming);
        }
        let truth = || match &incoming {
            Ok(incoming) => self.truth(number, incoming),
            Err(error) => (response::refuse(error), Some((*error).to_owned())),
        };
        let (response, error) = match fault.filter(|fault| fault.replaces_answer()) {
            Some(fault) => {
                if fault.after_effect {
                    truth();
                }
                fault.answer()
            }
            None => {
                let (response, error) = truth();
                (Some(response), error)
            }
        };
        let outcome = match (&response, error) {
            (None, _) => Outcome::Lost,
            (Some(response), _) if response.status() != StatusCode::OK => {
                Outcome::Status(response.status().as_u16())
            }
            (Some(_), Some(error)) => Outcome::Error(error),
            (Some(_), None) => Outcome::Ok,
        };
        let mut state = self.state();
        state.calls.note(number, |call| call.outcome = outcome);
        response
    }

    /// Applies a Web API call. Returns the response without a fault, and the error code in it.
    fn truth(&self, number: usize, incoming: &api::Incoming) -> (Response<Bytes>, Option<String>) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(respond) = state.canned.get(&incoming.method) else {
            return api::answer(&mut state, &self.app, incoming, now);
        };
        let admitted = api::admit(&state, incoming, now);
        let call = state.calls.get(number).clone();
        // The test's function may call the fake.
        drop(state);
        match admitted {
            Ok(scopes) => {
                let fields = canned::fields(&incoming.method, respond(&call));
                api::respond(incoming, scopes.as_ref(), fields)
            }
            Err(error) => (response::refuse(error), Some(error.to_owned())),
        }
    }
}

/// A request that has arrived: its place in the log, and its fault.
#[derive(Default)]
pub(super) struct Arrival {
    /// The method, and the call's number in the log.
    call: Option<(String, usize)>,
    fault: Option<Fault>,
}

fn note_caller(state: &mut State, number: usize, incoming: &api::Incoming) {
    let args = incoming.public_args().into();
    state.calls.note(number, |call| call.args = args);
    let holder = incoming
        .token
        .as_deref()
        .and_then(|token| state.former_holder(token));
    let by_token = holder.map(|h| (h.tenant.clone(), h.user.clone(), Some(h.number)));
    let by_code = || {
        let holder = incoming
            .arg("code")
            .and_then(|code| state.holder_of_code(&code));
        holder.map(|(tenant, user)| (tenant.clone(), Some(user.clone()), None))
    };
    let Some((tenant, user, token)) = by_token.or_else(by_code) else {
        return;
    };
    state.calls.note(number, |call| {
        call.tenant = Some(tenant);
        call.user = user;
        call.token = token;
    });
}

const AUTHORIZE: &str = "/oauth/v2/authorize";

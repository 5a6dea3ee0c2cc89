//! The responses that a test sets for methods of the Web API.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::FakeSlack;
use super::calls::Call;

impl FakeSlack {
    /// Sets the response of a Web API method, for every further call.
    ///
    /// The method can be any of Slack's. If it is one that the fake serves itself, the response
    /// replaces the fake's. The calls and their arguments are in [`call_log`](Self::call_log).
    ///
    /// The token is checked as for every method: a revoked or expired token gets Slack's error, and
    /// not this response. Methods that need no installation's token (`api.test`,
    /// `apps.connections.open`, `oauth.*`, `openid.*` and `tooling.*`) respond always. The fake
    /// does not check the scope, because it does not know which scope a method needs.
    ///
    /// If the response has no field `ok`, the fake adds it: `false` if there is a field `error`,
    /// otherwise `true`.
    ///
    /// ```
    /// use slack_installs::testing::{FakeSlack, World};
    /// use serde_json::json;
    ///
    /// let fake = FakeSlack::in_process(World::default());
    /// fake.respond("chat.postMessage", json!({ "ts": "1790000000.000100" }));
    /// // Your app calls the method, and then:
    /// for call in fake.call_log() {
    ///     assert_eq!(call.args["text"], "hello");
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the response is not a JSON object.
    pub fn respond(&self, method: &str, response: Value) {
        let _ = fields(method, response.clone());
        self.respond_with(method, move |_| response.clone());
    }

    /// Sets a function that returns the response to each further call of a Web API method.
    ///
    /// Does otherwise the same as [`respond`](Self::respond). The function may call this fake. The
    /// call's outcome is [`Outcome::Pending`](super::Outcome::Pending) at that time.
    ///
    /// ```
    /// use slack_installs::testing::{FakeSlack, World};
    /// use serde_json::json;
    ///
    /// let fake = FakeSlack::in_process(World::default());
    /// fake.respond_with("conversations.info", |call| {
    ///     json!({ "channel": { "id": call.args["channel"], "name": "general" } })
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// If the function panics or returns something else than a JSON object, the app gets no
    /// response over HTTP. In process, the call panics.
    pub fn respond_with(
        &self,
        method: &str,
        respond: impl Fn(&Call) -> Value + Send + Sync + 'static,
    ) {
        let mut state = self.core.state();
        state.canned.0.insert(method.to_owned(), Arc::new(respond));
    }
}

/// Returns the response to a call.
pub(super) type Respond = Arc<dyn Fn(&Call) -> Value + Send + Sync>;

/// The responses that were set, by method.
#[derive(Default)]
pub(super) struct Canned(HashMap<String, Respond>);

impl Canned {
    pub(super) fn get(&self, method: &str) -> Option<Respond> {
        self.0.get(method).cloned()
    }
}

/// Returns the fields of a response.
pub(super) fn fields(method: &str, response: Value) -> Map<String, Value> {
    match response {
        Value::Object(fields) => fields,
        other => panic!("the response to {method} is {other}: Slack's are JSON objects"),
    }
}

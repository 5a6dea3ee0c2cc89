//! The log of the app's Web API calls.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::tenant::{InstallationKey, UserId};

/// One call of a Web API method, without its secrets.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use slack_installs::slack::Transport;
/// use slack_installs::testing::{FakeSlack, Outcome, World};
///
/// let fake = FakeSlack::in_process(World::default());
/// let url = fake.environment().api_url("auth.test");
/// let request = http::Request::post(url.as_str()).body(bytes::Bytes::new())?;
/// fake.transport().send(request).await?;
///
/// assert_eq!(fake.calls("auth.test"), 1);
/// assert_eq!(fake.call_log()[0].outcome, Outcome::Error("not_authed".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// The arguments by name, as a JSON object, without tokens, secrets and codes.
    ///
    /// Arguments of a form and of the query are text, as the app sent them. Arguments in JSON keep
    /// their types. If the fake could not parse the body, the object is empty.
    ///
    /// These are your app's own texts, and `Debug` shows them.
    pub args: Value,
    /// The time of arrival, on the fake's clock.
    pub at: SystemTime,
    /// The method, such as `auth.test`.
    pub method: String,
    /// The tenant of the call's token or code; `None` if there was none, or it is unknown.
    pub tenant: Option<InstallationKey>,
    /// The owner of the user token, or of the code; `None` for a bot token.
    pub user: Option<UserId>,
    /// The number of the call's token, counted from 1 in the order of issue. `None` if there was no
    /// token, or it is unknown.
    pub token: Option<u64>,
    /// The result of the call.
    pub outcome: Outcome,
}

/// The result of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The response had this error code of Slack's.
    Error(String),
    /// A fault lost the response. The call may have been applied.
    Lost,
    /// The call succeeded.
    Ok,
    /// The call has not ended yet.
    Pending,
    /// The response had this HTTP status, other than 200.
    Status(u16),
}

/// The calls so far, in order of arrival.
#[derive(Default)]
pub(super) struct Calls(Vec<Call>);

impl Calls {
    /// Records the arrival of a call, and returns its number for [`Self::note`].
    pub(super) fn arrive(&mut self, method: &str, at: SystemTime) -> usize {
        self.0.push(Call {
            args: Map::new().into(),
            at,
            method: method.to_owned(),
            tenant: None,
            user: None,
            token: None,
            outcome: Outcome::Pending,
        });
        self.0.len() - 1
    }

    pub(super) fn get(&self, number: usize) -> &Call {
        &self.0[number]
    }

    pub(super) fn all(&self) -> &[Call] {
        &self.0
    }

    pub(super) fn note(&mut self, number: usize, note: impl FnOnce(&mut Call)) {
        if let Some(call) = self.0.get_mut(number) {
            note(call);
        }
    }
}

//! What the app under test asked of the Web API.

use std::time::SystemTime;

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
    /// When it arrived, on the fake's clock.
    pub at: SystemTime,
    /// The method, such as `auth.test`.
    pub method: String,
    /// Whose token or code it carried, if it was known.
    pub tenant: Option<InstallationKey>,
    /// The owner of the user token, or of the code; `None` for a bot token.
    pub user: Option<UserId>,
    /// Which token it carried, counted from 1 in the order of issue; `None` for none or an
    /// unknown one.
    pub token: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// With this error code of Slack's.
    Error(String),
    /// Without an answer; the call may have had its effect.
    Lost,
    /// Well.
    Ok,
    /// Not yet.
    Pending,
    /// With this HTTP status, which was not 200.
    Status(u16),
}

/// The calls so far, in order of arrival.
#[derive(Default)]
pub(super) struct Calls(Vec<Call>);

impl Calls {
    /// Notes an arrival, and returns its number for [`Self::note`].
    pub(super) fn arrive(&mut self, method: &str, at: SystemTime) -> usize {
        self.0.push(Call {
            at,
            method: method.to_owned(),
            tenant: None,
            user: None,
            token: None,
            outcome: Outcome::Pending,
        });
        self.0.len() - 1
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

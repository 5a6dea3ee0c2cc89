//! What a request is.

use std::fmt;

/// What a verified request is.
///
/// `Debug` shows the kind's name and an event's type, nothing else of the request.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The Events API delivers too much and pauses (not wrapped in an event).
    AppRateLimited,
    /// A button, menu or other block element was used.
    BlockActions,
    /// An external select menu asks for its options.
    BlockSuggestion,
    /// A legacy dialog was cancelled.
    DialogCancellation,
    /// A legacy dialog was submitted.
    DialogSubmission,
    /// A legacy dialog's select menu asks for its options.
    DialogSuggestion,
    /// An event of the Events API.
    Event {
        /// Its type, such as `app_mention`: 1 to 64 ASCII letters, digits, `_`, `.`, `-`
        /// or `:`.
        event_type: Box<str>,
    },
    /// A workflow runs a function of this app. The payload carries a live token, which is not
    /// the installation's.
    FunctionExecuted,
    /// A legacy message attachment's button or menu was used.
    InteractiveMessage,
    /// A message shortcut.
    MessageAction,
    /// A global shortcut.
    Shortcut,
    /// A slash command.
    SlashCommand,
    /// Slack looks at the certificate: answer 200 with an empty body.
    SslCheck,
    /// Something that Slack signed and this version does not know. It names no tenant.
    Unknown,
    /// Slack checks the request URL: answer 200 with the challenge.
    UrlVerification {
        /// What to answer with.
        challenge: Box<str>,
    },
    /// A modal was closed.
    ViewClosed,
    /// A modal was submitted.
    ViewSubmission,
}

impl Kind {
    /// The kind as one of a few words, for metrics and logs. An event's type is not part of it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AppRateLimited => "app_rate_limited",
            Self::BlockActions => "block_actions",
            Self::BlockSuggestion => "block_suggestion",
            Self::DialogCancellation => "dialog_cancellation",
            Self::DialogSubmission => "dialog_submission",
            Self::DialogSuggestion => "dialog_suggestion",
            Self::Event { .. } => "event",
            Self::FunctionExecuted => "function_executed",
            Self::InteractiveMessage => "interactive_message",
            Self::MessageAction => "message_action",
            Self::Shortcut => "shortcut",
            Self::SlashCommand => "slash_command",
            Self::SslCheck => "ssl_check",
            Self::Unknown => "unknown",
            Self::UrlVerification { .. } => "url_verification",
            Self::ViewClosed => "view_closed",
            Self::ViewSubmission => "view_submission",
        }
    }

    /// Whether it is an interactive payload.
    pub(super) fn is_interactive(&self) -> bool {
        INTERACTIVE.contains(self)
    }

    /// The kind of an interactive payload with this `type`.
    pub(super) fn interactive(name: &str) -> Self {
        let known = INTERACTIVE.iter().find(|kind| kind.name() == name);
        known.cloned().unwrap_or(Self::Unknown)
    }

    /// The kind of an event of this type, if that can be one.
    pub(super) fn event(event_type: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
        match event_type {
            "function_executed" => Some(Self::FunctionExecuted),
            _ => ((1..=MAX_EVENT_TYPE_LEN).contains(&event_type.len())
                && event_type.bytes().all(allowed))
            .then(|| Self::Event {
                event_type: event_type.into(),
            }),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { event_type } => write!(f, "event {event_type}"),
            kind => f.write_str(kind.name()),
        }
    }
}

/// The kinds that Slack sends as an interactive payload.
static INTERACTIVE: [Kind; 10] = [
    Kind::BlockActions,
    Kind::BlockSuggestion,
    Kind::DialogCancellation,
    Kind::DialogSubmission,
    Kind::DialogSuggestion,
    Kind::InteractiveMessage,
    Kind::MessageAction,
    Kind::Shortcut,
    Kind::ViewClosed,
    Kind::ViewSubmission,
];

/// The longest event type that is accepted, in bytes. Slack's longest has 30.
const MAX_EVENT_TYPE_LEN: usize = 64;

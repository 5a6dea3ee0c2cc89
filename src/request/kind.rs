//! The kinds of requests.

use std::fmt;

/// The kind of a verified request.
///
/// `Debug` shows only the kind's name, and the type of an event or of an unknown interaction.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The Events API exceeded its rate limit and pauses. This request is not wrapped in an event.
    AppRateLimited,
    /// A button, menu or other block element was used.
    BlockActions,
    /// An external select menu requests its options.
    BlockSuggestion,
    /// A legacy dialog was cancelled.
    DialogCancellation,
    /// A legacy dialog was submitted.
    DialogSubmission,
    /// A legacy dialog's select menu requests its options.
    DialogSuggestion,
    /// An event of the Events API.
    Event {
        /// The event's type, such as `app_mention`: 1 to 64 ASCII letters, digits, `_`, `.`, `-` or
        /// `:`.
        event_type: Box<str>,
    },
    /// A workflow runs a function of this app. The payload carries a live token that is not one of
    /// the installation's tokens.
    FunctionExecuted,
    /// An interactive payload of a type that this version does not know. Its tenant is named only
    /// if all ids of the payload agree.
    Interaction {
        /// The payload's type: 1 to 64 ASCII letters, digits, `_`, `.`, `-` or `:`.
        interaction_type: Box<str>,
    },
    /// A legacy message attachment's button or menu was used.
    InteractiveMessage,
    /// A message shortcut.
    MessageAction,
    /// A global shortcut.
    Shortcut,
    /// A slash command.
    SlashCommand,
    /// Slack checks the certificate. Respond with 200 and an empty body.
    SslCheck,
    /// A request that Slack signed and whose form this version does not know. It names no tenant.
    Unknown,
    /// Slack checks the request URL. Respond with 200 and the challenge.
    UrlVerification {
        /// The text of the response.
        challenge: Box<str>,
    },
    /// A modal was closed.
    ViewClosed,
    /// A modal was submitted.
    ViewSubmission,
}

impl Kind {
    /// Returns the name of the kind, for metrics and logs. It does not include the type of an event
    /// or of an unknown interaction.
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
            Self::Interaction { .. } => "interaction",
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

    /// Returns whether the request is an interactive payload.
    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Interaction { .. }) || INTERACTIVE.contains(self)
    }

    /// Returns whether a person sees Slack's own error if the response is not 200.
    pub(crate) fn is_shown_to_a_person(&self) -> bool {
        matches!(self, Self::SlashCommand) || INTERACTIVE.contains(self)
    }

    /// Returns the kind of an interactive payload with this `type`.
    pub(super) fn interactive(name: &str) -> Self {
        let known = INTERACTIVE.iter().find(|kind| kind.name() == name);
        match known {
            Some(known) => known.clone(),
            None if is_type(name) => Self::Interaction {
                interaction_type: name.into(),
            },
            None => Self::Unknown,
        }
    }

    /// Returns the kind of an event with this type, if the type is valid.
    pub(super) fn event(event_type: &str) -> Option<Self> {
        match event_type {
            "function_executed" => Some(Self::FunctionExecuted),
            _ => is_type(event_type).then(|| Self::Event {
                event_type: event_type.into(),
            }),
        }
    }
}

/// Returns whether this text can be a type that Slack may add. It then appears in logs.
fn is_type(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
    (1..=MAX_TYPE_LEN).contains(&text.len()) && text.bytes().all(allowed)
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { event_type } => write!(f, "event {event_type}"),
            Self::Interaction { interaction_type } => write!(f, "interaction {interaction_type}"),
            kind => f.write_str(kind.name()),
        }
    }
}

/// The kinds that Slack sends as interactive payloads.
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

/// The length of the longest accepted type, in bytes. Slack's longest event type has 30.
const MAX_TYPE_LEN: usize = 64;

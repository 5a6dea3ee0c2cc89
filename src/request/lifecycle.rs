//! Lifecycle events.

/// A lifecycle event: it ends, grants or moves an installation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LifecycleEvent {
    AccessGranted,
    AccessRevoked,
    AppUninstalled,
    MigrationFinished,
    MigrationStarted,
    TokensRevoked,
}

impl LifecycleEvent {
    /// Returns the lifecycle event with this type, if it is one.
    pub(super) fn of(event_type: &str) -> Option<Self> {
        ALL.into_iter().find(|event| event.name() == event_type)
    }

    /// Returns Slack's name for the event type.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AccessGranted => "team_access_granted",
            Self::AccessRevoked => "team_access_revoked",
            Self::AppUninstalled => "app_uninstalled",
            Self::MigrationFinished => "grid_migration_finished",
            Self::MigrationStarted => "grid_migration_started",
            Self::TokensRevoked => "tokens_revoked",
        }
    }
}

const ALL: [LifecycleEvent; 6] = [
    LifecycleEvent::AccessGranted,
    LifecycleEvent::AccessRevoked,
    LifecycleEvent::AppUninstalled,
    LifecycleEvent::MigrationFinished,
    LifecycleEvent::MigrationStarted,
    LifecycleEvent::TokensRevoked,
];

//! The names of the partitions and slots in which an app's records are stored.

use std::fmt;
use std::sync::LazyLock;

use crate::backend::{Lane, Partition, Prefix, Queue, Scope, Slot};
use crate::seal::KeyId;
use crate::store::{Credential, RunId, SeenId, StateId, Subject};
use crate::tenant::{ClientId, InstallationKey, TeamId, UserId};

/// An app's part of a database. The name of each of its partitions begins with the client id.
#[derive(Clone, Debug)]
pub(super) struct App(ClientId);

impl App {
    pub(super) fn new(id: ClientId) -> Self {
        Self(id)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns a tenant's partition. Ids begin with a capital letter, so they never collide with
    /// the names below.
    pub(super) fn tenant(&self, key: &InstallationKey) -> Partition {
        self.partition(key.id())
    }

    /// Returns the partition of one OAuth state.
    pub(super) fn state(&self, id: &StateId) -> Partition {
        self.partition(format_args!("state/{}", Hex(&id.0)))
    }

    /// Returns the partition of one handled request.
    pub(super) fn seen(&self, id: &SeenId) -> Partition {
        self.partition(format_args!("seen/{}", Hex(&id.0)))
    }

    /// Returns the partition of the data keys.
    pub(super) fn keyring(&self) -> Partition {
        self.partition("keyring")
    }

    /// Returns the partition of one run of the audit log.
    pub(super) fn audit_run(&self, run: RunId) -> Partition {
        self.partition(format_args!("{AUDIT_RUN}{run}"))
    }

    /// Returns the scope of all runs of the audit log.
    pub(super) fn audit_runs(&self) -> Scope {
        self.named(AUDIT_RUN)
    }

    /// Returns the partition of the registry of runs.
    pub(super) fn audit_registry(&self) -> Partition {
        self.partition("audit-runs")
    }

    /// Returns the partition of a key that seals parts of the audit log.
    pub(super) fn audit_key(&self, id: KeyId) -> Partition {
        self.partition(format_args!("audit-key/{id}"))
    }

    /// Returns the partition that names a tenant's key in the audit log. It is not the tenant's
    /// own partition, because a purge must not make the log unreadable.
    pub(super) fn audit_tenant(&self, tenant: &InstallationKey) -> Partition {
        self.partition(format_args!("audit-tenant/{}", tenant.id()))
    }

    /// Returns the scope of all partitions whose name begins with `begin`. Empty text selects all.
    pub(super) fn named(&self, begin: &str) -> Scope {
        let prefix = Prefix::new(format!("{}/{begin}", self.0));
        Scope::Prefix(prefix.expect("a client id is a valid prefix"))
    }

    pub(super) fn queue(&self, lane: Lane) -> Queue {
        Queue::new(self.as_str(), lane).expect("a client id is a valid name of a queue")
    }

    fn partition(&self, name: impl fmt::Display) -> Partition {
        Partition::new(format!("{}/{name}", self.0))
            .expect("ids and fixed names are valid in a partition")
    }
}

/// Returns the tenant of this partition; `None` if the partition does not belong to a tenant.
pub(super) fn tenant_of(partition: &Partition) -> Option<InstallationKey> {
    partition.name().parse().ok()
}

/// Returns the run of this partition; `None` if the partition is not a run of the audit log.
pub(super) fn run_of(partition: &Partition) -> Option<RunId> {
    RunId::parse(partition.name().strip_prefix(AUDIT_RUN)?)
}

/// Returns the place of a batch in its run.
pub(super) fn audit_batch(number: u64) -> Place {
    place(slot(&format!("{number:010}")), AUDIT)
}

/// Returns the number of the batch in this slot.
pub(super) fn batch_of(slot: &Slot) -> Option<u64> {
    let number = slot.as_str().parse().ok()?;
    (audit_batch(number).slot == *slot).then_some(number)
}

/// Returns the place of a run's entry in the registry.
pub(super) fn audit_entry(run: RunId) -> Place {
    place(slot(&run.to_string()), AUDIT_ENTRY)
}

/// Returns the place of a key of the audit log.
pub(super) fn audit_key() -> Place {
    place(slot("key"), AUDIT_KEY)
}

/// Returns the place of the name of a tenant's key of the audit log.
pub(super) fn audit_tenant() -> Place {
    place(slot("key"), AUDIT_TENANT)
}

/// A slot, and the kind of record that it must hold.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) kind: &'static str,
}

const AUDIT_RUN: &str = "audit/";

pub(super) const ACCESS: &str = "access";
pub(super) const AUDIT: &str = "audit";
pub(super) const AUDIT_ENTRY: &str = "audit_run";
pub(super) const AUDIT_KEY: &str = "audit_key";
pub(super) const AUDIT_TENANT: &str = "audit_tenant";
pub(super) const BOT: &str = "bot";
pub(super) const DEPARTURE: &str = "departure";
pub(super) const HOLD: &str = "hold";
pub(super) const INSTALL: &str = "install";
pub(super) const INSTALLER: &str = "installer";
pub(super) const NOTICE: &str = "notice";
pub(super) const SEEN: &str = "seen";
pub(super) const STATE: &str = "state";
pub(super) const USER: &str = "user";

/// Returns the place of an installation's facts.
pub(super) fn install() -> Place {
    static SLOT: LazyLock<Slot> = LazyLock::new(|| slot(INSTALL));
    place(SLOT.clone(), INSTALL)
}

/// Returns the place of an operator's hold on the tenant.
pub(super) fn hold() -> Place {
    static SLOT: LazyLock<Slot> = LazyLock::new(|| slot(HOLD));
    place(SLOT.clone(), HOLD)
}

/// Returns the place of the bot's chain of tokens.
pub(super) fn bot() -> Place {
    static SLOT: LazyLock<Slot> = LazyLock::new(|| slot(BOT));
    place(SLOT.clone(), BOT)
}

/// Returns the place of one user's chain of tokens.
pub(super) fn user(id: &UserId) -> Place {
    place(slot(&format!("user/{id}")), USER)
}

/// Returns the place of one person's own metadata.
pub(super) fn installer(id: &UserId) -> Place {
    place(slot(&format!("installer/{id}")), INSTALLER)
}

pub(super) fn chain(credential: &Credential) -> Place {
    match credential {
        Credential::Bot => bot(),
        Credential::User(id) => user(id),
    }
}

/// Returns the credential whose chain is in this slot; `None` for a slot of another kind.
pub(super) fn credential_of(slot: &Slot) -> Option<Credential> {
    match slot.as_str().split_once('/') {
        None if slot.as_str() == BOT => Some(Credential::Bot),
        Some(("user", id)) => UserId::new(id).ok().map(Credential::User),
        _ => None,
    }
}

/// Returns the place of a departure's note.
pub(super) fn departure() -> Place {
    place(slot(DEPARTURE), DEPARTURE)
}

/// Returns the place of the notice of this subject.
pub(super) fn notice(subject: &Subject) -> Place {
    let (ended, whose) = match subject {
        Subject::Authorization(credential) => ("revoked", owner(credential)),
        Subject::Chain(credential) => ("dead", owner(credential)),
        Subject::Workspace(team) => ("left", team.as_str()),
    };
    place(slot(&format!("{NOTICE}/{ended}/{whose}")), NOTICE)
}

/// Returns the subject of the notice in this slot; `None` for a slot of another kind.
pub(super) fn subject_of(slot: &Slot) -> Option<Subject> {
    let mut parts = slot.as_str().splitn(3, '/');
    let (NOTICE, ended, whose) = (parts.next()?, parts.next()?, parts.next()?) else {
        return None;
    };
    let credential = || match whose {
        BOT => Some(Credential::Bot),
        id => UserId::new(id).ok().map(Credential::User),
    };
    match ended {
        "revoked" => credential().map(Subject::Authorization),
        "dead" => credential().map(Subject::Chain),
        "left" => TeamId::new(whose).ok().map(Subject::Workspace),
        _ => None,
    }
}

fn owner(credential: &Credential) -> &str {
    match credential {
        Credential::Bot => BOT,
        Credential::User(id) => id.as_str(),
    }
}

/// Returns the place that says whether an org-wide installation may serve this workspace.
pub(super) fn access(team: &TeamId) -> Place {
    place(slot(&format!("access/{team}")), ACCESS)
}

pub(super) fn state() -> Place {
    place(slot(STATE), STATE)
}

pub(super) fn seen() -> Place {
    place(slot(SEEN), SEEN)
}

pub(super) fn slot(name: &str) -> Slot {
    Slot::new(name).expect("ids and fixed names are valid in a slot")
}

fn place(slot: Slot, kind: &'static str) -> Place {
    Place { slot, kind }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_notice_says_what_it_is_about() {
        let user = || Credential::User(UserId::new("U0ADMIN0001").expect("an id"));
        let team = TeamId::new("T0ALPHA0001").expect("an id");
        for (subject, name) in [
            (
                Subject::Authorization(Credential::Bot),
                "notice/revoked/bot",
            ),
            (Subject::Authorization(user()), "notice/revoked/U0ADMIN0001"),
            (Subject::Chain(Credential::Bot), "notice/dead/bot"),
            (Subject::Chain(user()), "notice/dead/U0ADMIN0001"),
            (Subject::Workspace(team), "notice/left/T0ALPHA0001"),
        ] {
            let place = notice(&subject);
            assert_eq!(place.slot.as_str(), name);
            assert_eq!(subject_of(&place.slot), Some(subject));
            assert_eq!(credential_of(&place.slot), None);
        }
        for name in [
            "notice",
            "notice/dead",
            "notice/other/bot",
            "user/U1",
            "x/dead/bot",
        ] {
            assert_eq!(subject_of(&slot(name)), None, "{name}");
        }
    }
}

//! The stored format of notices. The subject is in the name of the slot. Members are added, but
//! never changed or removed.

use serde::{Deserialize, Serialize};

use super::names::NOTICE;
use super::notes;
use super::record::{Draft, Record, unknown};
use crate::clock::{from_epoch, to_epoch};
use crate::store::{Ending, Error, Notice, Subject};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

/// The facts of a notice.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NoticeFacts {
    enterprise_id: Option<EnterpriseId>,
    team_id: Option<TeamId>,
    reason: String,
    /// Seconds since 1970.
    ended_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    installed_by: Option<UserId>,
    pub(super) attempts: u32,
}

impl NoticeFacts {
    /// Removes that this person installed the app. Returns whether they did.
    pub(super) fn forget(&mut self, person: &UserId) -> bool {
        self.installed_by.take_if(|by| by == person).is_some()
    }

    fn of(notice: &Notice) -> Self {
        Self {
            enterprise_id: notice.key.enterprise().cloned(),
            team_id: notice.key.team().cloned(),
            reason: notice.reason.clone(),
            ended_at: to_epoch(notice.at),
            installed_by: notice.installed_by.clone(),
            attempts: 0,
        }
    }
}

/// Makes the record of a notice, without a due time.
pub(super) fn draft(notice: &Notice) -> Draft {
    let draft = Draft::new(NOTICE, &NoticeFacts::of(notice));
    notes::with_metadata(draft, notice.metadata.as_deref())
}

/// Returns the notice in this record, and how often it was put off.
pub(super) fn notice(subject: Subject, record: &Record) -> Result<(Notice, u32), Error> {
    let facts: NoticeFacts = record.facts(NOTICE)?;
    let key = InstallationKey::new(facts.enterprise_id, facts.team_id)
        .map_err(|_| unknown("a notice's ids"))?;
    let at = from_epoch(facts.ended_at);
    let ending = Ending {
        reason: facts.reason,
        at,
        tell_at: at,
    };
    let mut notice = Notice::new(key, subject, &ending);
    notice.installed_by = facts.installed_by;
    notice.metadata = notes::metadata(record)?;
    Ok((notice, facts.attempts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Credential;

    #[test]
    fn notices_are_written_in_the_form_that_is_stored_and_their_metadata_is_a_secret() {
        let team = TeamId::new("T0ALPHA0001").expect("an id");
        let org = EnterpriseId::new("E0GRID00001").expect("an id");
        let key = InstallationKey::workspace(team).within(org);
        let at = from_epoch(1_790_000_000);
        let ending = Ending {
            reason: "tokens_revoked".to_owned(),
            at,
            tell_at: at,
        };
        let mut notice = Notice::new(key, Subject::Authorization(Credential::Bot), &ending);
        let without = draft(&notice);
        assert_eq!(
            without.metadata,
            "{\"v\":1,\"kind\":\"notice\",\"enterprise_id\":\"E0GRID00001\",\
             \"team_id\":\"T0ALPHA0001\",\"reason\":\"tokens_revoked\",\
             \"ended_at\":1790000000,\"attempts\":0}"
        );
        assert!(without.plaintext.is_empty());
        notice.installed_by = UserId::new("U0ADMIN0001").ok();
        notice.metadata = Some("customer 42".to_owned());
        let with = draft(&notice);
        assert!(with.metadata.contains("\"installed_by\":\"U0ADMIN0001\""));
        assert!(!with.metadata.contains("customer"));
        let plaintext = std::str::from_utf8(&with.plaintext).expect("JSON");
        assert_eq!(plaintext, "{\"metadata\":\"customer 42\"}");
    }
}

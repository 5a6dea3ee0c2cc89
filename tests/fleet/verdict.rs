//! What must hold after a disturbance, and what may not.

use slack_installs::testing::GracePolicy;

use crate::slack::{ASKED, DONE};
use crate::trial::{Heard, Meanwhile, Outcome, Signal, Stored};

impl Outcome {
    /// What is wrong with it. The numbers are those of the invariants in `docs/rotation.md`.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrongs.push(what.to_owned());
            }
        };
        match self.case.meanwhile {
            Meanwhile::Ask | Meanwhile::Work => {
                let lost = self.is_lost();
                must(
                    self.last.is_live() != lost,
                    "4: it is lost where it must not be, or the window is smaller than stated",
                );
                must(
                    (self.stored == Stored::Current) != lost,
                    "4: what is stored is not current, or the window is smaller than stated",
                );
                must(
                    self.second.is_live() || self.second == self.excuse(),
                    "5: another process was refused, or handed out a stale token",
                );
            }
            Meanwhile::Reinstall => {
                must(
                    self.second.is_live() && self.second == self.last,
                    "2: the new installation's token did not stay",
                );
                must(self.stored == Stored::Current, "2: the row is not the new");
            }
            Meanwhile::Uninstall => {
                let gone = [&self.second, &self.last];
                let is_gone = |it: &&Heard| matches!(it, Heard::Never(_));
                must(
                    gone.iter().all(is_gone) && self.stored == Stored::Nothing,
                    "3: what was removed came back",
                );
                must(self.live == 0, "3: a token of what was removed lives");
            }
        }
        must(
            self.first.as_ref().is_none_or(|it| self.may_wake_to(it)),
            "7: a process that woke up gave up, or handed out a stale token",
        );
        let (calls, repeated) = self.expected_calls();
        must(
            self.counts.duplicates == repeated,
            "6: a refresh token was spent again without a cause, or not where it must be",
        );
        // Of two pairs bought with one token the stored one may be dead: the loser sees to it.
        let mending = if self.is_loser() { MENDING } else { 0 };
        must(
            (calls..=calls + mending).contains(&self.counts.calls),
            "6: Slack was called more often than it must be, or less",
        );
        let is_replaced = self.case.meanwhile == Meanwhile::Reinstall && self.reached.is_saved;
        let may_forget = usize::from(self.has_no_answer() || is_replaced);
        must(self.forgotten <= may_forget, "4: a pair is forgotten");
        must(self.live <= 2, "more than two access tokens live");
        wrongs
    }

    /// Whether the installation must be made again: a pair that nobody heard of was bought with
    /// the last refresh token, and Slack does not take that again, or for nothing.
    pub(crate) fn is_lost(&self) -> bool {
        let is_first_only = self.case.policy == GracePolicy::FirstOnly;
        self.has_no_answer() && (self.case.grace.is_zero() || is_first_only)
    }

    /// Whether Slack issued a pair that no living process heard of.
    fn has_no_answer(&self) -> bool {
        match self.case.signal {
            Signal::Kill => self.reached.is_issued && !self.reached.is_saved,
            Signal::Stop => [ASKED, DONE].contains(&&*self.step),
        }
    }

    /// Whether the process that was stopped got a pair when another had saved one.
    fn is_loser(&self) -> bool {
        let is_before = self.reached.is_leased && !self.reached.is_issued;
        let calls_late = is_before && self.step == BEFORE_THE_CALL;
        let saves_late = self.reached.is_issued && !self.reached.is_saved;
        self.case.signal == Signal::Stop && (calls_late || saves_late)
    }

    /// What the process that took over may say, other than to hand out a token that lives.
    fn excuse(&self) -> Heard {
        let is_second = self.has_no_answer() || self.is_loser() && self.step != BEFORE_THE_CALL;
        match (is_second, self.case.grace.is_zero(), self.case.policy) {
            // Refused, while somebody it cannot know of has the next pair or had it.
            (true, true, _) => Heard::Never(REFUSED.to_owned()),
            // The second of two pairs is dead from the start, and whoever bought it found out.
            (true, false, GracePolicy::FirstOnly) => Heard::Later(ENDED.to_owned()),
            _ => Heard::Later("nothing at all".to_owned()),
        }
    }

    /// Whether the process that was stopped may say this when it wakes up.
    fn may_wake_to(&self, heard: &Heard) -> bool {
        match (heard, self.case.meanwhile) {
            (Heard::Live(_) | Heard::Later(_), _) => true,
            (Heard::Never(_), Meanwhile::Uninstall) => true,
            // It had its answer before the app was removed.
            (Heard::Stale, Meanwhile::Uninstall) => self.reached.is_saved,
            // Its own call, which comes late, ends the other's pair, which it may know by then.
            (Heard::Stale, Meanwhile::Ask | Meanwhile::Work) if self.step == BEFORE_THE_CALL => {
                self.case.policy == GracePolicy::NewestOnly && !self.case.grace.is_zero()
            }
            _ => *heard == self.excuse(),
        }
    }

    /// Calls, and of these with a refresh token that was sent before.
    fn expected_calls(&self) -> (usize, usize) {
        let stopped_calls = match self.case.signal {
            Signal::Kill => self.reached.is_issued,
            Signal::Stop => {
                self.reached.is_issued || [BEFORE_THE_CALL, ASKED].contains(&&*self.step)
            }
        };
        let calls = usize::from(stopped_calls);
        match (self.case.meanwhile, self.reached.is_saved) {
            (Meanwhile::Reinstall | Meanwhile::Uninstall, _) | (_, true) => (calls, 0),
            (Meanwhile::Ask | Meanwhile::Work, false) => (calls + 1, calls),
        }
    }
}

impl Heard {
    fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

const BEFORE_THE_CALL: &str = "before the call";

const ENDED: &str = "the token could not be refreshed (token_revoked): try again later";

const REFUSED: &str =
    "Slack refused every refresh token (invalid_refresh_token): the app must be installed again";

/// The primary is refused, and the alternate is not.
const MENDING: usize = 2;

//! Token rotation: the pairs, and the refreshes that issue them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How a fake Slack rotates tokens.
///
/// Slack documents a token's life, and that at most two access tokens are valid
/// (`docs.slack.dev/authentication/using-token-rotation`). It documents neither the grace period
/// nor the result of a second refresh within it.
///
/// ```
/// use std::time::Duration;
/// use slack_installs::testing::{FakeSlack, GracePolicy, Rotation, World};
///
/// let fake = FakeSlack::in_process(World::default());
/// let grace = Duration::from_secs(30);
/// fake.rotate_tokens(Rotation { grace, policy: GracePolicy::NewestOnly, ..Rotation::default() });
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rotation {
    /// How long a used refresh token is accepted again: the grace period.
    pub grace: Duration,
    /// Whether the response to a refresh has only the fields that Slack's schema requires.
    pub is_minimal: bool,
    /// Whether the response to a user's refresh has the pair inside `authed_user`, as the response
    /// to a code exchange.
    ///
    /// Slack's documentation and SDKs have it at the top level. The nested form was reported, and
    /// an app should read both.
    pub is_nested: bool,
    /// The result of a second refresh within the grace period.
    pub policy: GracePolicy,
    /// Whether a reinstall revokes the pairs of the previous installation.
    pub reinstall_revokes: bool,
    /// How long an access token is valid.
    pub token_life: Duration,
}

impl Default for Rotation {
    /// Returns a token life of 12 hours, as Slack's, and a grace period of 30 s.
    ///
    /// A second refresh revokes the pair of the first one. A reinstall does not revoke old pairs.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            is_minimal: false,
            is_nested: false,
            policy: GracePolicy::NewestOnly,
            reinstall_revokes: false,
            token_life: Duration::from_secs(43_200),
        }
    }
}

/// The result of a second refresh with the same token within the grace period.
///
/// Slack does not document it. slackapi/node-slack-sdk#2504 reports different pairs, one of which
/// is invalid.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GracePolicy {
    /// Each refresh returns another pair, and all of them are valid.
    AllLive,
    /// Each refresh returns another pair, but only the first one is valid.
    FirstOnly,
    /// Each refresh returns another pair, and revokes the earlier ones.
    NewestOnly,
    /// Each refresh returns the same pair.
    SameChild,
}

impl GracePolicy {
    /// All policies.
    pub const ALL: [Self; 4] = [
        Self::AllLive,
        Self::FirstOnly,
        Self::NewestOnly,
        Self::SameChild,
    ];
}

/// How often refresh tokens were used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RefreshCounts {
    /// The number of calls that returned a pair.
    pub accepted: usize,
    /// The number of calls.
    pub calls: usize,
    /// The number of calls with a token that was used before.
    pub duplicates: usize,
}

/// Every issued pair, including invalid ones.
#[derive(Default)]
pub(super) struct Pairs {
    pairs: Vec<Pair>,
    by_access: HashMap<String, usize>,
    by_refresh: HashMap<String, usize>,
    chains: usize,
    counts: RefreshCounts,
}

/// Identifies a chain: the pairs of a bot or user since an installation or an exchange.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ChainId(usize);

struct Pair {
    access: String,
    access_dead: Option<&'static str>,
    chain: ChainId,
    expires_at: SystemTime,
    parent: Option<usize>,
    refresh: String,
    refresh_dead: bool,
    used_at: Option<SystemTime>,
    uses: usize,
}

/// The result of a refresh.
pub(super) enum Use {
    /// The caller must issue a new pair in this chain. With `FirstOnly`, it may be invalid from the
    /// start.
    Issue {
        parent: usize,
        chain: ChainId,
        is_dead: bool,
    },
    /// The pair that an earlier refresh issued.
    Same {
        access: String,
        refresh: String,
        chain: ChainId,
        expires_at: SystemTime,
    },
}

impl Pairs {
    pub(super) fn new_chain(&mut self) -> ChainId {
        self.chains += 1;
        ChainId(self.chains)
    }

    pub(super) fn add(
        &mut self,
        chain: ChainId,
        parent: Option<usize>,
        (access, refresh): (String, String),
        expires_at: SystemTime,
        is_dead: bool,
    ) {
        let number = self.pairs.len();
        self.by_access.insert(access.clone(), number);
        self.by_refresh.insert(refresh.clone(), number);
        self.pairs.push(Pair {
            access,
            access_dead: is_dead.then_some("token_revoked"),
            chain,
            expires_at,
            parent,
            refresh,
            refresh_dead: is_dead,
            used_at: None,
            uses: 0,
        });
    }

    /// Spends a refresh token.
    pub(super) fn spend(
        &mut self,
        refresh: &str,
        rotation: &Rotation,
        now: SystemTime,
    ) -> Result<Use, &'static str> {
        self.counts.calls += 1;
        let number = *self
            .by_refresh
            .get(refresh)
            .ok_or("invalid_refresh_token")?;
        let pair = &mut self.pairs[number];
        pair.uses += 1;
        self.counts.duplicates += usize::from(pair.uses > 1);
        if !pair.is_refreshable(rotation.grace, now) {
            return Err("invalid_refresh_token");
        }
        self.counts.accepted += 1;
        let chain = pair.chain;
        let is_first = pair.used_at.is_none();
        pair.used_at.get_or_insert(now);
        let children: Vec<_> = (0..self.pairs.len())
            .filter(|child| self.pairs[*child].parent == Some(number))
            .collect();
        match rotation.policy {
            GracePolicy::SameChild if !is_first => {
                if let Some(child) = children.first().map(|child| &self.pairs[*child]) {
                    return Ok(Use::Same {
                        access: child.access.clone(),
                        refresh: child.refresh.clone(),
                        chain,
                        expires_at: child.expires_at,
                    });
                }
            }
            GracePolicy::NewestOnly => children.into_iter().for_each(|child| self.end(child)),
            _ => {}
        }
        let is_dead = rotation.policy == GracePolicy::FirstOnly && !is_first;
        Ok(Use::Issue {
            parent: number,
            chain,
            is_dead,
        })
    }

    /// Revokes all valid access tokens of a chain except the two newest.
    pub(super) fn keep_two(&mut self, chain: ChainId, now: SystemTime) {
        let is_live = |pair: &&mut Pair| {
            pair.chain == chain && pair.access_dead.is_none() && now < pair.expires_at
        };
        for pair in self.pairs.iter_mut().filter(is_live).rev().skip(LIVE) {
            pair.access_dead = Some("token_revoked");
        }
    }

    /// Revokes every pair of a chain.
    pub(super) fn end_chain(&mut self, chain: ChainId, error: &'static str) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.chain == chain) {
            pair.access_dead.get_or_insert(error);
            pair.refresh_dead = true;
        }
    }

    /// Revokes one refresh token. Returns whether it was valid.
    pub(super) fn revoke_refresh(&mut self, refresh: &str) -> bool {
        let Some(number) = self.by_refresh.get(refresh) else {
            return false;
        };
        !std::mem::replace(&mut self.pairs[*number].refresh_dead, true)
    }

    pub(super) fn revoke_access(&mut self, access: &str) -> bool {
        let Some(number) = self.by_access.get(access) else {
            return false;
        };
        let dead = &mut self.pairs[*number].access_dead;
        dead.replace("token_revoked").is_none()
    }

    /// Returns Slack's error code for this access token. Returns `None` if the token is valid, or
    /// does not belong to a pair.
    pub(super) fn error(&self, access: &str, now: SystemTime) -> Option<&'static str> {
        let pair = &self.pairs[*self.by_access.get(access)?];
        let expired = (now >= pair.expires_at).then_some("token_expired");
        pair.access_dead.or(expired)
    }

    pub(super) fn has_access(&self, access: &str) -> bool {
        self.by_access.contains_key(access)
    }

    pub(super) fn access_of(&self, refresh: &str) -> Option<&str> {
        let number = self.by_refresh.get(refresh)?;
        Some(&self.pairs[*number].access)
    }

    pub(super) fn is_refreshable(&self, refresh: &str, grace: Duration, now: SystemTime) -> bool {
        let number = self.by_refresh.get(refresh);
        number.is_some_and(|number| self.pairs[*number].is_refreshable(grace, now))
    }

    /// Returns the number of valid access tokens in a chain.
    pub(super) fn live(&self, chain: ChainId, now: SystemTime) -> usize {
        let is_live = |pair: &&Pair| {
            pair.chain == chain && pair.access_dead.is_none() && now < pair.expires_at
        };
        self.pairs.iter().filter(is_live).count()
    }

    pub(super) fn uses(&self, refresh: &str) -> usize {
        let number = self.by_refresh.get(refresh);
        number.map_or(0, |number| self.pairs[*number].uses)
    }

    pub(super) fn counts(&self) -> RefreshCounts {
        self.counts
    }

    /// Revokes a pair, and all pairs that were issued for its refresh token.
    fn end(&mut self, number: usize) {
        let pair = &mut self.pairs[number];
        pair.access_dead.get_or_insert("token_revoked");
        pair.refresh_dead = true;
        for child in number + 1..self.pairs.len() {
            if self.pairs[child].parent == Some(number) {
                self.end(child);
            }
        }
    }
}

impl Pair {
    fn is_refreshable(&self, grace: Duration, now: SystemTime) -> bool {
        let in_grace = |used_at: SystemTime| now < used_at + grace;
        !self.refresh_dead && self.used_at.is_none_or(in_grace)
    }
}

/// The largest number of valid access tokens in a chain, from Slack's documentation.
const LIVE: usize = 2;

//! Records who bought which pair with which refresh token, and what happened to it. It records at
//! the wire, so it does not depend on what the engine believes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use slack_installs::testing::GracePolicy;
use tokio::time::Instant;

use crate::story::Story;

/// What a call requested from Slack.
pub(crate) enum Asked {
    /// A refresh token was sent; the number of the call.
    Refresh(usize),
    /// Any other call.
    Else,
}

impl Asked {
    pub(crate) fn is_refresh(&self) -> bool {
        matches!(self, Self::Refresh(_))
    }
}

pub(crate) struct Ledger(Mutex<Inner>, Arc<Story>);

#[derive(Default)]
struct Inner {
    pairs: Vec<Pair>,
    by_access: HashMap<String, usize>,
    by_refresh: HashMap<String, usize>,
    calls: Vec<Call>,
    revoked: HashSet<String>,
    roots: usize,
    /// The lives of the nodes that died.
    dead: HashSet<usize>,
}

struct Pair {
    access: String,
    parent: Option<usize>,
    /// The installation from which the pair descends.
    root: usize,
    /// When Slack issued it for a refresh token; `None` for the first pair of an installation.
    bought_at: Option<Instant>,
    is_stored: bool,
}

/// A call with a refresh token.
struct Call {
    /// The pair of that refresh token.
    of: Option<usize>,
    life: usize,
    at: Instant,
    /// When Slack carried it out.
    done_at: Option<Instant>,
    bought: Option<usize>,
    is_heard: bool,
    is_missed: bool,
}

impl Ledger {
    pub(crate) fn new(story: Arc<Story>) -> Self {
        Self(Mutex::default(), story)
    }

    /// Records the pair of a new installation. Returns the installation.
    pub(crate) fn install(&self, access: &str, refresh: &str) -> usize {
        let mut inner = self.inner();
        inner.roots += 1;
        let root = inner.roots;
        inner.add(access, refresh, None, root);
        root
    }

    pub(crate) fn die(&self, life: usize) {
        self.inner().dead.insert(life);
    }

    pub(crate) fn ask(&self, request: &http::Request<Bytes>, life: usize) -> Asked {
        let mut inner = self.inner();
        if request.uri().path() == "/api/auth.revoke" {
            let header = request.headers().get("authorization");
            let token = header.and_then(|value| value.to_str().ok());
            let token = token.and_then(|value| value.strip_prefix("Bearer "));
            inner.revoked.extend(token.map(str::to_owned));
        }
        let form = url::form_urlencoded::parse(request.body());
        let mut refresh = form.filter(|(name, _)| name == "refresh_token");
        let Some((_, refresh)) = refresh.next() else {
            return Asked::Else;
        };
        let of = inner.by_refresh.get(&*refresh).copied();
        inner.calls.push(Call {
            of,
            life,
            at: Instant::now(),
            done_at: None,
            bought: None,
            is_heard: false,
            is_missed: false,
        });
        let number = inner.calls.len() - 1;
        self.1
            .note(|| format!("call {number} by life {life}: spends pair {of:?}"));
        Asked::Refresh(number)
    }

    /// Records Slack's response, whether or not it arrives.
    pub(crate) fn answer(&self, asked: &Asked, body: &[u8]) {
        let Asked::Refresh(number) = asked else {
            return;
        };
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return;
        };
        let mut inner = self.inner();
        inner.calls[*number].done_at = Some(Instant::now());
        // A user's pair can be inside `authed_user`.
        let pair = body.get("authed_user").unwrap_or(&body);
        let (Some(access), Some(refresh)) = (
            pair["access_token"].as_str(),
            pair["refresh_token"].as_str(),
        ) else {
            return;
        };
        let of = inner.calls[*number]
            .of
            .expect("the ledger has every refresh token that Slack issued");
        let root = inner.pairs[of].root;
        let bought = inner.add(access, refresh, Some(of), root);
        inner.calls[*number].bought = Some(bought);
        self.1
            .note(|| format!("call {number} buys pair {bought} of installation {root}"));
    }

    /// Records that the engine got the response.
    pub(crate) fn hear(&self, asked: &Asked) {
        if let Asked::Refresh(number) = asked {
            self.inner().calls[*number].is_heard = true;
            self.1.note(|| format!("call {number} got its response"));
        }
    }

    /// Records that the engine got an error instead of a response.
    pub(crate) fn miss(&self, asked: &Asked) {
        if let Asked::Refresh(number) = asked {
            self.inner().calls[*number].is_missed = true;
            self.1.note(|| format!("call {number} got no response"));
        }
    }

    /// Records that a pair is in the database. Returns the installation from which its refresh
    /// token descends, and whether the access token belongs to the same pair.
    pub(crate) fn store(&self, refresh: &str, access: Option<&str>) -> Option<(usize, bool)> {
        let mut inner = self.inner();
        let number = *inner.by_refresh.get(refresh)?;
        let pair = &mut inner.pairs[number];
        pair.is_stored = true;
        let is_same = access.is_none_or(|access| pair.access == access);
        Some((pair.root, is_same))
    }

    /// Reports whether one of these refresh tokens bought that one.
    pub(crate) fn is_bought_by(&self, refresh: &str, by: &[String]) -> bool {
        let inner = self.inner();
        let pair = inner.by_refresh.get(refresh).map(|at| &inner.pairs[*at]);
        let parent = pair.and_then(|pair| pair.parent);
        by.iter()
            .any(|by| parent.is_some() && inner.by_refresh.get(by).copied() == parent)
    }

    pub(crate) fn is_stored(&self, access: &str) -> bool {
        let inner = self.inner();
        let pair = inner.by_access.get(access).map(|at| &inner.pairs[*at]);
        pair.is_some_and(|pair| pair.is_stored)
    }

    /// Returns the installation from which this access token descends.
    pub(crate) fn root(&self, access: &str) -> Option<usize> {
        let inner = self.inner();
        let pair = inner.by_access.get(access).map(|at| &inner.pairs[*at]);
        pair.map(|pair| pair.root)
    }

    /// Reports whether no process could know that Slack revoked this access token. That holds if a
    /// refresh token of its line bought another pair, either recently or for a node that never got
    /// the response.
    pub(crate) fn may_be_ended(&self, access: &str, recently: Duration) -> bool {
        let inner = self.inner();
        let Some(&number) = inner.by_access.get(access) else {
            return false;
        };
        let line: Vec<_> = inner.line(number).collect();
        inner
            .calls
            .iter()
            .filter(|call| call.of.is_some_and(|of| line.contains(&of)))
            .filter(|call| call.bought.is_some_and(|bought| !line.contains(&bought)))
            .any(|call| {
                let is_recent = call.done_at.is_some_and(|at| at.elapsed() < recently);
                is_recent || inner.is_cut(call)
            })
    }

    /// Reports whether the responses were lost that would have kept a chain with these refresh
    /// tokens alive.
    pub(crate) fn is_excused(
        &self,
        refresh: &[String],
        policy: GracePolicy,
        grace: Duration,
    ) -> bool {
        let inner = self.inner();
        let of = |number: usize| {
            let calls = inner.calls.iter();
            calls.filter(move |call| call.of == Some(number) && call.bought.is_some())
        };
        refresh.iter().any(|refresh| {
            let Some(&number) = inner.by_refresh.get(refresh) else {
                return false;
            };
            let cut = of(number).filter(|call| inner.is_cut(call));
            let first = cut.min_by_key(|call| call.done_at);
            let is_own = first.is_some_and(|first| {
                let until = first.done_at.map(|at| at + grace);
                let in_time = |call: &Call| !inner.is_cut(call) && call.done_at < until;
                policy == GracePolicy::FirstOnly || !of(number).any(in_time)
            });
            let mut elders = inner.line(number).skip(1);
            is_own || elders.any(|elder| of(elder).any(|call| inner.is_cut(call)))
        })
    }

    /// Counts the pairs that reached a node which did not die, and that were neither stored nor
    /// revoked.
    pub(crate) fn dropped(&self) -> usize {
        let inner = self.inner();
        let heard = |call: &&Call| !inner.is_cut(call);
        let is_dropped =
            |pair: &Pair, refresh: &str| !pair.is_stored && !inner.revoked.contains(refresh);
        let refresh_of: HashMap<usize, &str> = inner
            .by_refresh
            .iter()
            .map(|(refresh, at)| (*at, refresh.as_str()))
            .collect();
        inner
            .calls
            .iter()
            .filter(heard)
            .filter_map(|call| call.bought)
            .filter(|at| is_dropped(&inner.pairs[*at], refresh_of[at]))
            .count()
    }

    /// Counts the calls whose response a living node missed and that it did not repeat within that
    /// time. A second miss in a row is not repeated at once.
    pub(crate) fn not_asked_again(&self, within: Duration) -> usize {
        let inner = self.inner();
        let mut repeats = HashSet::new();
        let mut missing = 0;
        for (number, call) in inner.calls.iter().enumerate() {
            if !call.is_missed || inner.dead.contains(&call.life) || repeats.contains(&number) {
                continue;
            }
            let again = inner.calls[number + 1..].iter().position(|later| {
                later.life == call.life && later.of == call.of && later.at - call.at < within
            });
            match again {
                Some(later) => drop(repeats.insert(number + 1 + later)),
                None => missing += 1,
            }
        }
        missing
    }

    /// Returns the number of calls to Slack with refresh tokens.
    pub(crate) fn calls(&self) -> usize {
        self.inner().calls.len()
    }

    /// Reports whether Slack issued this pair for a refresh token after that time.
    pub(crate) fn is_bought_after(&self, access: &str, time: Instant) -> bool {
        let inner = self.inner();
        let pair = inner.by_access.get(access).map(|at| &inner.pairs[*at]);
        let bought_at = pair.and_then(|pair| pair.bought_at);
        bought_at.is_some_and(|at| at > time)
    }

    /// Returns a pair's number for the story.
    pub(crate) fn name(&self, access: &str) -> Option<usize> {
        self.inner().by_access.get(access).copied()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("the lock is not poisoned")
    }
}

impl Inner {
    /// Returns a pair and the chain of pairs that bought it.
    fn line(&self, number: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(number), |number| self.pairs[*number].parent)
    }

    /// Reports whether no living node has the response.
    fn is_cut(&self, call: &Call) -> bool {
        !call.is_heard || self.dead.contains(&call.life)
    }

    fn add(&mut self, access: &str, refresh: &str, parent: Option<usize>, root: usize) -> usize {
        // Slack may return the same pair again.
        if let Some(&number) = self.by_refresh.get(refresh) {
            return number;
        }
        let number = self.pairs.len();
        self.by_access.insert(access.to_owned(), number);
        self.by_refresh.insert(refresh.to_owned(), number);
        self.pairs.push(Pair {
            access: access.to_owned(),
            parent,
            root,
            bought_at: parent.map(|_| Instant::now()),
            is_stored: false,
        });
        number
    }
}

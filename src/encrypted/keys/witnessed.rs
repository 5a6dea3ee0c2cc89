//! Reports to the witness what the key provider did.
//!
//! A key releases no credential by itself, so nobody waits for the witness here. The log seals its
//! own rows with these keys: waiting could never end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::seal::KeyId;
use crate::store::{Act, ActKind, AuditContext, Witness};

/// The witness of a store's data keys, and what happened before there was one.
#[derive(Default)]
pub(super) struct KeyWitness(Mutex<State>);

#[derive(Default)]
struct State {
    witness: Option<Arc<dyn Witness>>,
    early: Vec<(AuditContext, Act)>,
}

impl KeyWitness {
    /// Reports to this witness from now on, and what happened before.
    pub(super) fn set(&self, witness: &Arc<dyn Witness>) {
        let early = {
            let mut state = self.state();
            state.witness = Some(Arc::clone(witness));
            std::mem::take(&mut state.early)
        };
        for (context, act) in early {
            spawn(Arc::clone(witness), context, act);
        }
    }

    pub(super) fn report(&self, kind: ActKind, id: KeyId, is_done: bool) {
        let act = Act {
            is_done,
            ..Act::new(kind, None, id.to_string())
        };
        let context = AuditContext::current();
        let mut state = self.state();
        match &state.witness {
            Some(witness) => spawn(Arc::clone(witness), context, act),
            // A store without a witness unwraps keys for as long as it lives.
            None if state.early.len() < MOST_EARLY => state.early.push((context, act)),
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(witness: Arc<dyn Witness>, context: AuditContext, act: Act) {
    // The witness logs its own failure.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(async move { witness.report(context, vec![act]).await }));
    }
}

/// What is kept until a store gets its witness: usually one key, which is made and unwrapped.
const MOST_EARLY: usize = 64;

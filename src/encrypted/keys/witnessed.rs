//! Reports to the witness what the key provider did, and how the keyring was changed.
//!
//! A caller waits for the record of a change of the keyring. No caller waits for the record of a call
//! to the key provider: such a call releases no credential by itself, and the log seals its own rows
//! with these keys, so waiting could never end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use crate::seal::KeyId;
use crate::store::{Act, ActKind, AuditContext, Error, Witness};

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

    /// Reports a call to the key provider.
    pub(super) fn report(&self, kind: ActKind, id: KeyId, is_done: bool) {
        let act = Act {
            is_done,
            ..Act::new(kind, None, id.to_string())
        };
        let context = AuditContext::current();
        if let Some((witness, act)) = self.with_witness(&context, act) {
            spawn(witness, context, act);
        }
    }

    /// Reports a change of the keyring that was done, and waits for the witness.
    pub(super) async fn report_change(&self, kind: ActKind, id: KeyId) -> Result<(), Error> {
        let act = Act::new(kind, None, id.to_string());
        let context = AuditContext::current();
        match self.with_witness(&context, act) {
            Some((witness, act)) => witness.report(context, vec![act]).await,
            None => Ok(()),
        }
    }

    /// Returns the act with its witness. Without one, keeps it.
    fn with_witness(&self, context: &AuditContext, act: Act) -> Option<(Arc<dyn Witness>, Act)> {
        let mut state = self.state();
        if let Some(witness) = &state.witness {
            return Some((Arc::clone(witness), act));
        }
        // A store without a witness unwraps keys for as long as it lives.
        if state.early.len() < MOST_EARLY {
            state.early.push((context.clone(), act));
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(witness: Arc<dyn Witness>, context: AuditContext, act: Act) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    // The witness logs its own failure.
    let mut report = Box::pin(async move { drop(witness.report(context, vec![act]).await) });
    // It begins before this returns, so that a log that is closed next still has the act.
    let is_pending = report
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending();
    if is_pending {
        drop(runtime.spawn(report));
    }
}

/// What is kept until a store gets its witness: usually one key, which is made and unwrapped.
const MOST_EARLY: usize = 64;

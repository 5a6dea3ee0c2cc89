//! Panics of the host's own code, which must not take ours down.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What the future brings; `None` if it panics.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // It is not polled again after a panic.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::panic::resume_unwind;

    use super::*;

    #[tokio::test]
    async fn what_a_future_brings_is_passed_on_and_its_panic_is_not() {
        assert_eq!(caught(ready(7)).await, Some(7));
        let later = async {
            tokio::task::yield_now().await;
            8
        };
        assert_eq!(caught(later).await, Some(8));
        // On purpose, and without a word.
        let at_once = async { resume_unwind(Box::new("panics")) };
        assert_eq!(caught::<()>(at_once).await, None);
        let later = async {
            tokio::task::yield_now().await;
            resume_unwind(Box::new("panics"))
        };
        assert_eq!(caught::<()>(later).await, None);
        let mut never = pin!(caught(pending::<()>()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(never.as_mut().poll(&mut context).is_pending());
    }
}

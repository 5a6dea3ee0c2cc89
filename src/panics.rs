//! Catches panics of your app's code, so that they do not end this crate's tasks.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Returns the future's output, or `None` if it panics.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // The future is not polled again after a panic.
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
    async fn the_output_of_a_future_is_returned_and_its_panic_is_caught() {
        assert_eq!(catch_panic(ready(7)).await, Some(7));
        let later = async {
            tokio::task::yield_now().await;
            8
        };
        assert_eq!(catch_panic(later).await, Some(8));
        // `resume_unwind` does not call the panic hook, so the test prints nothing.
        let at_once = async { resume_unwind(Box::new("panics")) };
        assert_eq!(catch_panic::<()>(at_once).await, None);
        let later = async {
            tokio::task::yield_now().await;
            resume_unwind(Box::new("panics"))
        };
        assert_eq!(catch_panic::<()>(later).await, None);
        let mut never = pin!(catch_panic(pending::<()>()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(never.as_mut().poll(&mut context).is_pending());
    }
}

//! Catches panics of your app's code, so that they do not end this crate's tasks.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

/// Returns the future's output, or `None` if it panics.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Option<T> {
    // The future is not polled again after a panic.
    AssertUnwindSafe(future).catch_unwind().await.ok()
}

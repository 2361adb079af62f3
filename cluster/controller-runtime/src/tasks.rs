//! Tasks that outlive their own bugs.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

/// Runs a future; a panic in it becomes an error with the panic's message.
///
/// # Errors
/// The message the future panicked with.
pub async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| panic_message(panic.as_ref()))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Spawns a task that runs until `stop` is cancelled; should it panic, that is logged and it is started again.
pub fn supervise<F>(name: &'static str, stop: CancellationToken, mut work: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            match stop.run_until_cancelled(catch_panic(work())).await {
                Some(Err(panic)) => {
                    tracing::error!(task = name, panic, "a task panicked; it is started again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some(Ok(())) | None => return,
            }
        }
    });
}

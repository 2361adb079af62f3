//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probe::{self, Target, exec_in};

/// A hook's command may take as long as it likes; whoever waits for it has a deadline.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed, in words.
pub(crate) async fn run(hook: &LifecycleHandler, container: &Container, target: &Target) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        return exec_in(&target.exec, action.command.as_deref().unwrap_or_default(), NO_LIMIT).await;
    }
    if let Some(action) = &hook.http_get {
        return probe::get(&target.node, &target.pod_ip, container, action).await;
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
    }
    Ok(())
}

//! The server's side of Kubernetes' streaming protocols: exec, attach and port-forward.
//!
//! A client asks for them with an HTTP upgrade, in one of several ways that came up over the years:
//!
//! | client | exec, attach | port-forward |
//! |---|---|---|
//! | kubectl up to 1.29 | SPDY/3.1 | SPDY/3.1 |
//! | kubectl 1.30 | WebSocket `v5.channel.k8s.io` | SPDY/3.1 |
//! | kubectl from 1.31 | WebSocket `v5.channel.k8s.io` | SPDY/3.1 within WebSocket |
//! | kube-rs, browsers | WebSocket `v5` or `v4.channel.k8s.io` | WebSocket, two channels for each port |
//!
//! All of them come out the same here: [`RemoteCommand`] and [`PortForward`]. An HTTP handler negotiates, answers, and starts:
//!
//! ```no_run
//! # use meshlab_streams::{Outcome, ProcessStreams, RemoteCommandUpgrade, WantedStreams};
//! # async fn example(request: http::Request<()>, upgraded: tokio::io::DuplexStream, process: ProcessStreams)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let upgrade = RemoteCommandUpgrade::negotiate(&request)?;
//! let response: http::Response<()> = upgrade.response(); // 101, to be sent; then the connection is ours
//! let wanted = WantedStreams { stdin: true, stdout: true, stderr: true, tty: false };
//! let command = upgrade.start(upgraded, wanted).await?;
//! command.run(process, async { Outcome::Exited(0) }).await?;
//! # Ok(()) }
//! ```

mod mux;
mod negotiate;
mod outcome;
mod port_forward;
mod remote_command;
pub mod spdy;
#[cfg(test)]
mod tests;
mod websocket;

pub use negotiate::{PortForwardUpgrade, RemoteCommandUpgrade, UpgradeError};
pub use outcome::Outcome;
pub use port_forward::{Forward, PortForward};
pub use remote_command::{ProcessStreams, RemoteCommand, TerminalSize, WantedStreams};

/// Why an upgraded connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The client did not open the streams its request speaks of.
    #[error("timed out waiting for the client to create its streams: missing {missing}")]
    StreamsMissing {
        /// Which.
        missing: String,
    },
    /// The client went away.
    #[error("the client closed the connection")]
    Disconnected,
}

/// A reading end that a process or a pod's port provides.
pub type BoxReader = Box<dyn tokio::io::AsyncRead + Send + Unpin>;
/// A writing end that a process or a pod's port provides.
pub type BoxWriter = Box<dyn tokio::io::AsyncWrite + Send + Unpin>;

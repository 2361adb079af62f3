//! TCP echo: every line comes back with a prefix in front, as Istio's `tcp-echo-server` does it.

use std::sync::Arc;

use async_trait::async_trait;
use meshlab_net::Listener;
use meshlab_program::{ExitCode, Process, Program};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::server::{MAX_CONNECTIONS, listen};
use crate::output::{Failure, Outcome, finish, print};

/// The longest piece that is echoed at a time where no line feed comes.
const MAX_LINE: u64 = 64 << 10;

/// Echoes on a port until `stop`.
pub(super) async fn serve<L: Listener>(mut listener: L, prefix: String, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted else { return };
        let (prefix, stop) = (prefix.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                result = echo(stream, &prefix) => if let Err(err) = result { tracing::debug!(%err, "echo ended") },
            }
        });
    }
}

async fn echo(stream: impl AsyncRead + AsyncWrite, prefix: &str) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::new(read);
    loop {
        let mut line = format!("{prefix} ").into_bytes();
        if (&mut read).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
            return write.shutdown().await;
        }
        write.write_all(&line).await?;
    }
}

/// The program of `istio/tcp-echo-server`.
pub(super) struct TcpEcho;

#[async_trait]
impl Program for TcpEcho {
    async fn run(&self, mut process: Process) -> ExitCode {
        let outcome = run(&mut process).await;
        finish(&mut process, outcome).await
    }
}

async fn run(process: &mut Process) -> Outcome {
    let usage = || Failure::with_code(2, "usage: tcp-echo PORT[,PORT…] PREFIX");
    let [ports, prefix] = process.argv.get(1..3).ok_or_else(usage)? else { return Err(usage()) };
    let (ports, prefix) = (ports.clone(), prefix.clone());
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let mut servers = JoinSet::new();
    for port in ports.split(',') {
        let number = port.trim().parse().map_err(|_| usage())?;
        let listener = listen(&process.container.net, number).await;
        let listener = listener.map_err(|err| Failure::new(format!("cannot listen on port {port}: {err}")))?;
        servers.spawn(serve(listener, prefix.clone(), stop.clone()));
        print(process, format!("listening on [::]:{number}, prefix: {prefix}\n")).await?;
    }
    process.stdio.stdout.flush().await?;
    process.signals.requested().await;
    Ok(0)
}

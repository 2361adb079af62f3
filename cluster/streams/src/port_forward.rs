//! Port-forward.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mux::{Outgoing, QUEUE, Session, pipe};
use crate::negotiate::ForwardProtocol;
use crate::spdy::SpdyStream;
use crate::websocket::{self, Encoding, tunnel};
use crate::{BoxReader, BoxWriter, spdy};

/// How long the second stream of a connection may be late.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of which only one stream is there yet.
const MAX_HALF_OPEN: usize = 256;

/// A client that forwards ports of a pod.
pub struct PortForward {
    forwards: mpsc::Receiver<Forward>,
    gone: CancellationToken,
    _cut: DropGuard,
}

/// One connection that the client wants to make to a port of the pod.
pub struct Forward {
    /// The pod's port.
    pub port: u16,
    /// What the client sends.
    pub reader: DuplexStream,
    /// What the client gets.
    pub writer: DuplexStream,
    /// What went wrong, as text. kubectl gives up its whole session on anything written here.
    pub error: DuplexStream,
}

impl PortForward {
    /// Waits for the next connection; `None` once the client has gone away. Dropping `self` cuts all connections.
    pub async fn accept(&mut self) -> Option<Forward> {
        tokio::select! {
            biased;
            forward = self.forwards.recv() => forward,
            () = self.gone.cancelled() => None,
        }
    }

    /// Serves all connections until the client goes away: `connect` opens one to a port of the pod, or says why it cannot.
    pub async fn run<F, C>(mut self, connect: F)
    where
        F: Fn(u16) -> C,
        C: Future<Output = Result<(BoxReader, BoxWriter), String>> + Send + 'static,
    {
        let mut running = JoinSet::new();
        while let Some(forward) = self.accept().await {
            let connecting = connect(forward.port);
            running.spawn(async move { forward.run(connecting).await });
            while running.try_join_next().is_some() {}
        }
    }
}

impl Forward {
    /// Joins the client to the connection that `connect` opens.
    pub async fn run(mut self, connect: impl Future<Output = Result<(BoxReader, BoxWriter), String>>) {
        let (mut from_pod, mut to_pod) = match connect.await {
            Ok(ends) => ends,
            Err(error) => {
                // The client may be gone already.
                let _ = self.error.write_all(error.as_bytes()).await;
                return;
            }
        };
        let Self { mut reader, mut writer, error: _error, .. } = self;
        let upload = async {
            let _ = tokio::io::copy(&mut reader, &mut to_pod).await;
            let _ = to_pod.shutdown().await;
            // The pod may still have an answer to give.
            std::future::pending::<()>().await;
        };
        let download = async {
            let _ = tokio::io::copy(&mut from_pod, &mut writer).await;
            let _ = writer.shutdown().await;
        };
        tokio::select! {
            () = download => {}
            () = upload => {}
        }
    }
}

pub(crate) async fn start<IO>(io: IO, protocol: ForwardProtocol) -> PortForward
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match protocol {
        ForwardProtocol::WebSocket { encoding, ports } => start_websocket(io, encoding, &ports).await,
        ForwardProtocol::Spdy { tunnelled: true } => start_spdy(tunnel::open(io).await),
        ForwardProtocol::Spdy { tunnelled: false } => start_spdy(io),
    }
}

/// Every port has a channel for data and one for errors, both of which begin with the port's number.
async fn start_websocket<IO>(io: IO, encoding: Encoding, ports: &[u16]) -> PortForward
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut inbound = HashMap::new();
    let mut readers = Vec::new();
    // Ports are few enough for their channels to fit a byte; negotiation sees to it.
    let channels = (0_u8..).step_by(2).zip(ports);
    for (channel, _) in channels.clone() {
        let (writer, reader) = pipe();
        inbound.insert(channel, writer);
        readers.push(reader);
    }
    let session = websocket::serve(io, encoding, false, inbound).await;
    let (sender, forwards) = mpsc::channel(ports.len());
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    for ((channel, port), reader) in channels.zip(readers) {
        for channel in [channel, channel + 1] {
            let preamble = bytes::Bytes::copy_from_slice(&port.to_le_bytes());
            let _ = session.outgoing.send(Outgoing::Data(u32::from(channel), preamble)).await;
        }
        let (writer, data_pump) = session.writer(u32::from(channel));
        let (error, error_pump) = session.writer(u32::from(channel + 1));
        pumps.extend([data_pump, error_pump]);
        let _ = sender.send(Forward { port: *port, reader, writer, error }).await;
    }
    let (gone, cut) = (session.gone.clone(), session.stop.clone().drop_guard());
    // A channel cannot be closed by itself: when the pod has closed all of them, the WebSocket is.
    tokio::spawn(async move {
        for pump in pumps {
            let _ = pump.await;
        }
        session.close().await;
        drop(sender);
    });
    PortForward { forwards, gone, _cut: cut }
}

fn start_spdy<IO>(io: IO) -> PortForward
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (session, streams) = spdy::serve(io);
    let (sender, forwards) = mpsc::channel(QUEUE);
    let (gone, cut) = (session.gone.clone(), session.stop.clone().drop_guard());
    tokio::spawn(pair_streams(session, streams, sender));
    PortForward { forwards, gone, _cut: cut }
}

/// The streams of one connection, until both are there.
struct HalfOpen {
    since: Instant,
    port: u16,
    data: Option<SpdyStream>,
    error: Option<SpdyStream>,
}

/// Puts the data and the error stream of each connection together.
async fn pair_streams(session: Session, mut streams: mpsc::Receiver<SpdyStream>, forwards: mpsc::Sender<Forward>) {
    let mut half_open: HashMap<String, HalfOpen> = HashMap::new();
    while let Some(stream) = streams.recv().await {
        half_open.retain(|_, pair| pair.since.elapsed() < PAIR_TIMEOUT);
        let Some((id, port, is_data)) = describe(&stream) else {
            spdy::refuse(&session.outgoing, &stream).await;
            continue;
        };
        if half_open.len() >= MAX_HALF_OPEN && !half_open.contains_key(&id) {
            spdy::refuse(&session.outgoing, &stream).await;
            continue;
        }
        let pair = half_open.entry(id.clone());
        let pair = pair.or_insert_with(|| HalfOpen { since: Instant::now(), port, data: None, error: None });
        let place = if is_data { &mut pair.data } else { &mut pair.error };
        if place.is_some() || pair.port != port {
            spdy::refuse(&session.outgoing, &stream).await;
            continue;
        }
        *place = Some(stream);
        if pair.data.is_none() || pair.error.is_none() {
            continue;
        }
        if let Some(HalfOpen { port, data: Some(data), error: Some(error), .. }) = half_open.remove(&id) {
            let forward = Forward { port, reader: data.reader, writer: data.writer, error: error.writer };
            if forwards.send(forward).await.is_err() {
                return;
            }
        }
    }
}

/// Which connection a stream belongs to, to which port it goes, and whether it carries the data.
fn describe(stream: &SpdyStream) -> Option<(String, u16, bool)> {
    let port = stream.headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
    let is_data = match stream.headers.get("streamtype")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    // Clients of old sent no id; theirs open the error stream and then, two numbers later, the data stream.
    let id = match stream.headers.get("requestid") {
        Some(id) => id.to_owned(),
        None => format!("stream {}", if is_data { stream.id.saturating_sub(2) } else { stream.id }),
    };
    Some((id, port, is_data))
}

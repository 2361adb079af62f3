//! A SPDY connection whose streams the client opens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SpdyError;
use super::frame::{DataFrame, Frame, RstStatus};
use super::headers::{Compressor, Decompressor, Headers};
use crate::mux::{Outgoing, QUEUE, Session, Window, Windows, pipe, pump};

/// Streams that may be open at a time. A port-forwarded connection needs two.
const MAX_STREAMS: usize = 1024;
/// Bytes a stream, and the connection, may have in flight at first, by the specification.
const INITIAL_WINDOW: u32 = 64 * 1024;
const SETTINGS_INITIAL_WINDOW_SIZE: u32 = 7;

/// A stream that the client opened and the server accepted.
pub(crate) struct SpdyStream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    /// What the client sends.
    pub(crate) reader: DuplexStream,
    /// What the client gets. Dropping it ends this half.
    pub(crate) writer: DuplexStream,
    /// Ends when everything written, and the end, was handed to the connection.
    pub(crate) pump: JoinHandle<()>,
}

/// Serves SPDY on `io`. Streams come out of the receiver, in the order they were opened.
pub(crate) fn serve<IO>(io: IO) -> (Session, mpsc::Receiver<SpdyStream>)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (outgoing, queue) = mpsc::channel(QUEUE);
    let (opened, streams) = mpsc::channel(QUEUE);
    let session = Session::new(outgoing.clone());
    let (stop, gone) = (session.stop.clone(), session.gone.clone());
    let enforced = Arc::new(AtomicBool::new(false));
    let reader = Reader {
        read,
        outgoing,
        opened,
        stop: stop.clone(),
        streams: HashMap::new(),
        places: Arc::new(Semaphore::new(MAX_STREAMS)),
        last_stream: 0,
        initial_window: INITIAL_WINDOW,
        connection_window: Arc::new(Window::new(INITIAL_WINDOW, enforced.clone())),
        enforced,
        unacknowledged: 0,
    };
    let stop_reading = stop.clone();
    tokio::spawn(async move {
        let _gone = gone.drop_guard();
        tokio::select! {
            () = stop_reading.cancelled() => {}
            result = reader.run() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "SPDY connection ended");
                }
            }
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            result = write_frames(write, queue) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "SPDY connection cannot be written");
                }
            }
        }
    });
    (session, streams)
}

async fn write_frames<IO: AsyncWrite>(mut write: WriteHalf<IO>, mut queue: mpsc::Receiver<Outgoing>) -> std::io::Result<()> {
    while let Some(outgoing) = queue.recv().await {
        let bytes = match outgoing {
            Outgoing::Data(stream, data) => Frame::Data(DataFrame { stream, fin: false, data }).encode(),
            Outgoing::End(stream) => Frame::Data(DataFrame { stream, fin: true, data: bytes::Bytes::new() }).encode(),
            Outgoing::Encoded(bytes) => bytes,
            Outgoing::Close => {
                write.write_all(&Frame::GoAway { last_stream: 0 }.encode()).await?;
                return write.shutdown().await;
            }
        };
        write.write_all(&bytes).await?;
        if queue.is_empty() {
            write.flush().await?;
        }
    }
    Ok(())
}

struct Reader<IO> {
    read: ReadHalf<IO>,
    outgoing: mpsc::Sender<Outgoing>,
    opened: mpsc::Sender<SpdyStream>,
    stop: CancellationToken,
    streams: HashMap<u32, Open>,
    places: Arc<Semaphore>,
    last_stream: u32,
    initial_window: u32,
    connection_window: Arc<Window>,
    /// The client has spoken of windows, so it gets no more than it allows.
    enforced: Arc<AtomicBool>,
    /// Bytes received on the connection since the last window update for all of it.
    unacknowledged: u32,
}

struct Open {
    /// Gone once the client has ended its half.
    inbound: Option<DuplexStream>,
    window: Arc<Window>,
    stop: CancellationToken,
    unacknowledged: u32,
    /// Lives as long as the stream is open in either direction.
    place: Arc<OwnedSemaphorePermit>,
}

impl<IO: AsyncRead> Reader<IO> {
    async fn run(mut self) -> Result<(), SpdyError> {
        let (mut compressor, mut decompressor) = (Compressor::new()?, Decompressor::new());
        let mut input = BytesMut::with_capacity(16 * 1024);
        loop {
            while let Some(frame) = Frame::parse(&mut input)? {
                if let Some((stream, headers, fin)) = self.handle(frame, &mut decompressor).await? {
                    self.open(stream, headers, fin, &mut compressor).await?;
                }
                if self.outgoing.is_closed() {
                    return Ok(());
                }
            }
            if self.read.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Handles a frame; one that opens a stream is handed back as its number, headers and whether the client sends nothing on it.
    async fn handle(&mut self, frame: Frame, decompressor: &mut Decompressor) -> Result<Option<(u32, Headers, bool)>, SpdyError> {
        match frame {
            Frame::SynStream { stream, fin, unidirectional, headers } => {
                // The block must be decompressed even if the stream is refused, or all later ones would be unreadable.
                let headers = decompressor.decode(&headers)?;
                if stream.is_multiple_of(2) || stream <= self.last_stream || unidirectional {
                    self.reset(stream, RstStatus::ProtocolError).await;
                    return Ok(None);
                }
                self.last_stream = stream;
                return Ok(Some((stream, headers, fin)));
            }
            Frame::Headers { stream, fin, headers } | Frame::SynReply { stream, fin, headers } => {
                decompressor.decode(&headers)?;
                if fin {
                    self.end(stream);
                }
            }
            Frame::Data(frame) => self.data(frame).await,
            Frame::RstStream { stream, .. } => {
                if let Some(open) = self.streams.remove(&stream) {
                    open.stop.cancel();
                }
            }
            Frame::Settings { entries } => {
                if let Some((_, size)) = entries.iter().find(|(number, _)| *number == SETTINGS_INITIAL_WINDOW_SIZE) {
                    self.initial_window = *size & 0x7fff_ffff;
                    self.enforced.store(true, Ordering::Release);
                }
            }
            // Even numbers answer pings of ours, of which there are none.
            Frame::Ping { id } if !id.is_multiple_of(2) => self.send(&Frame::Ping { id }).await,
            Frame::WindowUpdate { stream: 0, delta } => self.connection_window.grow(delta),
            Frame::WindowUpdate { stream, delta } => {
                if let Some(open) = self.streams.get(&stream) {
                    open.window.grow(delta);
                }
            }
            // A client that goes away still waits for the ends of its streams, and closes the connection by itself.
            Frame::Ping { .. } | Frame::GoAway { .. } | Frame::Unknown { .. } => {}
        }
        Ok(None)
    }

    async fn open(&mut self, id: u32, headers: Headers, fin: bool, compressor: &mut Compressor) -> Result<(), SpdyError> {
        self.streams.retain(|_, open| open.inbound.is_some() || Arc::strong_count(&open.place) > 1);
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.reset(id, RstStatus::RefusedStream).await;
            return Ok(());
        };
        let place = Arc::new(place);
        let window = Arc::new(Window::new(self.initial_window, self.enforced.clone()));
        let stop = self.stop.child_token();
        let (inbound, reader) = pipe();
        let (writer, source) = pipe();
        // kubectl drops data that comes before the reply.
        self.send(&Frame::SynReply { stream: id, fin: false, headers: compressor.encode(&Headers::default())? }).await;
        let windows = Windows { stream: window.clone(), connection: self.connection_window.clone() };
        let pumping = pump(source, id, self.outgoing.clone(), Some(windows), stop.clone());
        let pumped_place = place.clone();
        let pump = tokio::spawn(async move {
            pumping.await;
            drop(pumped_place);
        });
        let inbound = if fin { None } else { Some(inbound) };
        self.streams.insert(id, Open { inbound, window, stop, unacknowledged: 0, place });
        // Nobody wants streams any more; the client sees its streams end.
        let _ = self.opened.send(SpdyStream { id, headers, reader, writer, pump }).await;
        Ok(())
    }

    async fn data(&mut self, frame: DataFrame) {
        let size = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
        self.unacknowledged += size;
        if self.unacknowledged >= INITIAL_WINDOW / 2 {
            let delta = std::mem::take(&mut self.unacknowledged);
            self.send(&Frame::WindowUpdate { stream: 0, delta }).await;
        }
        let Some(open) = self.streams.get_mut(&frame.stream) else {
            if frame.stream > self.last_stream || frame.stream.is_multiple_of(2) {
                self.reset(frame.stream, RstStatus::InvalidStream).await;
            }
            return;
        };
        if let Some(inbound) = &mut open.inbound {
            // Waiting here slows down the whole connection, as Kubernetes' own server does: its clients keep no windows.
            let taken = inbound.write_all(&frame.data).await.is_ok();
            open.unacknowledged += size;
            // A reader that is gone does not want the rest, but the client may still send it.
            if taken && !frame.fin && open.unacknowledged >= INITIAL_WINDOW / 2 {
                let delta = std::mem::take(&mut open.unacknowledged);
                self.send(&Frame::WindowUpdate { stream: frame.stream, delta }).await;
            }
        }
        if frame.fin {
            self.end(frame.stream);
        }
    }

    /// The client has ended its half of a stream.
    fn end(&mut self, stream: u32) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.inbound = None;
        }
    }

    async fn reset(&mut self, stream: u32, status: RstStatus) {
        self.send(&Frame::RstStream { stream, status: status as u32 }).await;
    }

    async fn send(&mut self, frame: &Frame) {
        // A writer that is gone takes the connection with it; the reader notices by itself.
        let _ = self.outgoing.send(Outgoing::Encoded(frame.encode())).await;
    }
}

/// Tells the client that a stream is not wanted.
pub(crate) async fn refuse(outgoing: &mpsc::Sender<Outgoing>, stream: &SpdyStream) {
    let frame = Frame::RstStream { stream: stream.id, status: RstStatus::Cancel as u32 };
    let _ = outgoing.send(Outgoing::Encoded(frame.encode())).await;
}

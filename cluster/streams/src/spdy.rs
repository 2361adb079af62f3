//! SPDY/3.1 as Kubernetes uses it: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>, servers that accept streams
//! and never open any.

mod frame;
mod headers;
mod session;

pub use frame::{DataFrame, Frame, FrameError, RstStatus};
pub use headers::{HeaderError, Headers};

#[cfg(test)]
pub(crate) use headers::Compressor as HeaderCompressor;
pub(crate) use session::{SpdyStream, refuse, serve};

/// Decodes everything a client might send on a fresh connection: frames, and the header blocks within them. Never panics and never
/// allocates more than a connection would; meant for fuzzing.
///
/// # Errors
/// The first violation of the protocol.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<(Frame, Option<Headers>)>, SpdyError> {
    let mut input = bytes::BytesMut::from(bytes);
    let mut decompressor = headers::Decompressor::new();
    let mut frames = Vec::new();
    while let Some(frame) = Frame::parse(&mut input)? {
        let headers = match &frame {
            Frame::SynStream { headers, .. } | Frame::SynReply { headers, .. } | Frame::Headers { headers, .. } => {
                Some(decompressor.decode(headers)?)
            }
            _ => None,
        };
        frames.push((frame, headers));
    }
    Ok(frames)
}

/// A violation of SPDY/3.1.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Not a header block.
    #[error(transparent)]
    Headers(#[from] HeaderError),
    /// The connection broke.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
}

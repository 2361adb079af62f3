//! Frames on the wire.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Every frame begins with eight bytes.
const HEADER: usize = 8;
/// The largest payload taken from a client. kubectl's frames carry at most 32 KiB; the format would allow 16 MiB.
pub(crate) const MAX_PAYLOAD: usize = 256 * 1024;
/// The largest compressed header block.
const MAX_HEADER_BLOCK: usize = 16 * 1024;
const MAX_SETTINGS: usize = 64;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;
/// Stream ids, window sizes and the like have 31 bits; the first is reserved.
const LOW_31: u32 = 0x7fff_ffff;

/// A frame, with its header block still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream.
    Data(DataFrame),
    /// Opens a stream.
    SynStream {
        /// Odd for streams that a client opens.
        stream: u32,
        /// The client sends nothing on it.
        fin: bool,
        /// The server may send nothing on it.
        unidirectional: bool,
        /// Compressed header block.
        headers: Bytes,
    },
    /// Accepts a stream.
    SynReply {
        /// Which.
        stream: u32,
        /// The sender sends nothing on it.
        fin: bool,
        /// Compressed header block.
        headers: Bytes,
    },
    /// Kills a stream.
    RstStream {
        /// Which.
        stream: u32,
        /// Why: [`RstStatus`] or another number.
        status: u32,
    },
    /// Announces settings.
    Settings {
        /// Number and value of each.
        entries: Vec<(u32, u32)>,
    },
    /// Wants an echo.
    Ping {
        /// Odd if the client asks.
        id: u32,
    },
    /// No further streams.
    GoAway {
        /// The last stream that was accepted.
        last_stream: u32,
    },
    /// More headers for a stream.
    Headers {
        /// Which.
        stream: u32,
        /// The sender sends nothing more on it.
        fin: bool,
        /// Compressed header block.
        headers: Bytes,
    },
    /// The sender is ready for more bytes.
    WindowUpdate {
        /// Which stream; 0 for the connection.
        stream: u32,
        /// How many more.
        delta: u32,
    },
    /// A control frame of a type this version does not have; to be ignored.
    Unknown {
        /// Its type.
        kind: u16,
    },
}

/// Bytes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFrame {
    /// Which stream.
    pub stream: u32,
    /// Nothing comes after it.
    pub fin: bool,
    /// The bytes.
    pub data: Bytes,
}

/// Why a stream is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RstStatus {
    /// A violation of the protocol.
    ProtocolError = 1,
    /// There is no such stream.
    InvalidStream = 2,
    /// The stream was not accepted, and nothing was done about it.
    RefusedStream = 3,
    /// Nobody needs it any more.
    Cancel = 5,
}

/// Bytes that are no frame, after which nothing on the connection can be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame of another version.
    #[error("SPDY version {0}, want 3")]
    Version(u16),
    /// A payload that is too long.
    #[error("SPDY frame of {size} bytes, limit {limit}")]
    TooLong {
        /// Its length.
        size: usize,
        /// The longest accepted.
        limit: usize,
    },
    /// A payload whose length does not fit its type.
    #[error("SPDY control frame of type {kind} with {size} bytes")]
    Length {
        /// Frame type.
        kind: u16,
        /// Payload length.
        size: usize,
    },
}

impl Frame {
    /// Takes the first frame off `input`, if it is complete.
    ///
    /// # Errors
    /// [`FrameError`]: the connection is beyond repair.
    pub fn parse(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
        let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let flags = header[4];
        let size = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        if size > MAX_PAYLOAD {
            return Err(FrameError::TooLong { size, limit: MAX_PAYLOAD });
        }
        let control = first >> 31 == 1;
        let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
        if control && version != VERSION {
            return Err(FrameError::Version(version));
        }
        if input.len() < HEADER + size {
            return Ok(None);
        }
        input.advance(HEADER);
        let payload = input.split_to(size).freeze();
        if control {
            Self::parse_control(kind, flags, payload).map(Some)
        } else {
            Ok(Some(Self::Data(DataFrame { stream: first & LOW_31, fin: flags & FLAG_FIN != 0, data: payload })))
        }
    }

    fn parse_control(kind: u16, flags: u8, mut payload: Bytes) -> Result<Self, FrameError> {
        let size = payload.len();
        let least = match kind {
            1 => 10,
            2 | 8 | 4 | 6 => 4,
            3 | 7 | 9 => 8,
            _ => return Ok(Self::Unknown { kind }),
        };
        if size < least {
            return Err(FrameError::Length { kind, size });
        }
        let fin = flags & FLAG_FIN != 0;
        let first = payload.get_u32();
        let stream = first & LOW_31;
        if matches!(kind, 1 | 2 | 8) && payload.len() > MAX_HEADER_BLOCK {
            return Err(FrameError::TooLong { size: payload.len(), limit: MAX_HEADER_BLOCK });
        }
        Ok(match kind {
            1 => {
                // The associated stream, the priority and the slot mean nothing here.
                payload.advance(6);
                Self::SynStream { stream, fin, unidirectional: flags & FLAG_UNIDIRECTIONAL != 0, headers: payload }
            }
            2 => Self::SynReply { stream, fin, headers: payload },
            3 => Self::RstStream { stream, status: payload.get_u32() },
            4 => {
                let count = first as usize;
                if count > MAX_SETTINGS || payload.len() != count * 8 {
                    return Err(FrameError::Length { kind, size });
                }
                // Eight bits of flags precede each number.
                let entries =
                    std::iter::repeat_with(|| (payload.get_u32() & 0x00ff_ffff, payload.get_u32())).take(count).collect();
                Self::Settings { entries }
            }
            6 => Self::Ping { id: first },
            7 => Self::GoAway { last_stream: stream },
            8 => Self::Headers { stream, fin, headers: payload },
            _ => Self::WindowUpdate { stream, delta: payload.get_u32() & LOW_31 },
        })
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let flag = |fin: bool| if fin { FLAG_FIN } else { 0 };
        match self {
            Self::Data(DataFrame { stream, fin, data }) => {
                out.reserve(HEADER + data.len());
                out.put_u32(stream & LOW_31);
                put_flags_and_size(&mut out, flag(*fin), data.len());
                out.extend_from_slice(data);
            }
            Self::SynStream { stream, fin, unidirectional, headers } => {
                let flags = flag(*fin) | if *unidirectional { FLAG_UNIDIRECTIONAL } else { 0 };
                put_control(&mut out, 1, flags, 10 + headers.len());
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(headers);
            }
            Self::SynReply { stream, fin, headers } | Self::Headers { stream, fin, headers } => {
                let kind = if matches!(self, Self::SynReply { .. }) { 2 } else { 8 };
                put_control(&mut out, kind, flag(*fin), 4 + headers.len());
                out.put_u32(*stream);
                out.extend_from_slice(headers);
            }
            Self::RstStream { stream, status } => {
                put_control(&mut out, 3, 0, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Self::Settings { entries } => {
                put_control(&mut out, 4, 0, 4 + 8 * entries.len());
                out.put_u32(entries.len() as u32);
                for (number, value) in entries {
                    out.put_u32(*number);
                    out.put_u32(*value);
                }
            }
            Self::Ping { id } => {
                put_control(&mut out, 6, 0, 4);
                out.put_u32(*id);
            }
            Self::GoAway { last_stream } => {
                put_control(&mut out, 7, 0, 8);
                out.put_u32(*last_stream);
                out.put_u32(0);
            }
            Self::WindowUpdate { stream, delta } => {
                put_control(&mut out, 9, 0, 8);
                out.put_u32(*stream);
                out.put_u32(*delta);
            }
            Self::Unknown { kind } => put_control(&mut out, *kind, 0, 0),
        }
        out.freeze()
    }
}

fn put_control(out: &mut BytesMut, kind: u16, flags: u8, size: usize) {
    out.reserve(HEADER + size);
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_flags_and_size(out, flags, size);
}

fn put_flags_and_size(out: &mut BytesMut, flags: u8, size: usize) {
    out.put_u32(u32::from(flags) << 24 | (size as u32 & 0x00ff_ffff));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let stream = || 1_u32..=LOW_31;
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        prop_oneof![
            (stream(), any::<bool>(), bytes()).prop_map(|(stream, fin, data)| Frame::Data(DataFrame { stream, fin, data })),
            (stream(), any::<bool>(), any::<bool>(), bytes())
                .prop_map(|(stream, fin, unidirectional, headers)| { Frame::SynStream { stream, fin, unidirectional, headers } }),
            (stream(), any::<bool>(), bytes()).prop_map(|(stream, fin, headers)| Frame::SynReply { stream, fin, headers }),
            (stream(), any::<bool>(), bytes()).prop_map(|(stream, fin, headers)| Frame::Headers { stream, fin, headers }),
            (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            proptest::collection::vec((0_u32..0x0100_0000, any::<u32>()), 0..8).prop_map(|entries| Frame::Settings { entries }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            stream().prop_map(|last_stream| Frame::GoAway { last_stream }),
            (stream(), stream()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
            (10_u16..100).prop_map(|kind| Frame::Unknown { kind }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire_however_it_cuts_them(frames in proptest::collection::vec(frames(), 1..6), cut in 1_usize..40) {
            let wire: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
            let mut input = BytesMut::new();
            let mut parsed = Vec::new();
            for piece in wire.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(frame) = Frame::parse(&mut input).unwrap() {
                    parsed.push(frame);
                }
            }
            prop_assert_eq!(parsed, frames);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = crate::spdy::decode_all(&bytes);
            // With a valid beginning, the parser gets further.
            for kind in 1..=10 {
                let mut framed = BytesMut::new();
                put_control(&mut framed, kind, 0, bytes.len());
                framed.extend_from_slice(&bytes);
                let _ = crate::spdy::decode_all(&framed);
            }
        }
    }

    #[test]
    fn oversized_frames_are_refused_before_they_arrive() {
        let header = [0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        let error = Frame::parse(&mut BytesMut::from(&header[..])).unwrap_err();
        insta::assert_snapshot!(error, @"SPDY frame of 16777215 bytes, limit 262144");
    }

    #[test]
    fn another_version_is_refused() {
        let error = Frame::parse(&mut BytesMut::from(&[0x80, 2, 0, 1, 0, 0, 0, 0][..])).unwrap_err();
        assert_eq!(error, FrameError::Version(2));
    }
}

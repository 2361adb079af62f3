//! Recording traffic as a pcap file that Wireshark opens.
//!
//! The fabric moves bytes, not packets; the packets are written as they would have looked: IP and TCP headers with a handshake,
//! sequence numbers, acknowledgements and checksums. What is recorded lies on the wire between pods, so a connection to a service
//! shows the endpoint, and one that the server's pod redirects to its sidecar shows the port that was asked for.

use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::connection::Connection;
use super::link::Link;

/// `LINKTYPE_RAW`: a packet begins with its IP header, <https://www.tcpdump.org/linktypes.html>.
const LINKTYPE_RAW: u32 = 101;
/// Nanosecond timestamps, so that packets written within a microsecond keep their order.
const MAGIC: u32 = 0xa1b2_3c4d;
/// What fits into an Ethernet frame of 1500 bytes.
const MAX_SEGMENT: usize = 1460;
const WINDOW: u16 = 0xffff;
const TTL: u8 = 64;
const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// What to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Which links.
    pub link: Link,
    /// Also what stays within a host, as `tcpdump -i any` shows it: the plaintext between an application and its sidecar.
    pub loopback: bool,
}

impl CaptureOptions {
    /// What passes over a link, as `tcpdump -i eth0` shows it.
    pub fn link(link: Link) -> Self {
        Self { link, loopback: false }
    }
}

/// A running recording. It ends when stopped or dropped.
#[derive(Debug)]
pub struct Capture(Arc<Tap>);

impl Capture {
    pub(super) fn new(tap: Arc<Tap>) -> Self {
        Self(tap)
    }

    /// Packets recorded so far.
    pub fn packets(&self) -> u64 {
        self.0.sink.lock().packets
    }

    /// Hands everything recorded so far to the sink.
    ///
    /// # Errors
    /// The first error the sink ever met; nothing was recorded after it.
    pub fn flush(&self) -> io::Result<()> {
        self.0.sink.lock().flush()
    }

    /// Ends the recording and says how many packets it has.
    ///
    /// # Errors
    /// The first error the sink ever met; nothing was recorded after it.
    pub fn stop(self) -> io::Result<u64> {
        let mut sink = self.0.sink.lock();
        sink.flush()?;
        sink.writer = None;
        Ok(sink.packets)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let mut sink = self.0.sink.lock();
        if let Err(error) = sink.flush() {
            tracing::warn!(%error, "the capture is incomplete");
        }
        sink.writer = None;
    }
}

/// The receiving end of a recording, known to every connection it wants.
pub(super) struct Tap {
    options: CaptureOptions,
    sink: Mutex<Sink>,
}

struct Sink {
    /// Gone once the recording ended or failed.
    writer: Option<Box<dyn Write + Send>>,
    error: Option<io::Error>,
    packets: u64,
}

impl Tap {
    pub(super) fn start(options: CaptureOptions, sink: Box<dyn Write + Send>) -> io::Result<Arc<Self>> {
        let mut writer: Box<dyn Write + Send> = Box::new(io::BufWriter::with_capacity(64 * 1024, sink));
        writer.write_all(&file_header())?;
        writer.flush()?;
        Ok(Arc::new(Self { options, sink: Mutex::new(Sink { writer: Some(writer), error: None, packets: 0 }) }))
    }

    pub(super) fn wants(&self, connection: &Connection) -> bool {
        self.wants_addresses(connection.addresses(), connection.is_local())
    }

    pub(super) fn wants_addresses(&self, [client, server]: [SocketAddr; 2], local: bool) -> bool {
        (self.options.loopback || !local) && self.options.link.includes(client.ip(), server.ip())
    }

    /// Records a connection that nobody accepts.
    pub(super) fn refused(&self, client: SocketAddr, server: SocketAddr) {
        let first = rand::random();
        self.packets(client, server, first, 0, Flags::SYN, &[], 0);
        self.packets(server, client, 0, first.wrapping_add(1), Flags::RST | Flags::ACK, &[], 0);
    }

    /// Records a connection that nobody answers.
    pub(super) fn unanswered(&self, client: SocketAddr, server: SocketAddr) {
        self.packets(client, server, rand::random(), 0, Flags::SYN, &[], 0);
    }

    /// Records the first `count` bytes of `data`, or one packet without any.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a TCP header")]
    pub(super) fn packets(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        sequence: u32,
        acknowledged: u32,
        flags: Flags,
        data: &[IoSlice<'_>],
        count: usize,
    ) {
        let acknowledged = if flags.contains(Flags::ACK) { acknowledged } else { 0 };
        let mut bytes = Vec::new();
        if data.is_empty() {
            append_packet(&mut bytes, from, to, sequence, acknowledged, flags, &[]);
            self.sink.lock().write(&bytes, 1);
            return;
        }
        let mut payload = Vec::with_capacity(count);
        for slice in data {
            payload.extend_from_slice(&slice[..slice.len().min(count - payload.len())]);
        }
        let mut packets = 0;
        for (index, segment) in payload.chunks(MAX_SEGMENT).enumerate() {
            let offset = u32::try_from(index * MAX_SEGMENT).unwrap_or(u32::MAX);
            append_packet(&mut bytes, from, to, sequence.wrapping_add(offset), acknowledged, flags, segment);
            packets += 1;
        }
        self.sink.lock().write(&bytes, packets);
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8], packets: u64) {
        let Some(writer) = &mut self.writer else { return };
        match writer.write_all(bytes) {
            Ok(()) => self.packets += packets,
            Err(error) => self.fail(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(Err(error)) = self.writer.as_mut().map(|writer| writer.flush()) {
            self.fail(error);
        }
        match &self.error {
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.writer = None;
        self.error = Some(error);
    }
}

/// TCP flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const FIN: Self = Self(0x01);
    pub(super) const SYN: Self = Self(0x02);
    pub(super) const RST: Self = Self(0x04);
    pub(super) const PSH: Self = Self(0x08);
    pub(super) const ACK: Self = Self(0x10);

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&2_u16.to_le_bytes());
    header[6..8].copy_from_slice(&4_u16.to_le_bytes());
    // Time zone and accuracy stay zero; then the longest packet, and what a packet begins with.
    header[16..20].copy_from_slice(&u32::from(u16::MAX).to_le_bytes());
    header[20..24].copy_from_slice(&LINKTYPE_RAW.to_le_bytes());
    header
}

fn append_packet(
    file: &mut Vec<u8>,
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    flags: Flags,
    data: &[u8],
) {
    let packet = packet(from, to, sequence, acknowledged, flags, data);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    // The format's seconds are 32 bits.
    for field in [now.as_secs() as u32, now.subsec_nanos(), length, length] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&packet);
}

fn packet(from: SocketAddr, to: SocketAddr, sequence: u32, acknowledged: u32, flags: Flags, data: &[u8]) -> Vec<u8> {
    let segment_length = u16::try_from(TCP_HEADER + data.len()).unwrap_or(u16::MAX);
    let mut segment = Vec::with_capacity(usize::from(segment_length));
    segment.extend_from_slice(&from.port().to_be_bytes());
    segment.extend_from_slice(&to.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&acknowledged.to_be_bytes());
    segment.extend_from_slice(&[(TCP_HEADER as u8 / 4) << 4, flags.0]);
    segment.extend_from_slice(&WINDOW.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(data);

    let mut packet = Vec::with_capacity(IPV6_HEADER + segment.len());
    let pseudo_header = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            packet.extend_from_slice(&[0x45, 0]);
            packet.extend_from_slice(&(IPV4_HEADER as u16 + segment_length).to_be_bytes());
            // Identification 0 with "don't fragment".
            packet.extend_from_slice(&[0, 0, 0x40, 0, TTL, TCP, 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&target.octets());
            let header_checksum = checksum(0, &packet);
            packet[10..12].copy_from_slice(&header_checksum.to_be_bytes());
            sum(sum(0, &source.octets()), &target.octets())
        }
        (source, target) => {
            let (source, target) = (as_v6(source), as_v6(target));
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&segment_length.to_be_bytes());
            packet.extend_from_slice(&[TCP, TTL]);
            packet.extend_from_slice(&source);
            packet.extend_from_slice(&target);
            sum(sum(0, &source), &target)
        }
    };
    let tcp_checksum = checksum(pseudo_header + u32::from(TCP) + u32::from(segment_length), &segment);
    segment[16..18].copy_from_slice(&tcp_checksum.to_be_bytes());
    packet.extend_from_slice(&segment);
    packet
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn sum(start: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    words.fold(start, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    })
}

/// The Internet checksum, RFC 1071.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let sum = sum((start & 0xffff) + (start >> 16), bytes);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

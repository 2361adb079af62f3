//! Header blocks: names and values, compressed by zlib with a dictionary that both sides know.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;

/// The largest header block once decompressed. Kubernetes' clients send three short headers.
const MAX_BLOCK: usize = 64 * 1024;
const MAX_PAIRS: usize = 128;

/// Names and values of a stream's headers, in the order they were sent. Names are lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a header, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// A header block that cannot be read, after which no other on the connection can be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It does not decompress.
    #[error("SPDY header block: {0}")]
    Compression(String),
    /// It is too long.
    #[error("SPDY header block is longer than {MAX_BLOCK} bytes or has more than {MAX_PAIRS} headers")]
    TooLong,
    /// It ends too early, or too late.
    #[error("SPDY header block does not have the length it states")]
    Length,
    /// It is not text.
    #[error("SPDY header is not text")]
    Text,
}

/// One direction of a connection, decompressed.
pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn decode(&mut self, compressed: &[u8]) -> Result<Headers, HeaderError> {
        let block = self.decompress(compressed)?;
        parse(&mut block.as_slice())
    }

    fn decompress(&mut self, mut compressed: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let broken = |error: flate2::DecompressError| HeaderError::Compression(error.to_string());
        let mut block = Vec::with_capacity(1024);
        loop {
            if block.len() == block.capacity() {
                if block.len() >= MAX_BLOCK {
                    return Err(HeaderError::TooLong);
                }
                block.reserve(block.len());
            }
            let (taken, given) = (self.0.total_in(), self.0.total_out());
            match self.0.decompress_vec(compressed, &mut block, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Ok(block),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(broken)?;
                }
                Err(error) => return Err(broken(error)),
            }
            let (taken, given) = (self.0.total_in() - taken, self.0.total_out() - given);
            compressed = &compressed[usize::try_from(taken).unwrap_or(compressed.len()).min(compressed.len())..];
            let full = block.len() == block.capacity();
            if compressed.is_empty() && !full || taken == 0 && given == 0 && !full {
                return Ok(block);
            }
        }
    }
}

/// One direction of a connection, compressed.
pub(crate) struct Compressor(Compress);

impl Compressor {
    pub(crate) fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&DICTIONARY).map_err(|error| HeaderError::Compression(error.to_string()))?;
        Ok(Self(compress))
    }

    pub(crate) fn encode(&mut self, headers: &Headers) -> Result<Bytes, HeaderError> {
        let mut block = Vec::new();
        block.put_u32(headers.0.len() as u32);
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.extend_from_slice(text.as_bytes());
        }
        let mut compressed = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            let taken = (self.0.total_in() - start) as usize;
            let result = self.0.compress_vec(&block[taken..], &mut compressed, FlushCompress::Sync);
            result.map_err(|error| HeaderError::Compression(error.to_string()))?;
            // A flush is complete when there was room to spare.
            if compressed.len() < compressed.capacity() {
                return Ok(compressed.into());
            }
            compressed.reserve(256);
        }
    }
}

fn parse(block: &mut &[u8]) -> Result<Headers, HeaderError> {
    let count = block.try_get_u32().map_err(|_| HeaderError::Length)? as usize;
    if count > MAX_PAIRS {
        return Err(HeaderError::TooLong);
    }
    let mut headers = Headers(Vec::with_capacity(count));
    for _ in 0..count {
        let name = text(block)?.to_ascii_lowercase();
        headers.0.push((name, text(block)?));
    }
    if block.is_empty() { Ok(headers) } else { Err(HeaderError::Length) }
}

fn text(block: &mut &[u8]) -> Result<String, HeaderError> {
    let size = block.try_get_u32().map_err(|_| HeaderError::Length)? as usize;
    let (text, rest) = block.split_at_checked(size).ok_or(HeaderError::Length)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| HeaderError::Text)
}

/// The dictionary of SPDY/3, section 2.6.10.1: words, each after its length in four bytes, and then a tail without lengths.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in DICTIONARY_WORDS {
        dictionary.put_u32(word.len() as u32);
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend(DICTIONARY_TAIL.iter().flat_map(|part| part.bytes()));
    dictionary
});

const DICTIONARY_WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

const DICTIONARY_TAIL: &[&str] = &[
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritativ",
    "e Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 I",
    "nternal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec",
    " 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xm",
    "l,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=",
    "iso-8859-1,utf-,*,enq=0.",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_specification() {
        assert_eq!(DICTIONARY.len(), 1423);
        // zlib names a dictionary by its Adler-32 checksum.
        let mut sums = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            sums.0 = (sums.0 + u32::from(*byte)) % 65521;
            sums.1 = (sums.1 + sums.0) % 65521;
        }
        assert_eq!(sums.1 << 16 | sums.0, 0xe3c6_a7c2);
    }

    #[test]
    fn one_compressor_serves_a_whole_connection() {
        let (mut compressor, mut decompressor) = (Compressor::new().unwrap(), Decompressor::new());
        let blocks = [headers(&[("streamtype", "error")]), headers(&[]), headers(&[("streamtype", "stdin"), ("requestid", "0")])];
        for block in blocks {
            assert_eq!(decompressor.decode(&compressor.encode(&block).unwrap()).unwrap(), block);
        }
    }

    #[test]
    fn a_bomb_is_defused() {
        let mut compressor = Compressor::new().unwrap();
        let bomb = headers(&[("x", &"a".repeat(10 * MAX_BLOCK))]);
        let compressed = compressor.encode(&bomb).unwrap();
        assert!(compressed.len() < MAX_BLOCK / 8);
        assert_eq!(Decompressor::new().decode(&compressed).unwrap_err(), HeaderError::TooLong);
    }

    #[test]
    fn a_block_that_lies_about_its_length_is_refused() {
        assert_eq!(parse(&mut &[0, 0, 0, 1, 0, 0, 0, 9, b'x'][..]).unwrap_err(), HeaderError::Length);
        assert_eq!(parse(&mut &[0, 0, 0, 0, 7][..]).unwrap_err(), HeaderError::Length);
        assert_eq!(parse(&mut &[0xff, 0xff, 0xff, 0xff][..]).unwrap_err(), HeaderError::TooLong);
        assert!(matches!(Decompressor::new().decode(b"no zlib").unwrap_err(), HeaderError::Compression(_)));
    }

    proptest! {
        #[test]
        fn headers_survive(pairs in proptest::collection::vec(("[a-z0-9-]{1,20}", ".{0,300}"), 0..20)) {
            let block = Headers(pairs);
            let compressed = Compressor::new().unwrap().encode(&block).unwrap();
            prop_assert_eq!(Decompressor::new().decode(&compressed).unwrap(), block);
        }
    }
}

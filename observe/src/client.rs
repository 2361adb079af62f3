//! One HTTP request over any [`Net`], with a bound on time and on size.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use thiserror::Error;

/// Longest explanation of an error that is read.
const MAX_ERROR: usize = 16 << 10;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Exchange(String),
    /// With the beginning of what it says.
    #[error("server returned HTTP status {0}")]
    Status(StatusCode, String),
    #[error("the body is not gzip: {0}")]
    Gzip(std::io::Error),
    #[error("body size limit exceeded")]
    TooLarge,
    #[error("context deadline exceeded")]
    Timeout,
}

/// What is asked, and of whom.
pub(crate) struct Fetch<'a> {
    pub(crate) address: SocketAddr,
    /// The value of `Host`.
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
    pub(crate) timeout: Duration,
    /// Longest body, after decompression.
    pub(crate) max_bytes: usize,
}

impl Fetch<'_> {
    /// The body of the answer to a GET, if the status is 2xx.
    pub(crate) async fn get<N: Net>(&self, net: &N) -> Result<Bytes, FetchError> {
        tokio::time::timeout(self.timeout, self.exchange(net)).await.map_err(|_| FetchError::Timeout)?
    }

    async fn exchange<N: Net>(&self, net: &N) -> Result<Bytes, FetchError> {
        let failed = |error: &dyn std::fmt::Display| FetchError::Exchange(error.to_string());
        let stream = net.connect(self.address).await.map_err(FetchError::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let request = Request::get(self.path)
            .header(header::HOST, self.host)
            .header(header::ACCEPT, self.accept)
            .header(header::ACCEPT_ENCODING, "gzip")
            .header(header::USER_AGENT, concat!("meshlab/", env!("CARGO_PKG_VERSION")))
            .body(Full::<Bytes>::default())
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            if !response.status().is_success() {
                let status = response.status();
                let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
                let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
                return Err(FetchError::Status(status, text));
            }
            let gzip = response.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
            let mut plain = Vec::with_capacity(response.body().size_hint().lower().min(self.max_bytes as u64) as usize);
            let mut body = Limited::new(response.into_body(), self.max_bytes);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
                    Some(_) => FetchError::TooLarge,
                    None => failed(&error),
                })?;
                plain.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
            if gzip { gunzip(&plain, self.max_bytes) } else { Ok(plain.into()) }
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            done = &mut exchange => done,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(failed(&error)),
            },
        }
    }
}

/// Decompresses at most `max_bytes`.
pub(crate) fn gunzip(compressed: &[u8], max_bytes: usize) -> Result<Bytes, FetchError> {
    let mut plain = Vec::new();
    GzDecoder::new(compressed).take(max_bytes as u64 + 1).read_to_end(&mut plain).map_err(FetchError::Gzip)?;
    if plain.len() > max_bytes { Err(FetchError::TooLarge) } else { Ok(plain.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'a'; 10 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 20_000);
        assert!(matches!(gunzip(&bomb, 1 << 20), Err(FetchError::TooLarge)));
        assert_eq!(gunzip(&bomb, 10 << 20).unwrap().len(), 10 << 20);
        assert!(matches!(gunzip(b"no gzip", 10), Err(FetchError::Gzip(_))));
    }
}

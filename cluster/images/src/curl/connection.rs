//! Where a URL leads: names, connections, TLS.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshlab_net::{Net, Stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Curl;
use super::error::{CurlError, code};
use super::report::Report;
use crate::http::{Body, client};
use crate::tls::{self, Secured, TlsError, TlsOptions, Untrusted};

/// What need not be percent-encoded: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>.
pub(super) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long curl tries to connect where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the image's own authorities are, if it has any.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(super) enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// An open connection.
pub(super) struct Connection {
    /// Scheme, host and port that it is for.
    pub(super) origin: String,
    pub(super) sender: Sender,
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }
}

impl Curl<'_> {
    /// The host and port to look up instead of the URL's (`--connect-to HOST1:PORT1:HOST2:PORT2`).
    fn connect_to(&self, host: &str, port: u16) -> (String, u16) {
        for rule in &self.arguments.connect_to {
            if let [from_host, from_port, to_host, to_port] = rule.split(':').collect::<Vec<_>>()[..]
                && (from_host.is_empty() || from_host == host)
                && (from_port.is_empty() || from_port == port.to_string())
            {
                let to_host = if to_host.is_empty() { host } else { to_host };
                return (to_host.to_owned(), to_port.parse().unwrap_or(port));
            }
        }
        (host.to_owned(), port)
    }

    /// The address that `--resolve HOST:PORT:ADDRESS` gives.
    fn resolved(&self, host: &str, port: u16) -> Option<IpAddr> {
        self.arguments.resolve.iter().rev().find_map(|rule| {
            let (rule_host, rest) = rule.trim_start_matches('+').split_once(':')?;
            let (rule_port, address) = rest.split_once(':')?;
            let fits = (rule_host == host || rule_host == "*") && rule_port == port.to_string();
            let address = address.split(',').next()?;
            address.trim_matches(['[', ']']).parse().ok().filter(|_| fits)
        })
    }

    /// Opens a connection for a URL.
    pub(super) async fn connect(&mut self, url: &Url, report: &mut Report) -> Result<Connection, CurlError> {
        let host = host_of(url)?;
        let port = url.port_or_known_default().unwrap_or(80);
        let (to_host, to_port) = self.connect_to(&host, port);
        let ip = match self.resolved(&to_host, to_port) {
            Some(ip) => {
                self.note(&format!("* Added {to_host}:{to_port}:{ip} to DNS cache")).await;
                ip
            }
            None => {
                let found = client::resolve(&self.process.container.net, &to_host).await.ok();
                let missing = || CurlError::new(code::RESOLVE, format!("Could not resolve host: {to_host}"));
                found.and_then(|addresses| addresses.first().copied()).ok_or_else(missing)?
            }
        };
        report.times.name_lookup = Some(report.elapsed());
        let address = SocketAddr::new(ip, to_port);
        self.note(&format!("*   Trying {address}...")).await;
        let began = std::time::Instant::now();
        let limit = self.arguments.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let connected = tokio::time::timeout(limit, self.process.container.net.connect(address)).await;
        let millis = began.elapsed().as_millis();
        let Ok(connected) = connected else {
            let message = format!("Failed to connect to {to_host} port {to_port} after {millis} ms: Timeout was reached");
            return Err(CurlError::new(code::TIMEOUT, message));
        };
        let stream = connected.map_err(|_| {
            let message = format!("Failed to connect to {to_host} port {to_port} after {millis} ms: Could not connect to server");
            CurlError::new(code::CONNECT, message)
        })?;
        report.times.connect = Some(report.elapsed());
        report.connects += 1;
        self.connections += 1;
        let (remote, local) = (stream.peer_addr(), stream.local_addr());
        self.note(&format!("* Connected to {to_host} ({}) port {to_port}", remote.ip())).await;
        let origin = origin_of(url);
        if url.scheme() != "https" {
            return handshake(stream, self.arguments.http2_prior_knowledge, origin, remote, local).await;
        }
        let secured = self.secure(stream, &host, report).await?;
        let http2 = secured.stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()) || self.arguments.http2_prior_knowledge;
        handshake(secured.stream, http2, origin, remote, local).await
    }

    async fn secure<S: Stream>(&mut self, stream: S, host: &str, report: &mut Report) -> Result<Secured<S>, CurlError> {
        let options = self.tls_options()?;
        let offers: Vec<String> = options.alpn.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        self.note(&format!("* ALPN: curl offers {}", offers.join(","))).await;
        let secured = tls::connect(stream, host, &options).await.map_err(|err| tls_error(&err, host))?;
        report.times.app_connect = Some(report.elapsed());
        let session = secured.stream.get_ref().1;
        let mut lines = vec![format!(
            "* SSL connection using {} / {}",
            tls::version_name(session.protocol_version()),
            tls::cipher_name(session.negotiated_cipher_suite())
        )];
        lines.push(match session.alpn_protocol() {
            Some(protocol) => format!("* ALPN: server accepted {}", String::from_utf8_lossy(protocol)),
            None => "* ALPN: server did not agree on a protocol. Uses default.".to_owned(),
        });
        if let Some(own) = secured.shown.chain.first()
            && let Ok((_, certificate)) = X509Certificate::from_der(own)
        {
            lines.push("* Server certificate:".to_owned());
            lines.push(format!("*  subject: {}", certificate.subject()));
            lines.push(format!("*  start date: {}", certificate.validity().not_before));
            lines.push(format!("*  expire date: {}", certificate.validity().not_after));
            if let Ok(Some(names)) = certificate.subject_alternative_name() {
                let names = names.value.general_names.iter().map(|name| match name {
                    GeneralName::DNSName(name) => format!("DNS:{name}"),
                    GeneralName::URI(uri) => format!("URI:{uri}"),
                    GeneralName::IPAddress(bytes) => match **bytes {
                        [a, b, c, d] => format!("IP:{a}.{b}.{c}.{d}"),
                        _ => "IP".to_owned(),
                    },
                    other => other.to_string(),
                });
                lines.push(format!("*  subjectAltName: {}", names.collect::<Vec<_>>().join(", ")));
            }
            lines.push(format!("*  issuer: {}", certificate.issuer()));
        }
        if let Some(untrusted) = &secured.shown.untrusted {
            let Untrusted { number, words } = untrusted;
            report.verify_result = *number;
            lines.push(format!("*  SSL certificate verify result: {words} ({number}), continuing anyway."));
        } else {
            lines.push("*  SSL certificate verify ok.".to_owned());
        }
        for line in lines {
            self.note(&line).await;
        }
        Ok(secured)
    }

    fn tls_options(&self) -> Result<TlsOptions, CurlError> {
        let read = |name: &str| self.process.container.fs.read(&self.process.path(name));
        let variable = |name: &str| self.process.env.get(name).cloned();
        let named = self.arguments.ca.clone().or_else(|| variable("CURL_CA_BUNDLE")).or_else(|| variable("SSL_CERT_FILE"));
        let authorities = match &named {
            Some(file) => {
                let message = |err| format!("error setting certificate verify locations:  CAfile: {file} CApath: none ({err})");
                read(file).map_err(|err| CurlError::new(code::CA_FILE, message(err)))?
            }
            None => read(CA_BUNDLE).unwrap_or_default(),
        };
        let identity = match &self.arguments.certificate {
            None => None,
            Some(file) => {
                let open = |file: &str| {
                    let message = format!("could not load PEM client certificate from {file}");
                    read(file).map_err(|err| CurlError::new(code::OWN_CERTIFICATE, format!("{message}: {err}")))
                };
                let key = self.arguments.key.as_ref().unwrap_or(file);
                Some((open(file)?.to_vec(), open(key)?.to_vec()))
            }
        };
        let alpn: &[&[u8]] = match (self.arguments.http11, self.arguments.http2_prior_knowledge) {
            (true, _) => &[b"http/1.1"],
            (_, true) => &[b"h2"],
            _ => &[b"h2", b"http/1.1"],
        };
        Ok(TlsOptions {
            authorities: authorities.to_vec(),
            insecure: self.arguments.insecure,
            identity,
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
            only_tls13: self.arguments.tls13,
            only_tls12: self.arguments.tls12,
        })
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    origin: String,
    remote: SocketAddr,
    local: SocketAddr,
) -> Result<Connection, CurlError> {
    let io = TokioIo::new(stream);
    let (sender, driver) = if http2 {
        let handshake = http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = handshake.map_err(|err| CurlError::http(&err, true, false))?;
        (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
    } else {
        let handshake = http1::Builder::new().title_case_headers(true).handshake(io).await;
        let (sender, connection) = handshake.map_err(|err| CurlError::http(&err, false, false))?;
        (Sender::Http1(sender), tokio::spawn(async move { drop(connection.await) }))
    };
    Ok(Connection { origin, sender, remote, local, _driver: AbortOnDropHandle::new(driver) })
}

pub(super) fn origin_of(url: &Url) -> String {
    format!("{}://{}:{}", url.scheme(), url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0))
}

pub(super) fn host_of(url: &Url) -> Result<String, CurlError> {
    match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => Ok(name.to_owned()),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        _ => Err(CurlError::new(code::URL, "URL rejected: No host part in the URL")),
    }
}

fn tls_error(err: &TlsError, host: &str) -> CurlError {
    match err {
        TlsError::NoAuthorities => CurlError::new(code::CA_FILE, format!("error setting certificate verify locations: {err}")),
        TlsError::Identity(_) => CurlError::new(code::OWN_CERTIFICATE, err.to_string()),
        TlsError::Untrusted(Untrusted::WRONG_NAME) => {
            let message = format!("SSL: no alternative certificate subject name matches target host name '{host}'");
            CurlError::new(code::CERTIFICATE, message)
        }
        TlsError::Untrusted(untrusted) => {
            CurlError::new(code::CERTIFICATE, format!("SSL certificate problem: {}", untrusted.words))
        }
        TlsError::Handshake(err) if err.kind() == std::io::ErrorKind::ConnectionReset => {
            CurlError::new(code::TLS, "Recv failure: Connection reset by peer")
        }
        TlsError::Handshake(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => {
            CurlError::new(code::TLS, format!("TLS connect error: the server closed the connection while connecting to {host}"))
        }
        TlsError::Name(_) | TlsError::Handshake(_) => CurlError::new(code::TLS, format!("TLS connect error: {err}")),
    }
}

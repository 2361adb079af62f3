//! What a port speaks.

/// A protocol as Istio tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the protocols'")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    HttpProxy,
    Https,
    Tls,
    Tcp,
    Udp,
    Mongo,
    Redis,
    MySql,
    /// Not told: found out from the first bytes.
    Sniffed,
}

impl Protocol {
    /// From a word, without regard to case.
    pub fn parse(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http_proxy" => Self::HttpProxy,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            _ => Self::Sniffed,
        }
    }

    /// Of a Service's port: `appProtocol`, else the name up to its first dash, else (for ports whose server speaks first) TCP.
    pub fn of_service_port(number: u16, name: &str, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            _ => {}
        }
        let name = app_protocol.unwrap_or(name);
        if name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("grpc-web")) {
            return Self::GrpcWeb;
        }
        let parsed = Self::parse(name.split('-').next().unwrap_or(name));
        // SMTP, DNS, MySQL and MongoDB servers send the first byte.
        if parsed == Self::Sniffed && matches!(number, 25 | 53 | 3306 | 27017) { Self::Tcp } else { parsed }
    }

    /// HTTP in the clear, declared as such.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy)
    }

    /// HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// gRPC.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// TLS made by the application.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Has HTTP routes: declared, or found out.
    pub fn is_http_or_sniffed(self) -> bool {
        self.is_http() || self == Self::Sniffed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_45_app_protocol_then_name_prefix_then_sniffing() {
        let of = |name: &str, app: Option<&str>| Protocol::of_service_port(9000, name, "TCP", app);
        assert_eq!(of("http", None), Protocol::Http);
        assert_eq!(of("http-web", None), Protocol::Http);
        assert_eq!(of("httpweb", None), Protocol::Sniffed);
        assert_eq!(of("web-http", None), Protocol::Sniffed);
        assert_eq!(of("tcp-x", Some("http")), Protocol::Http);
        assert_eq!(of("grpc-web-x", None), Protocol::GrpcWeb);
        assert_eq!(of("x", Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(of("", None), Protocol::Sniffed);
        assert_eq!(Protocol::of_service_port(3306, "db", "TCP", None), Protocol::Tcp);
        assert_eq!(Protocol::of_service_port(53, "http", "UDP", None), Protocol::Udp);
    }
}

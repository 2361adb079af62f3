//! Access log filters: the part of CEL that Telemetry's examples use.
//!
//! `&&`, `||`, `!`, parentheses; `==`, `!=`, `<`, `<=`, `>`, `>=`; `.startsWith()`, `.endsWith()`, `.contains()`, `.matches()`,
//! `'x' in request.headers`, `has(response.code)`; attributes of `request`, `response`, `connection`, `source`, `destination`, `upstream`.

use http::HeaderName;
use regex::Regex;

use super::format::View;
use crate::matching::{header_name, partial_regex};

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Filter(Expression);

#[derive(Debug)]
enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Compare(Box<Expression>, Comparison, Box<Expression>),
    StartsWith(Box<Expression>, String),
    EndsWith(Box<Expression>, String),
    Contains(Box<Expression>, String),
    Matches(Box<Expression>, Regex),
    HasHeader(HeaderName),
    Has(Attribute),
    Literal(Value),
    Attribute(Attribute),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
    Absent,
}

#[derive(Debug, Clone)]
enum Attribute {
    Method,
    Path,
    UrlPath,
    Host,
    Protocol,
    RequestHeader(HeaderName),
    RequestDuration,
    RequestSize,
    ResponseCode,
    ResponseFlags,
    ResponseDetails,
    ResponseGrpcStatus,
    ResponseHeader(HeaderName),
    ResponseSize,
    Mtls,
    ServerName,
    SourcePrincipal,
    SourceAddress,
    DestinationAddress,
    DestinationPort,
    UpstreamAddress,
    RouteName,
    ClusterName,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Integer(i64),
    Symbol(&'static str),
}

/// Nesting beyond this is refused.
const MAXIMUM_DEPTH: usize = 32;
/// The most tokens of an expression: a chain of `&&` is a tree as deep as it is long.
const MAXIMUM_TOKENS: usize = 500;

impl Filter {
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let failed = |reason: String| format!("access log filter {source:?}: {reason}");
        let mut parser = Parser { tokens: tokens(source).map_err(failed)?, at: 0, depth: 0 };
        let expression = parser.or().map_err(failed)?;
        if parser.at < parser.tokens.len() {
            return Err(failed("there is something after the expression".to_owned()));
        }
        Ok(Self(expression))
    }

    pub(crate) fn matches(&self, view: View<'_>) -> bool {
        self.0.value(view) == Value::Boolean(true)
    }

    /// The headers that will be needed.
    pub(crate) fn captures(&self, request: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
        self.0.captures(request, response);
    }
}

impl Expression {
    fn captures(&self, request: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
        match self {
            Self::And(a, b) | Self::Or(a, b) | Self::Compare(a, _, b) => {
                a.captures(request, response);
                b.captures(request, response);
            }
            Self::Not(inner)
            | Self::StartsWith(inner, _)
            | Self::EndsWith(inner, _)
            | Self::Contains(inner, _)
            | Self::Matches(inner, _) => inner.captures(request, response),
            Self::HasHeader(name) => request.push(name.clone()),
            Self::Attribute(attribute) | Self::Has(attribute) => match attribute {
                Attribute::RequestHeader(name) => request.push(name.clone()),
                Attribute::ResponseHeader(name) => response.push(name.clone()),
                _ => {}
            },
            Self::Literal(_) => {}
        }
    }

    fn value(&self, view: View<'_>) -> Value {
        let truth = |expression: &Self| expression.value(view) == Value::Boolean(true);
        let text = |expression: &Self, test: &dyn Fn(&str) -> bool| match expression.value(view) {
            Value::Text(text) => Value::Boolean(test(&text)),
            _ => Value::Absent,
        };
        match self {
            Self::And(a, b) => Value::Boolean(truth(a) && truth(b)),
            Self::Or(a, b) => Value::Boolean(truth(a) || truth(b)),
            Self::Not(inner) => match inner.value(view) {
                Value::Boolean(value) => Value::Boolean(!value),
                _ => Value::Absent,
            },
            Self::Compare(a, comparison, b) => comparison.apply(&a.value(view), &b.value(view)),
            Self::StartsWith(inner, part) => text(inner, &|value| value.starts_with(part.as_str())),
            Self::EndsWith(inner, part) => text(inner, &|value| value.ends_with(part.as_str())),
            Self::Contains(inner, part) => text(inner, &|value| value.contains(part.as_str())),
            Self::Matches(inner, regex) => text(inner, &|value| regex.is_match(value)),
            Self::HasHeader(name) => Value::Boolean(view.request_header(name).is_some()),
            Self::Has(attribute) => Value::Boolean(attribute.value(view) != Value::Absent),
            Self::Literal(value) => value.clone(),
            Self::Attribute(attribute) => attribute.value(view),
        }
    }
}

impl Comparison {
    fn apply(self, a: &Value, b: &Value) -> Value {
        // CEL's errors (an absent attribute, unlike types) make a filter not match.
        let ordering = match (a, b) {
            (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            _ => return Value::Absent,
        };
        Value::Boolean(match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        })
    }
}

impl Attribute {
    fn parse(path: &str, key: Option<&str>) -> Result<Self, String> {
        let header = |name: &str| header_name(name).map_err(|error| error.to_string());
        Ok(match (path, key) {
            ("request.headers", Some(name)) => Self::RequestHeader(header(name)?),
            ("response.headers", Some(name)) => Self::ResponseHeader(header(name)?),
            ("request.method", None) => Self::Method,
            ("request.path", None) => Self::Path,
            ("request.url_path", None) => Self::UrlPath,
            ("request.host", None) => Self::Host,
            ("request.protocol", None) => Self::Protocol,
            ("request.duration", None) => Self::RequestDuration,
            ("request.size", None) => Self::RequestSize,
            ("request.useragent", None) => Self::RequestHeader(http::header::USER_AGENT),
            ("response.code", None) => Self::ResponseCode,
            ("response.flags", None) => Self::ResponseFlags,
            ("response.code_details", None) => Self::ResponseDetails,
            ("response.grpc_status", None) => Self::ResponseGrpcStatus,
            ("response.size", None) => Self::ResponseSize,
            ("connection.mtls", None) => Self::Mtls,
            ("connection.requested_server_name", None) => Self::ServerName,
            ("connection.uri_san_peer_certificate" | "source.principal", None) => Self::SourcePrincipal,
            ("source.address", None) => Self::SourceAddress,
            ("destination.address", None) => Self::DestinationAddress,
            ("destination.port", None) => Self::DestinationPort,
            ("upstream.address", None) => Self::UpstreamAddress,
            ("xds.route_name", None) => Self::RouteName,
            ("xds.cluster_name", None) => Self::ClusterName,
            (path, _) => return Err(format!("attribute {path:?} is not supported here")),
        })
    }

    fn value(&self, view: View<'_>) -> Value {
        let info = view.info;
        let http = info.http.as_ref();
        let text = |value: Option<&str>| value.map_or(Value::Absent, |value| Value::Text(value.to_owned()));
        let header = |value: Option<&http::HeaderValue>| {
            value.map_or(Value::Absent, |value| Value::Text(String::from_utf8_lossy(value.as_bytes()).into_owned()))
        };
        let integer = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        match self {
            Self::Method => text(http.map(|http| http.method.as_str())),
            Self::Path => text(http.map(|http| http.path.as_str())),
            Self::UrlPath => text(http.and_then(|http| http.path.split('?').next())),
            Self::Host => text(http.map(|http| http.authority.as_str())),
            Self::Protocol => text(http.map(|http| super::format::protocol_name(http.version))),
            Self::RequestHeader(name) => header(view.request_header(name)),
            Self::RequestDuration => integer(info.started.elapsed().as_millis() as u64),
            Self::RequestSize => integer(info.bytes_received),
            Self::ResponseCode => integer(u64::from(info.status)),
            Self::ResponseFlags => integer(info.flags.bits()),
            Self::ResponseDetails => text((!info.details.is_empty()).then_some(&*info.details)),
            Self::ResponseGrpcStatus => info.grpc_status.map_or(Value::Absent, |status| integer(u64::from(status))),
            Self::ResponseHeader(name) => header(view.response_header(name)),
            Self::ResponseSize => integer(info.bytes_sent),
            Self::Mtls => Value::Boolean(info.connection.is_mutual_tls()),
            Self::ServerName => text(info.connection.server_name.as_deref()),
            Self::SourcePrincipal => text(info.connection.peer_identity()),
            Self::SourceAddress => text(Some(&info.connection.peer_text)),
            Self::DestinationAddress => text(Some(&info.connection.local_text)),
            Self::DestinationPort => integer(u64::from(info.connection.local.port())),
            Self::UpstreamAddress => text(info.host.as_ref().map(|host| host.address_text.as_str())),
            Self::RouteName => text(info.route.as_ref().map(|route| route.name.as_str())),
            Self::ClusterName => text(info.cluster.as_ref().map(|cluster| &*cluster.name)),
        }
    }
}

const SYMBOLS: [&str; 16] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ".", ",", "-"];

fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '"' || first == '\'' {
            let end = rest[1..].find(first).ok_or("a string is not closed")?;
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            rest = &rest[end + 2..];
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            tokens.push(Token::Integer(rest[..end].parse().map_err(|_| "a number is too large")?));
            rest = &rest[end..];
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            return Err(format!("{first:?} is not understood"));
        }
        rest = rest.trim_start();
        if tokens.len() > MAXIMUM_TOKENS {
            return Err(format!("it is longer than {MAXIMUM_TOKENS} words and signs"));
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Symbol(found)) if *found == symbol);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, symbol: &str) -> Result<(), String> {
        if self.take(symbol) { Ok(()) } else { Err(format!("{symbol:?} is missing")) }
    }

    fn or(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > MAXIMUM_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let mut left = self.and()?;
        while self.take("||") {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut left = self.comparison()?;
        while self.take("&&") {
            left = Expression::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        let left = self.unary()?;
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (symbol, comparison) in comparisons {
            if self.take(symbol) {
                return Ok(Expression::Compare(Box::new(left), comparison, Box::new(self.unary()?)));
            }
        }
        if self.tokens.get(self.at) == Some(&Token::Name("in".to_owned())) {
            self.at += 1;
            let Expression::Literal(Value::Text(name)) = left else {
                return Err("only a header name can be in a map".to_owned());
            };
            let path = self.path()?;
            if path != "request.headers" {
                return Err(format!("{path:?} is not a map that is supported here"));
            }
            return Ok(Expression::HasHeader(header_name(&name).map_err(|error| error.to_string())?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, String> {
        if self.take("!") {
            self.depth += 1;
            if self.depth > MAXIMUM_DEPTH {
                return Err("it is nested too deeply".to_owned());
            }
            let inner = self.unary()?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if self.take("-") {
            return match self.tokens.get(self.at) {
                Some(Token::Integer(number)) => {
                    let number = -*number;
                    self.at += 1;
                    Ok(Expression::Literal(Value::Integer(number)))
                }
                _ => Err("a number is missing after \"-\"".to_owned()),
            };
        }
        if self.take("(") {
            let inner = self.or()?;
            self.need(")")?;
            return Ok(inner);
        }
        match self.tokens.get(self.at).cloned() {
            Some(Token::Integer(number)) => {
                self.at += 1;
                Ok(Expression::Literal(Value::Integer(number)))
            }
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(Expression::Literal(Value::Text(text)))
            }
            Some(Token::Name(name)) if name == "true" || name == "false" => {
                self.at += 1;
                Ok(Expression::Literal(Value::Boolean(name == "true")))
            }
            Some(Token::Name(name)) if name == "has" => {
                self.at += 1;
                self.need("(")?;
                let path = self.path()?;
                self.need(")")?;
                Ok(Expression::Has(Attribute::parse(&path, None)?))
            }
            Some(Token::Name(_)) => self.attribute(),
            _ => Err("a value is missing".to_owned()),
        }
    }

    fn path(&mut self) -> Result<String, String> {
        let mut path = String::new();
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Name(name)) => path.push_str(name),
                _ => return Err("a name is missing".to_owned()),
            }
            self.at += 1;
            if !self.take(".") {
                return Ok(path);
            }
            path.push('.');
        }
    }

    fn attribute(&mut self) -> Result<Expression, String> {
        let path = self.path()?;
        if self.take("(") {
            let (path, method) = path.rsplit_once('.').ok_or_else(|| format!("function {path:?} is not supported here"))?;
            return self.method(Expression::Attribute(Attribute::parse(path, None)?), method);
        }
        if !self.take("[") {
            return Attribute::parse(&path, None).map(Expression::Attribute);
        }
        let Some(Token::Text(key)) = self.tokens.get(self.at).cloned() else { return Err("a key is missing".to_owned()) };
        self.at += 1;
        self.need("]")?;
        let attribute = Expression::Attribute(Attribute::parse(&path, Some(&key))?);
        if self.take(".") {
            let method = self.path()?;
            self.need("(")?;
            return self.method(attribute, &method);
        }
        Ok(attribute)
    }

    fn method(&mut self, receiver: Expression, method: &str) -> Result<Expression, String> {
        let Some(Token::Text(argument)) = self.tokens.get(self.at).cloned() else {
            return Err(format!("{method}() needs a string"));
        };
        self.at += 1;
        self.need(")")?;
        let receiver = Box::new(receiver);
        match method {
            "startsWith" => Ok(Expression::StartsWith(receiver, argument)),
            "endsWith" => Ok(Expression::EndsWith(receiver, argument)),
            "contains" => Ok(Expression::Contains(receiver, argument)),
            "matches" => Ok(Expression::Matches(receiver, partial_regex(&argument).map_err(|error| error.to_string())?)),
            other => Err(format!("function {other:?} is not supported here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_supported_compiles_and_what_is_not_says_so() {
        for good in [
            "response.code >= 400",
            "response.code >= 500 && request.url_path != '/healthz' || !connection.mtls",
            "request.headers['x-a'] == 'b' || 'x-b' in request.headers",
            "request.url_path.startsWith(\"/api\")",
            "has(response.code)",
        ] {
            assert!(Filter::new(good).is_ok(), "{good}: {:?}", Filter::new(good));
        }
        let long = "connection.mtls && ".repeat(100_000) + "connection.mtls";
        assert!(Filter::new(&long).is_err(), "evaluating it would go as deep as it is long");
        for bad in
            ["", "response.code >", "size(request.headers) > 1", "a.b.c == 1", "'open", "(response.code == 1", &"(".repeat(100)]
        {
            assert!(Filter::new(bad).is_err(), "{bad}");
        }
    }
}

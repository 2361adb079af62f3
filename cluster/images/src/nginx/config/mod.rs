//! The meaning of a configuration: servers, locations, and what each says.

mod arguments;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hyper::header::{HeaderName, HeaderValue};
use meshlab_program::FileSystem;
use regex::{Regex, RegexBuilder};

use super::syntax::{self, Directive};
use super::variables;
use arguments::{duration, error_page, flag, listen, one, proxy_pass, return_action, rewrite, server_name, size};

/// What is wrong with a configuration, in nginx' form: `message in file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(message: impl fmt::Display, file: &str, line: usize) -> Self {
        Self(format!("{message} in {file}:{line}"))
    }

    pub(super) fn plain(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that is served.
pub(super) struct Config {
    pub(super) servers: Vec<Server>,
    pub(super) dump: String,
}

/// What directives may name that is said elsewhere.
#[derive(Default)]
struct Known {
    /// The address of each `upstream`.
    upstreams: BTreeMap<String, String>,
    /// Variables that regular expressions set: the names of their groups.
    captures: BTreeSet<String>,
}

/// The names of all groups of regular expressions of locations and rewrites.
fn captures(block: &[Directive]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for directive in block {
        let pattern = match (directive.name.as_str(), directive.arguments.as_slice()) {
            ("location", [modifier, pattern]) if modifier.starts_with('~') => Some(pattern),
            ("rewrite", [pattern, ..]) => Some(pattern),
            _ => None,
        };
        if let Some(regex) = pattern.and_then(|pattern| Regex::new(pattern).ok()) {
            names.extend(regex.capture_names().flatten().map(str::to_owned));
        }
        names.extend(directive.block.iter().flat_map(|block| captures(block)));
    }
    names
}

/// A `server` block.
pub(super) struct Server {
    /// Port, and whether this is the default server there.
    pub(super) listen: Vec<(u16, bool)>,
    pub(super) names: Vec<ServerName>,
    pub(super) settings: Settings,
    pub(super) locations: Vec<Location>,
}

pub(super) enum ServerName {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(String),
    /// `example.*`, kept as `example.`.
    Prefix(String),
    Regex(Regex),
}

/// A `location` block.
pub(super) struct Location {
    pub(super) matcher: Matcher,
    pub(super) settings: Settings,
}

pub(super) enum Matcher {
    Exact(String),
    /// The flag: `^~`, which keeps regular expressions from being looked at.
    Prefix(String, bool),
    Regex(Regex),
    /// `@name`, for `try_files` and `error_page`.
    Named(String),
}

/// What blocks inherit from those around them.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) root: String,
    pub(super) alias: Option<String>,
    pub(super) index: Vec<String>,
    pub(super) autoindex: bool,
    pub(super) default_type: String,
    pub(super) types: BTreeMap<String, String>,
    pub(super) headers: Vec<AddedHeader>,
    pub(super) error_pages: Vec<ErrorPage>,
    pub(super) access_log: bool,
    pub(super) server_tokens: bool,
    pub(super) proxy_headers: Vec<(String, String)>,
    pub(super) proxy_timeout: std::time::Duration,
    pub(super) client_max_body: u64,
    // These belong to one block alone.
    pub(super) action: Option<Action>,
    pub(super) try_files: Option<Vec<String>>,
    pub(super) rewrites: Vec<Rewrite>,
}

#[derive(Clone)]
pub(super) struct AddedHeader {
    pub(super) name: HeaderName,
    pub(super) value: String,
    pub(super) always: bool,
}

#[derive(Clone)]
pub(super) struct ErrorPage {
    pub(super) codes: Vec<u16>,
    /// `=200`: the status that is sent instead.
    pub(super) status: Option<u16>,
    pub(super) to: String,
}

#[derive(Clone)]
pub(super) enum Action {
    Return { status: u16, text: Option<String> },
    Proxy(Upstream),
}

/// `rewrite REGEX REPLACEMENT [FLAG]`.
#[derive(Clone)]
pub(super) struct Rewrite {
    pub(super) regex: Regex,
    pub(super) replacement: String,
    pub(super) flag: RewriteFlag,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RewriteFlag {
    Last,
    Break,
    Redirect(u16),
}

/// Where `proxy_pass` leads.
#[derive(Clone)]
pub(super) struct Upstream {
    /// Host and port as written; may have variables.
    pub(super) authority: String,
    /// What replaces the part of the path that the location matched.
    pub(super) path: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/etc/nginx/html".to_owned(),
            alias: None,
            index: vec!["index.html".to_owned()],
            autoindex: false,
            default_type: "text/plain".to_owned(),
            types: BTreeMap::new(),
            headers: Vec::new(),
            error_pages: Vec::new(),
            access_log: true,
            server_tokens: true,
            proxy_headers: Vec::new(),
            proxy_timeout: std::time::Duration::from_secs(60),
            client_max_body: 1 << 20,
            action: None,
            try_files: None,
            rewrites: Vec::new(),
        }
    }
}

/// Directives that say how nginx uses its machine, and mean nothing here.
const IGNORED: &[&str] = &[
    "user",
    "worker_processes",
    "worker_connections",
    "worker_rlimit_nofile",
    "pid",
    "daemon",
    "error_log",
    "sendfile",
    "tcp_nopush",
    "tcp_nodelay",
    "keepalive_timeout",
    "keepalive_requests",
    "gzip",
    "gzip_types",
    "gzip_vary",
    "gzip_min_length",
    "gzip_proxied",
    "gzip_comp_level",
    "log_format",
    "types_hash_max_size",
    "server_names_hash_bucket_size",
    "charset",
    "proxy_http_version",
    "proxy_buffering",
    "proxy_redirect",
    "proxy_connect_timeout",
    "proxy_send_timeout",
    "proxy_buffers",
    "proxy_buffer_size",
    "client_body_timeout",
    "client_header_timeout",
    "send_timeout",
    "multi_accept",
    "use",
    "etag",
    "expires",
    "port_in_redirect",
    "absolute_redirect",
    "log_not_found",
    "reset_timedout_connection",
    "master_process",
];

/// Directives in whose arguments variables are replaced by their values.
const TAKE_VARIABLES: &[&str] =
    &["root", "alias", "index", "try_files", "return", "rewrite", "add_header", "proxy_pass", "proxy_set_header", "error_page"];

/// A block's names for its kind, for "is not allowed here".
const KNOWN: &[&str] = &[
    "http",
    "server",
    "location",
    "events",
    "types",
    "upstream",
    "listen",
    "server_name",
    "root",
    "alias",
    "index",
    "try_files",
    "return",
    "add_header",
    "proxy_pass",
    "proxy_set_header",
    "default_type",
    "access_log",
    "error_page",
    "autoindex",
    "rewrite",
    "server_tokens",
    "proxy_read_timeout",
    "client_max_body_size",
    "internal",
];

fn unknown(directive: &Directive) -> ConfigError {
    let name = &directive.name;
    match KNOWN.contains(&name.as_str()) {
        true => directive.error(format!("\"{name}\" directive is not allowed here")),
        false => directive.error(format!("unknown directive \"{name}\"")),
    }
}

/// Checks directives that stand outside of any block.
pub(super) fn check_main(directives: &[Directive]) -> Result<(), ConfigError> {
    directives.iter().find(|directive| !IGNORED.contains(&directive.name.as_str())).map_or(Ok(()), |wrong| Err(unknown(wrong)))
}

impl Config {
    /// Reads a configuration file and all that it includes.
    pub(super) fn load(fs: &FileSystem, path: &str) -> Result<Self, ConfigError> {
        let source = syntax::read(fs, path)?;
        let mut config = Self { servers: Vec::new(), dump: source.dump };
        for directive in &source.directives {
            match (directive.name.as_str(), &directive.block) {
                ("events", Some(block)) => check_main(block)?,
                ("http", Some(block)) => config.http(block)?,
                _ => check_main(std::slice::from_ref(directive))?,
            }
        }
        Ok(config)
    }

    fn http(&mut self, block: &[Directive]) -> Result<(), ConfigError> {
        let mut settings = Settings::default();
        // `upstream` may stand behind the server that names it, and the settings behind the servers that inherit them.
        let mut known = Known { captures: captures(block), ..Known::default() };
        for directive in block {
            match (directive.name.as_str(), &directive.block) {
                ("server", Some(_)) => {}
                ("upstream", Some(servers)) => {
                    let name = one(directive)?.to_owned();
                    let server = servers.iter().find(|server| server.name == "server");
                    let server = server.ok_or_else(|| directive.error(format!("no servers are inside upstream \"{name}\"")))?;
                    if servers.iter().filter(|server| server.name == "server").count() > 1 {
                        return Err(
                            directive.error("an upstream with several servers is not supported here; a Service balances instead")
                        );
                    }
                    let address = server
                        .arguments
                        .first()
                        .ok_or_else(|| server.error("invalid number of arguments in \"server\" directive"))?;
                    known.upstreams.insert(name, address.clone());
                }
                _ => settings.take(directive, &known)?,
            }
        }
        for directive in block.iter().filter(|directive| directive.name == "server") {
            let Some(block) = &directive.block else { return Err(directive.error("directive \"server\" has no opening \"{\"")) };
            self.servers.push(Server::new(block, &settings, &known)?);
        }
        Ok(())
    }

    /// The ports that are listened on, each once.
    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.servers.iter().flat_map(|server| server.listen.iter().map(|(port, _)| *port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The server for a host at a port: <https://nginx.org/en/docs/http/request_processing.html>.
    pub(super) fn server(&self, port: u16, host: &str) -> Option<&Server> {
        let here = || self.servers.iter().filter(|server| server.listen.iter().any(|(listen, _)| *listen == port));
        let by = |matches: &dyn Fn(&ServerName) -> bool| here().find(|server| server.names.iter().any(matches));
        by(&|name| matches!(name, ServerName::Exact(exact) if exact == host))
            .or_else(|| by(&|name| matches!(name, ServerName::Suffix(suffix) if host.ends_with(suffix))))
            .or_else(|| by(&|name| matches!(name, ServerName::Prefix(prefix) if host.starts_with(prefix))))
            .or_else(|| by(&|name| matches!(name, ServerName::Regex(regex) if regex.is_match(host))))
            .or_else(|| here().find(|server| server.listen.contains(&(port, true))))
            .or_else(|| here().next())
    }
}

impl Server {
    fn new(block: &[Directive], inherited: &Settings, known: &Known) -> Result<Self, ConfigError> {
        let mut server = Self { listen: Vec::new(), names: Vec::new(), settings: inherited.clone(), locations: Vec::new() };
        let mut own = OwnLists::default();
        for directive in block {
            match directive.name.as_str() {
                "listen" => {
                    if let Some(listen) = listen(directive)? {
                        server.listen.push(listen);
                    }
                }
                "server_name" => {
                    for name in &directive.arguments {
                        server.names.push(server_name(name, directive)?);
                    }
                }
                "location" => {}
                _ => {
                    own.start(directive, &mut server.settings);
                    server.settings.take(directive, known)?;
                }
            }
        }
        if server.listen.is_empty() {
            server.listen.push((80, false));
        }
        for directive in block.iter().filter(|directive| directive.name == "location") {
            server.location(directive, known)?;
        }
        Ok(server)
    }

    fn location(&mut self, directive: &Directive, known: &Known) -> Result<(), ConfigError> {
        let Some(block) = &directive.block else { return Err(directive.error("directive \"location\" has no opening \"{\"")) };
        let regex = |pattern: &str, ignore_case: bool| {
            let regex = RegexBuilder::new(pattern).case_insensitive(ignore_case).build();
            regex.map_err(|_| directive.error(format!("invalid regular expression \"{pattern}\"")))
        };
        let words: Vec<&str> = directive.arguments.iter().map(String::as_str).collect();
        let matcher = match words[..] {
            ["=", path] => Matcher::Exact(path.to_owned()),
            ["^~", path] => Matcher::Prefix(path.to_owned(), true),
            ["~", pattern] => Matcher::Regex(regex(pattern, false)?),
            ["~*", pattern] => Matcher::Regex(regex(pattern, true)?),
            [name] if name.starts_with('@') => Matcher::Named(name.to_owned()),
            [path] => Matcher::Prefix(path.to_owned(), false),
            [modifier, _] => return Err(directive.error(format!("invalid location modifier \"{modifier}\""))),
            _ => return Err(directive.error("invalid number of arguments in \"location\" directive")),
        };
        let mut settings = Settings { action: None, try_files: None, rewrites: Vec::new(), alias: None, ..self.settings.clone() };
        let mut own = OwnLists::default();
        for inner in block {
            if inner.name == "location" {
                return Err(inner.error("nested locations are not supported here"));
            }
            if inner.name == "internal" {
                continue;
            }
            own.start(inner, &mut settings);
            settings.take(inner, known)?;
        }
        if let (Matcher::Regex(_) | Matcher::Named(_), Some(Action::Proxy(Upstream { path: Some(_), .. }))) =
            (&matcher, &settings.action)
        {
            let message = "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location";
            return Err(directive.error(message));
        }
        let duplicate = self.locations.iter().any(|other| match (&other.matcher, &matcher) {
            (Matcher::Exact(left), Matcher::Exact(right)) | (Matcher::Prefix(left, _), Matcher::Prefix(right, _)) => {
                left == right
            }
            _ => false,
        });
        if duplicate {
            return Err(directive.error(format!("duplicate location \"{}\"", words.last().unwrap_or(&""))));
        }
        self.locations.push(Location { matcher, settings });
        Ok(())
    }
}

/// Lists that a block inherits only if it has none of its own.
#[derive(Default)]
struct OwnLists {
    headers: bool,
    proxy_headers: bool,
    error_pages: bool,
}

impl OwnLists {
    fn start(&mut self, directive: &Directive, settings: &mut Settings) {
        match directive.name.as_str() {
            "add_header" if !std::mem::replace(&mut self.headers, true) => settings.headers.clear(),
            "proxy_set_header" if !std::mem::replace(&mut self.proxy_headers, true) => settings.proxy_headers.clear(),
            "error_page" if !std::mem::replace(&mut self.error_pages, true) => settings.error_pages.clear(),
            _ => {}
        }
    }
}

impl Settings {
    /// Takes a directive that may stand in `http`, `server` and `location`.
    fn take(&mut self, directive: &Directive, known: &Known) -> Result<(), ConfigError> {
        let arguments = &directive.arguments;
        let count = || directive.error(format!("invalid number of arguments in \"{}\" directive", directive.name));
        if TAKE_VARIABLES.contains(&directive.name.as_str())
            && let Some(unknown) = arguments
                .iter()
                .skip(usize::from(directive.name == "rewrite"))
                .find_map(|argument| variables::unknown(argument, &known.captures))
        {
            return Err(directive.error(format!("unknown \"{unknown}\" variable")));
        }
        match directive.name.as_str() {
            "root" => self.root = one(directive)?.to_owned(),
            "alias" => self.alias = Some(one(directive)?.to_owned()),
            "index" => self.index.clone_from(arguments),
            "autoindex" => self.autoindex = flag(directive)?,
            "default_type" => self.default_type = one(directive)?.to_owned(),
            "server_tokens" => self.server_tokens = flag(directive)?,
            "types" => {
                for entry in directive.block.iter().flatten() {
                    self.types.extend(entry.arguments.iter().map(|extension| (extension.clone(), entry.name.clone())));
                }
            }
            "access_log" => self.access_log = arguments.first().is_some_and(|target| target != "off"),
            "proxy_read_timeout" => self.proxy_timeout = duration(directive)?,
            "client_max_body_size" => self.client_max_body = size(directive)?,
            "add_header" => {
                let (Some(name), Some(value)) = (arguments.first(), arguments.get(1)) else { return Err(count()) };
                let name = name.parse().map_err(|_| directive.error(format!("invalid header name \"{name}\"")))?;
                let always = arguments.get(2).is_some_and(|word| word == "always");
                self.headers.push(AddedHeader { name, value: value.clone(), always });
            }
            "proxy_set_header" => {
                let [name, value] = &arguments[..] else { return Err(count()) };
                name.parse::<HeaderName>().map_err(|_| directive.error(format!("invalid header name \"{name}\"")))?;
                self.proxy_headers.push((name.clone(), value.clone()));
            }
            "error_page" => self.error_pages.push(error_page(directive)?),
            "try_files" if arguments.len() > 1 => self.try_files = Some(arguments.clone()),
            "try_files" => return Err(count()),
            "return" => self.action = self.action.take().or(Some(return_action(directive)?)),
            "rewrite" => self.rewrites.push(rewrite(directive)?),
            "proxy_pass" => self.action = Some(Action::Proxy(proxy_pass(directive, known)?)),
            name if IGNORED.contains(&name) => {}
            _ => return Err(unknown(directive)),
        }
        Ok(())
    }
}

/// A header's value, if the text can be one.
pub(super) fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

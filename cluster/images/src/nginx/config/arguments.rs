//! What the arguments of single directives mean.

use hyper::Uri;
use regex::Regex;

use super::{Action, ConfigError, Directive, ErrorPage, Known, Rewrite, RewriteFlag, ServerName, Upstream};

pub(super) fn one(directive: &Directive) -> Result<&str, ConfigError> {
    match &directive.arguments[..] {
        [only] => Ok(only),
        _ => Err(directive.error(format!("invalid number of arguments in \"{}\" directive", directive.name))),
    }
}

pub(super) fn flag(directive: &Directive) -> Result<bool, ConfigError> {
    match one(directive)? {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(directive
            .error(format!("invalid value \"{other}\" in \"{}\" directive, it must be \"on\" or \"off\"", directive.name))),
    }
}

pub(super) fn listen(directive: &Directive) -> Result<Option<(u16, bool)>, ConfigError> {
    let Some((address, options)) = directive.arguments.split_first() else {
        return Err(directive.error("invalid number of arguments in \"listen\" directive"));
    };
    for option in options {
        match option.as_str() {
            "default_server" | "http2" | "reuseport" => {}
            "ssl" => return Err(directive.error("\"listen … ssl\" is not supported here; in a mesh the sidecar speaks TLS")),
            other => return Err(directive.error(format!("invalid parameter \"{other}\""))),
        }
    }
    // Pods here have IPv4 addresses.
    if address.starts_with('[') {
        return Ok(None);
    }
    let port = address.rsplit(':').next().unwrap_or(address);
    let port = if address.contains('.') && !address.contains(':') { "80" } else { port };
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| directive.error(format!("invalid port in \"{address}\" of the \"listen\" directive")))?;
    Ok(Some((port, options.iter().any(|option| option == "default_server"))))
}

pub(super) fn server_name(name: &str, directive: &Directive) -> Result<ServerName, ConfigError> {
    if let Some(pattern) = name.strip_prefix('~') {
        let regex = Regex::new(pattern).map_err(|_| directive.error(format!("invalid regular expression \"{pattern}\"")))?;
        return Ok(ServerName::Regex(regex));
    }
    Ok(match (name.strip_prefix('*'), name.strip_suffix('*')) {
        (Some(suffix), _) => ServerName::Suffix(suffix.to_ascii_lowercase()),
        (_, Some(prefix)) => ServerName::Prefix(prefix.to_ascii_lowercase()),
        _ => ServerName::Exact(name.to_ascii_lowercase()),
    })
}

pub(super) fn error_page(directive: &Directive) -> Result<ErrorPage, ConfigError> {
    let (to, words) = directive
        .arguments
        .split_last()
        .ok_or_else(|| directive.error("invalid number of arguments in \"error_page\" directive"))?;
    let (mut codes, mut status) = (Vec::new(), None);
    for word in words {
        let number = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|code| (200..600).contains(code))
                .ok_or_else(|| directive.error(format!("invalid value \"{word}\"")))
        };
        match word.strip_prefix('=') {
            Some(code) => status = Some(number(code)?),
            None => codes.push(number(word)?),
        }
    }
    Ok(ErrorPage { codes, status, to: to.clone() })
}

pub(super) fn return_action(directive: &Directive) -> Result<Action, ConfigError> {
    let invalid = |code: &str| directive.error(format!("invalid return code \"{code}\""));
    let status = |code: &str| code.parse::<u16>().ok().filter(|code| (200..600).contains(code)).ok_or_else(|| invalid(code));
    match &directive.arguments[..] {
        [url] if url.starts_with("http") => Ok(Action::Return { status: 302, text: Some(url.clone()) }),
        [code] => Ok(Action::Return { status: status(code)?, text: None }),
        [code, text] => Ok(Action::Return { status: status(code)?, text: Some(text.clone()) }),
        _ => Err(directive.error("invalid number of arguments in \"return\" directive")),
    }
}

pub(super) fn rewrite(directive: &Directive) -> Result<Rewrite, ConfigError> {
    let (pattern, replacement, flag) = match &directive.arguments[..] {
        [pattern, replacement] => (pattern, replacement, "last"),
        [pattern, replacement, flag] => (pattern, replacement, flag.as_str()),
        _ => return Err(directive.error("invalid number of arguments in \"rewrite\" directive")),
    };
    let regex = Regex::new(pattern).map_err(|_| directive.error(format!("invalid regular expression \"{pattern}\"")))?;
    let flag = match flag {
        "last" => RewriteFlag::Last,
        "break" => RewriteFlag::Break,
        "redirect" => RewriteFlag::Redirect(302),
        "permanent" => RewriteFlag::Redirect(301),
        other => return Err(directive.error(format!("invalid parameter \"{other}\""))),
    };
    let absolute = replacement.starts_with("http://") || replacement.starts_with("https://");
    let flag = if absolute && !matches!(flag, RewriteFlag::Redirect(_)) { RewriteFlag::Redirect(302) } else { flag };
    Ok(Rewrite { regex, replacement: replacement.clone(), flag })
}

pub(super) fn proxy_pass(directive: &Directive, known: &Known) -> Result<Upstream, ConfigError> {
    let url = one(directive)?;
    let Some(rest) = url.strip_prefix("http://") else {
        let message =
            if url.starts_with("https://") { "\"proxy_pass\" to https is not supported here" } else { "invalid URL prefix" };
        return Err(directive.error(message));
    };
    let (authority, path) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(rest[at..].to_owned())));
    let authority = known.upstreams.get(authority).map_or(authority, String::as_str).to_owned();
    if !authority.contains('$') && format!("http://{authority}/").parse::<Uri>().is_err() {
        return Err(directive.error(format!("invalid host in upstream \"{authority}\"")));
    }
    Ok(Upstream { authority, path })
}

pub(super) fn duration(directive: &Directive) -> Result<std::time::Duration, ConfigError> {
    let text = one(directive)?;
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[at..] {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let millis = text[..at].parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    millis
        .map(std::time::Duration::from_millis)
        .ok_or_else(|| directive.error(format!("\"{}\" directive invalid value", directive.name)))
}

pub(super) fn size(directive: &Directive) -> Result<u64, ConfigError> {
    /// More than this is never kept in memory; 0 is nginx' "no limit".
    const MOST: u64 = 64 << 20;
    let text = one(directive)?.to_ascii_lowercase();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[at..] {
        "" => Some(1),
        "k" => Some(1 << 10),
        "m" => Some(1 << 20),
        "g" => Some(1 << 30),
        _ => None,
    };
    let bytes = text[..at].parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let bytes = bytes.ok_or_else(|| directive.error(format!("\"{}\" directive invalid value", directive.name)))?;
    Ok(if bytes == 0 { MOST } else { bytes.min(MOST) })
}

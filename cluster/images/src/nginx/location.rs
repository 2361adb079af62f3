//! Which location answers: <https://nginx.org/en/docs/http/ngx_http_core_module.html#location>.

use super::config::{Location, Matcher, Server};

/// The location for a path.
pub(super) fn find<'a>(server: &'a Server, path: &str) -> Option<&'a Location> {
    let exact = |location: &&Location| matches!(&location.matcher, Matcher::Exact(exact) if exact == path);
    if let Some(location) = server.locations.iter().find(exact) {
        return Some(location);
    }
    let prefix = |location: &'a Location| match &location.matcher {
        Matcher::Prefix(prefix, final_word) if path.starts_with(prefix) => Some((prefix.len(), *final_word, location)),
        _ => None,
    };
    let longest = server.locations.iter().filter_map(prefix).max_by_key(|(length, ..)| *length);
    if !matches!(longest, Some((_, true, _))) {
        let regex = |location: &&Location| matches!(&location.matcher, Matcher::Regex(regex) if regex.is_match(path));
        if let Some(location) = server.locations.iter().find(regex) {
            return Some(location);
        }
    }
    longest.map(|(.., location)| location)
}

/// A named location.
pub(super) fn named<'a>(server: &'a Server, name: &str) -> Option<&'a Location> {
    server.locations.iter().find(|location| matches!(&location.matcher, Matcher::Named(known) if known == name))
}

/// What of a path a location matched as a prefix.
pub(super) fn matched_prefix(location: &Location) -> &str {
    match &location.matcher {
        Matcher::Exact(path) | Matcher::Prefix(path, _) => path,
        Matcher::Regex(_) | Matcher::Named(_) => "",
    }
}

//! Which location answers: <https://nginx.org/en/docs/http/ngx_http_core_module.html#location>.

use super::config::{Location, Matcher, Server};

/// The location for a path, and what a regular expression's groups caught.
pub(super) fn find<'a>(server: &'a Server, path: &str) -> Option<(&'a Location, Vec<String>)> {
    let exact = |location: &&Location| matches!(&location.matcher, Matcher::Exact(exact) if exact == path);
    if let Some(location) = server.locations.iter().find(exact) {
        return Some((location, Vec::new()));
    }
    let prefix = |location: &'a Location| match &location.matcher {
        Matcher::Prefix(prefix, final_word) if path.starts_with(prefix) => Some((prefix.len(), *final_word, location)),
        _ => None,
    };
    let longest = server.locations.iter().filter_map(prefix).max_by_key(|(length, ..)| *length);
    if !matches!(longest, Some((_, true, _))) {
        for location in &server.locations {
            if let Matcher::Regex(regex) = &location.matcher
                && let Some(captures) = regex.captures(path)
            {
                let groups = captures.iter().map(|group| group.map_or("", |group| group.as_str()).to_owned());
                return Some((location, groups.collect()));
            }
        }
    }
    longest.map(|(.., location)| (location, Vec::new()))
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

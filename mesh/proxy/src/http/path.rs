//! Path normalization: what a policy sees is what the upstream gets.

use std::borrow::Cow;

use meshlab_proxy_config::PathNormalization;

/// The path cannot be normalized; Envoy answers 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path_normalization_failed")]
pub(crate) struct BadPath;

/// Normalizes path and query; the query stays as it is.
pub(crate) fn normalize(path_and_query: &str, how: PathNormalization) -> Result<Cow<'_, str>, BadPath> {
    if how == PathNormalization::None || path_and_query.is_empty() {
        return Ok(Cow::Borrowed(path_and_query));
    }
    let (path, query) = match path_and_query.find(['?', '#']) {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    if !path.starts_with('/') {
        return Err(BadPath);
    }
    if is_normal(path, how) {
        return Ok(Cow::Borrowed(path_and_query));
    }
    let mut path = decode_unreserved(path)?;
    if how == PathNormalization::DecodeAndMergeSlashes {
        for (encoded, decoded) in [("%2F", "/"), ("%2f", "/"), ("%5C", "/"), ("%5c", "/")] {
            path = path.replace(encoded, decoded);
        }
    }
    path = remove_dot_segments(&path.replace('\\', "/"));
    if how != PathNormalization::Base {
        while path.contains("//") {
            path = path.replace("//", "/");
        }
    }
    Ok(Cow::Owned(format!("{path}{query}")))
}

/// Most paths need nothing done.
fn is_normal(path: &str, how: PathNormalization) -> bool {
    let dotted = path.contains("/.") || path.contains('\\') || path.contains('%');
    let slashes = how != PathNormalization::Base && path.contains("//");
    !dotted && !slashes
}

/// RFC 3986 section 6.2.2.2: encoded letters, digits, `-`, `.`, `_` and `~` are the same as plain ones.
fn decode_unreserved(path: &str) -> Result<String, BadPath> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        // A lone percent sign stays as it is; an encoded NUL is refused.
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(0) => return Err(BadPath),
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            Some(_) => {
                out.push(b'%');
                out.extend_from_slice(&tail[..2]);
                rest = &tail[2..];
            }
            None => out.push(b'%'),
        }
    }
    String::from_utf8(out).map_err(|_| BadPath)
}

/// RFC 3986 section 5.2.4. Empty segments count as segments: `/a//../b` is `/a/b`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            "." if index == last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if index == last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_level_does_what_istio_says_it_does() {
        let cases = [
            ("/a/./b/../c?x=/../y", PathNormalization::Base, "/a/c?x=/../y"),
            ("/a/../../b", PathNormalization::Base, "/b"),
            ("/a//b", PathNormalization::Base, "/a//b"),
            ("/a//b", PathNormalization::MergeSlashes, "/a/b"),
            ("/a%2Fb", PathNormalization::MergeSlashes, "/a%2Fb"),
            ("/a%2fb", PathNormalization::DecodeAndMergeSlashes, "/a/b"),
            ("/a\\b", PathNormalization::Base, "/a/b"),
            ("/%61dmin", PathNormalization::Base, "/admin"),
            ("/a%2e%2e/b", PathNormalization::Base, "/a../b"),
            ("/a/%2e%2e/b", PathNormalization::Base, "/b"),
            ("/a/%2e%2e/b", PathNormalization::None, "/a/%2e%2e/b"),
        ];
        for (path, how, wanted) in cases {
            assert_eq!(normalize(path, how).unwrap(), wanted, "{path} {how:?}");
        }
        assert_eq!(normalize("/a%00b", PathNormalization::Base), Err(BadPath));
    }

    proptest! {
        #[test]
        fn what_is_normal_stays(path in "/[a-z./%\\\\2fFeE]{0,20}") {
            if let Ok(once) = normalize(&path, PathNormalization::DecodeAndMergeSlashes) {
                prop_assert!(!once.contains("/../"), "{once}");
                prop_assert!(!once.contains("//"), "{once}");
            }
        }
    }
}

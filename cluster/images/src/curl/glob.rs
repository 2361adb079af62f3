//! URL globbing: `{a,b}`, `[1-10]`, `[01-10:2]`, `[a-z]`.

/// Every URL that a pattern stands for, up to `most`; the error is curl's own message.
pub(super) fn expand(pattern: &str, most: usize) -> Result<Vec<String>, String> {
    let (mut urls, mut rest) = (vec![String::new()], pattern);
    while let Some(at) = rest.find(['{', '[', '\\']) {
        let (literal, from) = rest.split_at(at);
        append(&mut urls, &[literal.to_owned()], most)?;
        let bad = |what: &str| format!("{what} in URL position {}:\n{pattern}", pattern.len() - from.len() + 1);
        if let Some(escaped) = from.strip_prefix('\\') {
            let c = escaped.chars().next().map(String::from).unwrap_or_default();
            rest = &escaped[c.len()..];
            append(&mut urls, &[c], most)?;
            continue;
        }
        if let Some(inner) = from.strip_prefix('{') {
            let (list, after) = inner.split_once('}').ok_or_else(|| bad("unmatched brace"))?;
            append(&mut urls, &list.split(',').map(str::to_owned).collect::<Vec<_>>(), most)?;
            rest = after;
            continue;
        }
        let (range, after) = from[1..].split_once(']').ok_or_else(|| bad("bad range"))?;
        // `http://[::1]/` is an address.
        if range.contains("::") {
            append(&mut urls, &[format!("[{range}]")], most)?;
        } else {
            append(&mut urls, &members(range, most).ok_or_else(|| bad("bad range"))?, most)?;
        }
        rest = after;
    }
    append(&mut urls, &[rest.to_owned()], most)?;
    Ok(urls)
}

fn append(urls: &mut Vec<String>, parts: &[String], most: usize) -> Result<(), String> {
    if urls.len().saturating_mul(parts.len()) > most {
        return Err(format!("too many URLs: more than {most}"));
    }
    *urls = urls.iter().flat_map(|url| parts.iter().map(move |part| format!("{url}{part}"))).collect();
    Ok(())
}

fn members(range: &str, most: usize) -> Option<Vec<String>> {
    let (range, step) = range.split_once(':').map_or(Some((range, 1)), |(range, step)| Some((range, step.parse().ok()?)))?;
    let (from, to) = range.split_once('-')?;
    if step == 0 {
        return None;
    }
    if let (Ok(first), Ok(last)) = (from.parse::<u64>(), to.parse::<u64>()) {
        // `[001-100]` keeps its zeros.
        let width = if from.starts_with('0') { from.len() } else { 0 };
        return (first <= last)
            .then(|| (first..=last).step_by(step).take(most + 1).map(|number| format!("{number:0width$}")).collect());
    }
    let (mut from, mut to) = (from.chars(), to.chars());
    match (from.next(), from.next(), to.next(), to.next()) {
        (Some(first), None, Some(last), None) if first.is_ascii_alphabetic() && last.is_ascii_alphabetic() && first <= last => {
            Some((first..=last).step_by(step).map(String::from).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_expand() {
        assert_eq!(
            expand("http://a/{x,y}/[1-3:2]", 10).unwrap(),
            ["http://a/x/1", "http://a/x/3", "http://a/y/1", "http://a/y/3"]
        );
        assert_eq!(expand("http://a/[08-10]", 10).unwrap(), ["http://a/08", "http://a/09", "http://a/10"]);
        assert_eq!(expand("http://[::1]:80/[a-b]", 10).unwrap(), ["http://[::1]:80/a", "http://[::1]:80/b"]);
        assert_eq!(expand(r"http://a/\{x\}", 10).unwrap(), ["http://a/{x}"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!(expand("http://a/[1-", 10).unwrap_err(), "bad range in URL position 10:\nhttp://a/[1-");
        assert_eq!(expand("http://a/{x", 10).unwrap_err(), "unmatched brace in URL position 10:\nhttp://a/{x");
        assert!(expand("http://a/[1-99999999999]", 10).is_err());
    }
}

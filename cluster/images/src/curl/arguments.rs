//! The command line.

use std::time::Duration;

/// A piece of the request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Text(String),
    Json(String),
    /// Field name (or empty) and a text to be percent-encoded.
    Encoded(String, String),
    File {
        name: String,
        keep_lines: bool,
        encoded: Option<String>,
    },
}

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub(super) urls: Vec<String>,
    /// `-o`, one for each URL; the name `-O` stands for the URL's last part.
    pub(super) outputs: Vec<String>,
    pub(super) silent: bool,
    pub(super) show_error: bool,
    pub(super) include: bool,
    pub(super) head: bool,
    pub(super) verbose: bool,
    pub(super) fail: bool,
    pub(super) fail_with_body: bool,
    pub(super) location: bool,
    pub(super) max_redirects: usize,
    pub(super) method: Option<String>,
    pub(super) headers: Vec<String>,
    pub(super) data: Vec<Data>,
    pub(super) get: bool,
    pub(super) json: bool,
    pub(super) upload: Option<String>,
    pub(super) dump_header: Option<String>,
    pub(super) write_out: Option<String>,
    pub(super) user: Option<String>,
    pub(super) bearer: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) referer: Option<String>,
    pub(super) cookies: Vec<String>,
    pub(super) cookie_file: Option<String>,
    pub(super) cookie_jar: Option<String>,
    pub(super) compressed: bool,
    pub(super) insecure: bool,
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) tls12: bool,
    pub(super) tls13: bool,
    pub(super) http2: bool,
    pub(super) http2_prior_knowledge: bool,
    pub(super) http11: bool,
    pub(super) resolve: Vec<String>,
    pub(super) connect_to: Vec<String>,
    pub(super) max_time: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) retry: u32,
    pub(super) retry_delay: Option<Duration>,
    pub(super) retry_connrefused: bool,
    pub(super) retry_all_errors: bool,
    pub(super) globoff: bool,
    pub(super) version: bool,
    pub(super) help: bool,
}

/// Short form (or a space), long form, whether a value follows, and what it does.
type Flag = (char, &'static str, bool, fn(&mut Arguments, String) -> Result<(), String>);

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a proper numerical parameter: {text}");
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(wrong)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected a proper numerical parameter: {text}"))
}

macro_rules! set {
    ($field:ident) => {
        |arguments, _| {
            arguments.$field = true;
            Ok(())
        }
    };
    ($field:ident = text) => {
        |arguments, value| {
            arguments.$field = Some(value);
            Ok(())
        }
    };
    ($field:ident += text) => {
        |arguments, value| {
            arguments.$field.push(value);
            Ok(())
        }
    };
    ($field:ident = seconds) => {
        |arguments, value| {
            arguments.$field = Some(seconds(&value)?);
            Ok(())
        }
    };
}

const FLAGS: &[Flag] = &[
    ('s', "silent", false, set!(silent)),
    ('S', "show-error", false, set!(show_error)),
    ('i', "include", false, set!(include)),
    (' ', "show-headers", false, set!(include)),
    ('I', "head", false, set!(head)),
    ('v', "verbose", false, set!(verbose)),
    ('f', "fail", false, set!(fail)),
    (' ', "fail-with-body", false, set!(fail_with_body)),
    ('L', "location", false, set!(location)),
    (' ', "max-redirs", true, |arguments, value| {
        arguments.max_redirects = number::<i64>(&value)?.try_into().unwrap_or(usize::MAX);
        Ok(())
    }),
    ('X', "request", true, set!(method = text)),
    ('H', "header", true, set!(headers += text)),
    ('d', "data", true, |arguments, value| {
        arguments.data.push(file_or_text(value, false));
        Ok(())
    }),
    (' ', "data-ascii", true, |arguments, value| {
        arguments.data.push(file_or_text(value, false));
        Ok(())
    }),
    (' ', "data-binary", true, |arguments, value| {
        arguments.data.push(file_or_text(value, true));
        Ok(())
    }),
    (' ', "data-raw", true, |arguments, value| {
        arguments.data.push(Data::Text(value));
        Ok(())
    }),
    (' ', "data-urlencode", true, |arguments, value| {
        arguments.data.push(url_encoded(&value));
        Ok(())
    }),
    (' ', "json", true, |arguments, value| {
        arguments.json = true;
        arguments.data.push(match file_or_text(value, true) {
            Data::Text(text) => Data::Json(text),
            file => file,
        });
        Ok(())
    }),
    ('G', "get", false, set!(get)),
    ('T', "upload-file", true, set!(upload = text)),
    ('o', "output", true, set!(outputs += text)),
    ('O', "remote-name", false, |arguments, _| {
        arguments.outputs.push("-O".to_owned());
        Ok(())
    }),
    ('D', "dump-header", true, set!(dump_header = text)),
    ('w', "write-out", true, set!(write_out = text)),
    ('u', "user", true, set!(user = text)),
    (' ', "oauth2-bearer", true, set!(bearer = text)),
    (' ', "basic", false, |_, _| Ok(())),
    ('A', "user-agent", true, set!(user_agent = text)),
    ('e', "referer", true, set!(referer = text)),
    ('b', "cookie", true, |arguments, value| {
        if value.contains('=') {
            arguments.cookies.push(value)
        } else {
            arguments.cookie_file = Some(value)
        }
        Ok(())
    }),
    ('c', "cookie-jar", true, set!(cookie_jar = text)),
    (' ', "compressed", false, set!(compressed)),
    ('k', "insecure", false, set!(insecure)),
    (' ', "cacert", true, set!(ca = text)),
    ('E', "cert", true, set!(certificate = text)),
    (' ', "key", true, set!(key = text)),
    (' ', "tlsv1.2", false, |_, _| Ok(())),
    (' ', "tlsv1.3", false, set!(tls13)),
    (' ', "tls-max", true, |arguments, value| {
        arguments.tls12 = value == "1.2";
        Ok(())
    }),
    (' ', "http2", false, set!(http2)),
    (' ', "http2-prior-knowledge", false, set!(http2_prior_knowledge)),
    (' ', "http1.1", false, set!(http11)),
    (' ', "resolve", true, set!(resolve += text)),
    (' ', "connect-to", true, set!(connect_to += text)),
    ('m', "max-time", true, set!(max_time = seconds)),
    (' ', "connect-timeout", true, set!(connect_timeout = seconds)),
    (' ', "retry", true, |arguments, value| {
        arguments.retry = number(&value)?;
        Ok(())
    }),
    (' ', "retry-delay", true, set!(retry_delay = seconds)),
    (' ', "retry-max-time", true, |_, _| Ok(())),
    (' ', "retry-connrefused", false, set!(retry_connrefused)),
    (' ', "retry-all-errors", false, set!(retry_all_errors)),
    ('g', "globoff", false, set!(globoff)),
    (' ', "url", true, set!(urls += text)),
    // What makes no difference here.
    ('N', "no-buffer", false, |_, _| Ok(())),
    ('#', "progress-bar", false, |_, _| Ok(())),
    (' ', "no-progress-meter", false, |_, _| Ok(())),
    (' ', "no-keepalive", false, |_, _| Ok(())),
    ('4', "ipv4", false, |_, _| Ok(())),
    (' ', "noproxy", true, |_, _| Ok(())),
    ('q', "disable", false, |_, _| Ok(())),
    ('V', "version", false, set!(version)),
    ('h', "help", false, set!(help)),
];

fn file_or_text(value: String, keep_lines: bool) -> Data {
    match value.strip_prefix('@') {
        Some(name) => Data::File { name: name.to_owned(), keep_lines, encoded: None },
        None => Data::Text(value),
    }
}

/// `content`, `=content`, `name=content`, `@file`, `name@file`.
fn url_encoded(value: &str) -> Data {
    let file = |name: &str, file: &str| Data::File { name: file.to_owned(), keep_lines: true, encoded: Some(name.to_owned()) };
    match (value.split_once('='), value.split_once('@')) {
        (Some((name, content)), _) => Data::Encoded(name.to_owned(), content.to_owned()),
        (None, Some((name, path))) => file(name, path),
        (None, None) => Data::Encoded(String::new(), value.to_owned()),
    }
}

/// Reads the command line; the error is curl's message.
pub(super) fn parse(words: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments { max_redirects: 50, ..Arguments::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(name) = word.strip_prefix("--") {
            let unknown = || format!("option --{name}: is unknown");
            let (_, _, takes_value, apply) = FLAGS.iter().find(|(_, long, ..)| *long == name).ok_or_else(unknown)?;
            let value = match takes_value {
                true => words.next().cloned().ok_or_else(|| format!("option --{name}: requires parameter"))?,
                false => String::new(),
            };
            apply(&mut arguments, value).map_err(|message| format!("option --{name}: {message}"))?;
        } else if word.len() > 1 && word.starts_with('-') {
            let mut rest = &word[1..];
            while let Some(letter) = rest.chars().next() {
                rest = &rest[letter.len_utf8()..];
                let unknown = || format!("option -{letter}: is unknown");
                let flag = FLAGS.iter().find(|(short, ..)| *short == letter && letter != ' ');
                let (_, _, takes_value, apply) = flag.ok_or_else(unknown)?;
                let value = match takes_value {
                    true if !rest.is_empty() => std::mem::take(&mut rest).to_owned(),
                    true => words.next().cloned().ok_or_else(|| format!("option -{letter}: requires parameter"))?,
                    false => String::new(),
                };
                apply(&mut arguments, value).map_err(|message| format!("option -{letter}: {message}"))?;
            }
        } else {
            arguments.urls.push(word.clone());
        }
    }
    Ok(arguments)
}

/// `--help`: the flags there are.
pub(super) fn help() -> String {
    let lines = FLAGS.iter().map(|(short, long, takes_value, _)| {
        let short = if *short == ' ' { "    ".to_owned() } else { format!("-{short}, ") };
        format!(" {short}--{long}{}\n", if *takes_value { " <value>" } else { "" })
    });
    format!("Usage: curl [options...] <url>\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_combine_as_in_the_istio_tasks() {
        let arguments = parsed("-sS -o /dev/null -w%{http_code} --max-time 1.5 -HHost:x -Lk http://a http://b").unwrap();
        assert!(arguments.silent && arguments.show_error && arguments.location && arguments.insecure);
        assert_eq!(arguments.urls, ["http://a", "http://b"]);
        assert_eq!((arguments.outputs, arguments.headers), (vec!["/dev/null".to_owned()], vec!["Host:x".to_owned()]));
        assert_eq!(arguments.max_time, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn data_has_many_forms() {
        let arguments = parsed("-d a=1 --data-urlencode q=a&b -d @f --json {} http://a").unwrap();
        let file = Data::File { name: "f".to_owned(), keep_lines: false, encoded: None };
        let encoded = Data::Encoded("q".to_owned(), "a&b".to_owned());
        assert_eq!(arguments.data, [Data::Text("a=1".to_owned()), encoded, file, Data::Json("{}".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parsed("--nonesuch").unwrap_err(), "option --nonesuch: is unknown");
        assert_eq!(parsed("-sZ").unwrap_err(), "option -Z: is unknown");
        assert_eq!(parsed("-m").unwrap_err(), "option -m: requires parameter");
        assert_eq!(parsed("-m soon").unwrap_err(), "option -m: expected a proper numerical parameter: soon");
    }
}

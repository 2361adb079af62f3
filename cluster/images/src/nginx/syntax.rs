//! nginx' configuration language: words, `;` and blocks, read into a tree.

use meshlab_program::FileSystem;
use regex::Regex;

use super::config::ConfigError;
use crate::shell::pattern_regex;

/// How deep blocks and included files may be nested.
const MAX_DEPTH: usize = 20;

/// The longest configuration, all files together.
const MAX_BYTES: usize = 1 << 20;

/// A directive, with its block if it has one.
#[derive(Debug, Clone)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
    pub(super) file: String,
    pub(super) line: usize,
}

impl Directive {
    /// An error at this directive, in nginx' form.
    pub(super) fn error(&self, message: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(message, &self.file, self.line)
    }
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Tokens<'a> {
    file: &'a str,
    rest: &'a str,
    line: usize,
}

impl Tokens<'_> {
    fn advance(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    fn next(&mut self) -> Result<Option<Token>, ConfigError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if !self.rest.starts_with('#') {
                break;
            }
            self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let single = match first {
            ';' => Some(Token::End),
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            _ => None,
        };
        if let Some(token) = single {
            self.advance(1);
            return Ok(Some(token));
        }
        if first == '"' || first == '\'' {
            return self.quoted(first).map(Some);
        }
        let (mut word, mut escaped, mut in_variable, mut end) = (String::new(), false, false, self.rest.len());
        for (at, c) in self.rest.char_indices() {
            if escaped {
                push_escaped(&mut word, c);
                escaped = false;
                continue;
            }
            match c {
                '\\' => escaped = true,
                // `${name}` is part of a word.
                '{' if word.ends_with('$') => {
                    in_variable = true;
                    word.push(c);
                }
                '}' if in_variable => {
                    in_variable = false;
                    word.push(c);
                }
                c if c.is_whitespace() || c == ';' || c == '{' => {
                    end = at;
                    break;
                }
                c => word.push(c),
            }
        }
        self.advance(end);
        Ok(Some(Token::Word(word)))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, ConfigError> {
        let (mut word, mut escaped) = (String::new(), false);
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                c if escaped => {
                    push_escaped(&mut word, c);
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.advance(at + 1);
                    return Ok(Token::Word(word));
                }
                c => word.push(c),
            }
        }
        Err(ConfigError::new(format!("unexpected end of file, expecting \"{quote}\""), self.file, self.line))
    }
}

/// What a backslash before `c` means. Before other characters it stays: regular expressions need it.
fn push_escaped(word: &mut String, c: char) {
    match c {
        '"' | '\'' | '\\' => word.push(c),
        'n' => word.push('\n'),
        't' => word.push('\t'),
        'r' => word.push('\r'),
        c => word.extend(['\\', c]),
    }
}

/// A configuration and all that it includes.
pub(super) struct Source {
    pub(super) directives: Vec<Directive>,
    /// What `nginx -T` shows.
    pub(super) dump: String,
}

/// Reads a file, with `include`.
pub(super) fn read(fs: &FileSystem, path: &str) -> Result<Source, ConfigError> {
    let mut reader = Reader { fs, dump: String::new(), bytes: 0 };
    let directives = reader.file(path, 0, None)?;
    Ok(Source { directives, dump: reader.dump })
}

/// Checks the directives of `-g`.
pub(super) fn check_globals(text: &str) -> Result<(), ConfigError> {
    let mut reader = Reader { fs: &FileSystem::default(), dump: String::new(), bytes: 0 };
    let directives = reader.block(&mut Tokens { file: "command line", rest: text, line: 1 }, 0, false)?;
    super::config::check_main(&directives)
}

struct Reader<'a> {
    fs: &'a FileSystem,
    dump: String,
    bytes: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &str, depth: usize, from: Option<&Directive>) -> Result<Vec<Directive>, ConfigError> {
        let text = self.fs.read_text(path).map_err(|err| {
            let number = if err.kind() == std::io::ErrorKind::NotFound { "2: " } else { "" };
            let message = format!("open() \"{path}\" failed ({number}{err})");
            from.map_or_else(|| ConfigError::plain(&message), |directive| directive.error(&message))
        })?;
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            return Err(ConfigError::plain(format!("the configuration is over {} KiB", MAX_BYTES >> 10)));
        }
        self.dump.push_str(&format!("# configuration file {path}:\n{text}\n"));
        self.block(&mut Tokens { file: path, rest: &text, line: 1 }, depth, false)
    }

    fn block(&mut self, tokens: &mut Tokens<'_>, depth: usize, nested: bool) -> Result<Vec<Directive>, ConfigError> {
        if depth > MAX_DEPTH {
            return Err(ConfigError::new(
                format!("blocks or includes are nested more than {MAX_DEPTH} deep"),
                tokens.file,
                tokens.line,
            ));
        }
        let mut directives = Vec::new();
        loop {
            let error = |message: &str, tokens: &Tokens<'_>| Err(ConfigError::new(message, tokens.file, tokens.line));
            let name = match tokens.next()? {
                Some(Token::Word(name)) => name,
                Some(Token::Close) if nested => return Ok(directives),
                Some(Token::Close) => return error("unexpected \"}\"", tokens),
                Some(Token::End) => return error("unexpected \";\"", tokens),
                Some(Token::Open) => return error("unexpected \"{\"", tokens),
                None if nested => return error("unexpected end of file, expecting \"}\"", tokens),
                None => return Ok(directives),
            };
            let (file, line) = (tokens.file.to_owned(), tokens.line);
            let mut directive = Directive { name, arguments: Vec::new(), block: None, file, line };
            loop {
                match tokens.next()? {
                    Some(Token::Word(word)) => directive.arguments.push(word),
                    Some(Token::End) => break,
                    Some(Token::Open) => {
                        directive.block = Some(self.block(tokens, depth + 1, true)?);
                        break;
                    }
                    Some(Token::Close) => return error("unexpected \"}\"", tokens),
                    None => return error("unexpected end of file, expecting \";\" or \"}\"", tokens),
                }
            }
            match (directive.name.as_str(), &directive.arguments[..]) {
                ("include", [pattern]) => directives.extend(self.include(pattern, &directive, depth)?),
                ("include", _) => return Err(directive.error("invalid number of arguments in \"include\" directive")),
                _ => directives.push(directive),
            }
        }
    }

    fn include(&mut self, pattern: &str, directive: &Directive, depth: usize) -> Result<Vec<Directive>, ConfigError> {
        // A relative name is taken from the directory of nginx.conf.
        let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/nginx/{pattern}") };
        if !pattern.contains(['*', '?', '[']) {
            return self.file(&pattern, depth + 1, Some(directive));
        }
        let (folder, names) = pattern.rsplit_once('/').unwrap_or(("/", &pattern));
        let names: Regex = pattern_regex(names, true).ok_or_else(|| directive.error("invalid pattern"))?;
        let mut included = Vec::new();
        for (name, _) in self.fs.list(folder).unwrap_or_default() {
            if names.is_match(&name) && !name.starts_with('.') {
                included.extend(self.file(&format!("{folder}/{name}"), depth + 1, Some(directive))?);
            }
        }
        Ok(included)
    }
}

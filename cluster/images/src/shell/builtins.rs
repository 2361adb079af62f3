//! Commands that change the shell itself, and those that scripts call so often that a process each would be a waste.

use brush_parser::word::Parameter;
use meshlab_program::{ExitCode, FileType, Signal};
use tokio::io::AsyncReadExt;

use super::state::{Descriptor, Flow, Shell, Status, Trap, Variable};

const NAMES: &[&str] = &[
    ".", ":", "[", "alias", "bg", "break", "cd", "command", "continue", "echo", "eval", "exec", "exit", "export", "false", "fg",
    "getopts", "hash", "jobs", "kill", "local", "printf", "pwd", "read", "readonly", "return", "set", "shift", "source", "test",
    "trap", "true", "type", "ulimit", "umask", "unset", "wait",
];

/// The longest line that `read` takes.
const MAX_LINE: usize = 1 << 20;

pub(super) fn is_builtin(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Shell {
    pub(super) async fn run_builtin(&mut self, name: &str, arguments: &[String]) -> Status {
        let first = arguments.first().map(String::as_str);
        match name {
            ":" | "true" => Ok(0),
            "false" => Ok(1),
            "echo" => self.say(&echo(arguments)).await,
            "printf" => match printf(arguments) {
                Ok(text) => self.say(&text).await,
                Err(message) => self.fail(name, &message).await,
            },
            "pwd" => {
                let line = format!("{}\n", self.cwd);
                self.say(line.as_bytes()).await
            }
            "test" => self.run_test(name, arguments).await,
            "[" => match arguments.split_last() {
                Some((last, words)) if last == "]" => self.run_test(name, words).await,
                _ => self.fail(name, "missing ]").await.map(|_| 2),
            },
            "cd" => self.change_directory(first).await,
            "export" | "readonly" => self.declare(name, arguments).await,
            "local" => self.local(arguments).await,
            "unset" => {
                for name in arguments.iter().filter(|name| !matches!(name.as_str(), "-v" | "-f")) {
                    if self.variables.get(name).is_some_and(|variable| variable.read_only) {
                        return self.fail("unset", &format!("{name}: is read only")).await;
                    }
                    self.variables.remove(name);
                    self.functions.remove(name);
                }
                Ok(0)
            }
            "set" => self.set_options(arguments).await,
            "shift" => {
                let count = first.map_or(Ok(1), str::parse).unwrap_or(usize::MAX);
                if count > self.positional.len() {
                    return self.fail(name, "can't shift that many").await;
                }
                self.positional.drain(..count);
                Ok(0)
            }
            "exit" => Err(Flow::Exit(self.code(first))),
            "return" => Err(Flow::Return(self.code(first))),
            "break" => Err(Flow::Break(levels(first))),
            "continue" => Err(Flow::Continue(levels(first))),
            "eval" => self.run_text(&arguments.join(" ")).await,
            "." | "source" => self.source(arguments).await,
            "exec" => {
                let code = self.run_executable(arguments.to_vec()).await?;
                Err(Flow::Exit(code))
            }
            "command" => self.command(arguments).await,
            "type" => self.describe(arguments, true).await,
            "read" => self.read(arguments).await,
            "trap" => self.trap(arguments).await,
            "wait" => self.wait(arguments).await,
            "kill" => self.kill(arguments).await,
            "jobs" => {
                let lines: String =
                    self.jobs.0.iter().enumerate().map(|(index, job)| format!("[{}] {}\n", index + 1, job.pid)).collect();
                self.say(lines.as_bytes()).await
            }
            "hash" => Ok(0),
            "umask" if arguments.is_empty() => self.say(b"0022\n").await,
            _ => self.fail(name, "not supported by this shell").await.map(|_| 2),
        }
    }

    async fn say(&mut self, text: &[u8]) -> Status {
        Ok(ExitCode::from(!self.write(1, text).await))
    }

    async fn fail(&mut self, name: &str, message: &str) -> Status {
        self.complain(&format!("{name}: {message}")).await;
        Ok(1)
    }

    fn code(&self, argument: Option<&str>) -> ExitCode {
        argument.map_or(self.status, |code| code.parse().unwrap_or(2)) & 0xff
    }

    async fn run_test(&mut self, name: &str, words: &[String]) -> Status {
        if words.is_empty() {
            return Ok(1);
        }
        match self.test(words) {
            Ok(holds) => Ok(ExitCode::from(!holds)),
            Err(message) => self.fail(name, &message).await.map(|_| 2),
        }
    }

    async fn change_directory(&mut self, to: Option<&str>) -> Status {
        let back = to == Some("-");
        let to = match to {
            None => self.get("HOME").unwrap_or("/").to_owned(),
            Some("-") => self.get("OLDPWD").unwrap_or("/").to_owned(),
            Some(to) => to.to_owned(),
        };
        let path = self.path(&to);
        let found = self.fs().canonicalize(&path).and_then(|path| Ok((self.fs().metadata(&path)?.file_type, path)));
        match found {
            Ok((FileType::Directory, path)) => {
                let before = std::mem::replace(&mut self.cwd, path.clone());
                let _ = self.set("OLDPWD", before);
                let _ = self.set("PWD", path.clone());
                if back { self.say(format!("{path}\n").as_bytes()).await } else { Ok(0) }
            }
            Ok(_) => self.fail("cd", &format!("can't cd to {to}: Not a directory")).await,
            Err(err) => self.fail("cd", &format!("can't cd to {to}: {err}")).await,
        }
    }

    async fn declare(&mut self, builtin: &str, arguments: &[String]) -> Status {
        let export = builtin == "export";
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        if names.is_empty() {
            let shown = self.variables.iter().filter(|(_, variable)| if export { variable.exported } else { variable.read_only });
            let lines: String = shown.map(|(name, variable)| format!("{builtin} {name}={}\n", quote(&variable.value))).collect();
            return self.say(lines.as_bytes()).await;
        }
        for argument in names {
            let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            if !is_name(name) {
                return self.fail(builtin, &format!("{name}: bad variable name")).await.map(|_| 2);
            }
            if let Some(value) = value
                && let Err(message) = self.set(name, value)
            {
                return self.fail(builtin, &message).await;
            }
            if let Some(variable) = self.variables.get_mut(name) {
                variable.exported |= export;
                variable.read_only |= !export;
            }
        }
        Ok(0)
    }

    async fn local(&mut self, arguments: &[String]) -> Status {
        if self.scopes.is_empty() {
            return self.fail("local", "not in a function").await;
        }
        for argument in arguments {
            let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            let hidden = self.variables.remove(name);
            let exported = hidden.as_ref().is_some_and(|variable| variable.exported);
            if let Some(scope) = self.scopes.last_mut() {
                scope.entry(name.to_owned()).or_insert(hidden);
            }
            if let Some(value) = value {
                self.variables.insert(name.to_owned(), Variable { value: value.to_owned(), exported, read_only: false });
            }
        }
        Ok(0)
    }

    async fn set_options(&mut self, arguments: &[String]) -> Status {
        if arguments.is_empty() {
            let lines: String =
                self.variables.iter().map(|(name, variable)| format!("{name}={}\n", quote(&variable.value))).collect();
            return self.say(lines.as_bytes()).await;
        }
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let on = word.starts_with('-');
            if word == "--" || word == "-" || !(on || word.starts_with('+')) {
                let first = (word != "--" && word != "-").then(|| word.clone());
                self.positional = first.into_iter().chain(words.cloned()).collect();
                return Ok(0);
            }
            for letter in word[1..].chars() {
                let result = match letter {
                    'o' => words.next().map_or(Ok(()), |name| self.options.set(name, on)),
                    letter => self.options.set_letter(letter, on),
                };
                if let Err(message) = result {
                    return self.fail("set", &message).await.map(|_| 2);
                }
            }
        }
        Ok(0)
    }

    async fn source(&mut self, arguments: &[String]) -> Status {
        let Some(path) = arguments.first() else { return self.fail(".", "a file is needed").await.map(|_| 2) };
        match self.fs().read_text(&self.path(path)) {
            Ok(text) => match self.run_text(&text).await {
                Err(Flow::Return(code)) => Ok(code),
                status => status,
            },
            Err(err) => self.fail(".", &format!("can't open '{path}': {err}")).await.map(|_| 2),
        }
    }

    async fn command(&mut self, arguments: &[String]) -> Status {
        match arguments.split_first() {
            Some((flag, names)) if flag == "-v" => self.describe(names, false).await,
            Some((flag, names)) if flag == "-V" => self.describe(names, true).await,
            Some((name, rest)) if is_builtin(name) => Box::pin(self.run_builtin(name, rest)).await,
            Some(_) => self.run_executable(arguments.to_vec()).await,
            None => Ok(0),
        }
    }

    async fn describe(&mut self, names: &[String], in_words: bool) -> Status {
        let mut code = 0;
        for name in names {
            let (words, short) = if self.functions.contains_key(name) {
                (format!("{name} is a function"), name.clone())
            } else if is_builtin(name) {
                (format!("{name} is a shell builtin"), name.clone())
            } else if self.container.image.executable(name).is_some() {
                (format!("{name} is /usr/bin/{name}"), format!("/usr/bin/{name}"))
            } else {
                code = 127;
                if in_words {
                    let line = format!("{name}: not found\n");
                    self.write(2, line).await;
                }
                continue;
            };
            self.say(format!("{}\n", if in_words { words } else { short }).as_bytes()).await?;
        }
        Ok(code)
    }

    async fn read(&mut self, arguments: &[String]) -> Status {
        let (mut raw, mut names, mut words) = (false, Vec::new(), arguments.iter());
        while let Some(word) = words.next() {
            match word.as_str() {
                "-r" => raw = true,
                "-s" => {}
                "-p" => {
                    let prompt = words.next().cloned().unwrap_or_default();
                    self.write(2, prompt).await;
                }
                flag if flag.starts_with('-') => {
                    return self.fail("read", &format!("{flag} is not supported by this shell")).await;
                }
                _ => names.push(word.clone()),
            }
        }
        let Some((line, complete)) = self.read_line(raw).await? else { return Ok(1) };
        if names.is_empty() {
            names.push("REPLY".to_owned());
        }
        let separators = self.get("IFS").unwrap_or(" \t\n").to_owned();
        let is_separator = |c: char| separators.contains(c);
        let mut rest = line.trim_matches(|c: char| is_separator(c) && c.is_ascii_whitespace());
        for (index, name) in names.iter().enumerate() {
            let value = match index + 1 < names.len() {
                true => {
                    let end = rest.find(is_separator).unwrap_or(rest.len());
                    let value = &rest[..end];
                    rest = rest[end..].trim_start_matches(|c: char| is_separator(c) && c.is_ascii_whitespace());
                    rest = rest.strip_prefix(|c: char| is_separator(c) && !c.is_ascii_whitespace()).unwrap_or(rest);
                    value
                }
                false => rest,
            };
            if let Err(message) = self.set(name, value) {
                return self.fail("read", &message).await;
            }
        }
        Ok(ExitCode::from(!complete))
    }

    /// Reads one line, byte by byte: what follows belongs to whoever reads next. None at the end of the input; the flag says
    /// whether a line feed was there.
    pub(super) async fn read_line(&mut self, raw: bool) -> Result<Option<(String, bool)>, Flow> {
        let Some(Descriptor::Input(mut input)) = self.descriptors.get(&0).cloned() else { return Ok(None) };
        let (mut line, mut escaped, mut complete) = (Vec::new(), false, false);
        loop {
            let byte = tokio::select! {
                byte = input.read_u8() => byte,
                signal = self.signals.next() => {
                    self.after_signal(signal).await?;
                    continue;
                }
            };
            let Ok(byte) = byte else { break };
            match byte {
                b'\n' if escaped => escaped = false,
                b'\n' => {
                    complete = true;
                    break;
                }
                b'\\' if !raw && !escaped => escaped = true,
                byte => {
                    escaped = false;
                    if line.len() < MAX_LINE {
                        line.push(byte);
                    }
                }
            }
        }
        let nothing = line.is_empty() && !complete;
        Ok((!nothing).then(|| (String::from_utf8_lossy(&line).into_owned(), complete)))
    }

    async fn trap(&mut self, arguments: &[String]) -> Status {
        let Some((action, names)) = arguments.split_first() else {
            let lines: String =
                self.traps.iter().map(|(trap, action)| format!("trap -- {} {}\n", quote(action), trap.name())).collect();
            return self.say(lines.as_bytes()).await;
        };
        for name in names {
            let Some(trap) = Trap::named(name) else {
                return self.fail("trap", &format!("{name}: only EXIT, INT and TERM can be trapped by this shell")).await;
            };
            match action.as_str() {
                "-" => drop(self.traps.remove(&trap)),
                action => drop(self.traps.insert(trap, action.to_owned())),
            }
        }
        Ok(0)
    }

    async fn wait(&mut self, arguments: &[String]) -> Status {
        let wanted: Vec<u32> = arguments.iter().filter_map(|pid| pid.parse().ok()).collect();
        let jobs = std::mem::take(&mut self.jobs.0);
        let (mut waited, others) = jobs.into_iter().partition::<Vec<_>, _>(|job| wanted.is_empty() || wanted.contains(&job.pid));
        self.jobs.0 = others;
        let mut code = if wanted.is_empty() || !waited.is_empty() { 0 } else { 127 };
        for job in &mut waited {
            code = self.wait_for(job).await?;
        }
        Ok(if wanted.is_empty() { 0 } else { code })
    }

    async fn kill(&mut self, arguments: &[String]) -> Status {
        let (mut name, mut code, mut words) = ("TERM".to_owned(), 0, arguments.iter());
        while let Some(word) = words.next() {
            if word == "-s" {
                name = words.next().cloned().unwrap_or_default();
                continue;
            }
            if let Some(signal) = word.strip_prefix('-') {
                name = signal.to_owned();
                continue;
            }
            let pid = match word.strip_prefix('%') {
                Some(job) => job.parse().ok().and_then(|job: usize| self.jobs.0.get(job.checked_sub(1)?)).map(|job| job.pid),
                None => word.parse().ok(),
            };
            let Some(pid) = pid else { return self.fail("kill", &format!("{word}: no such process")).await };
            let processes = &self.container.processes;
            let sent = match name.trim_start_matches("SIG") {
                "0" => processes.list().iter().any(|process| process.pid == pid),
                "9" | "KILL" => processes.kill(pid),
                "2" | "INT" => processes.signal(pid, Signal::Interrupt),
                "15" | "TERM" | "1" | "HUP" | "3" | "QUIT" => processes.signal(pid, Signal::Terminate),
                other => {
                    let message = format!("{other}: only signals 0, INT, TERM and KILL are supported by this shell");
                    return self.fail("kill", &message).await;
                }
            };
            if !sent {
                code = 1;
                self.fail("kill", &format!("can't kill pid {pid}: No such process")).await?;
            }
        }
        Ok(code)
    }
}

impl Trap {
    fn named(name: &str) -> Option<Self> {
        match name.trim_start_matches("SIG") {
            "EXIT" | "0" => Some(Self::Exit),
            "INT" | "2" => Some(Self::Interrupt),
            "TERM" | "15" => Some(Self::Terminate),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Exit => "EXIT",
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
        }
    }
}

fn levels(argument: Option<&str>) -> u32 {
    argument.and_then(|levels| levels.parse().ok()).filter(|levels| *levels > 0).unwrap_or(1)
}

fn is_name(name: &str) -> bool {
    matches!(brush_parser::word::parse_parameter(name, &brush_parser::ParserOptions::default()), Ok(Parameter::Named(parsed)) if parsed == name)
}

/// A value as the shell would read it back.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// `echo`, with `-n`, `-e` and `-E`.
fn echo(arguments: &[String]) -> Vec<u8> {
    let (mut line_feed, mut escapes, mut words) = (true, false, arguments);
    while let Some((flag, rest)) = words.split_first() {
        let letters = flag.strip_prefix('-').filter(|letters| !letters.is_empty() && letters.chars().all(|c| "neE".contains(c)));
        let Some(letters) = letters else { break };
        line_feed &= !letters.contains('n');
        escapes = letters.contains('e') || (escapes && !letters.contains('E'));
        words = rest;
    }
    let text = words.join(" ");
    let mut output = match escapes {
        true => {
            let decoded = decode_escapes(&text);
            line_feed &= !decoded.stopped;
            decoded.bytes
        }
        false => text.into_bytes(),
    };
    if line_feed {
        output.push(b'\n');
    }
    output
}

/// A text whose backslash escapes are decoded.
pub(crate) struct Decoded {
    pub(crate) bytes: Vec<u8>,
    /// `\c` was there: nothing more is to be written.
    pub(crate) stopped: bool,
}

impl Decoded {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Decodes `\n`, `\t`, `\xHH`, `\0NNN` and the like.
pub(crate) fn decode_escapes(text: &str) -> Decoded {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else {
            bytes.push(b'\\');
            break;
        };
        rest = &rest[letter.len_utf8()..];
        let mut take = |most: usize, radix: u32| {
            let end =
                rest.char_indices().take(most).take_while(|(_, c)| c.is_digit(radix)).map(|(at, _)| at + 1).last().unwrap_or(0);
            let digits = &rest[..end];
            rest = &rest[end..];
            u32::from_str_radix(digits, radix).ok()
        };
        match letter {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'v' => bytes.push(11),
            'e' => bytes.push(27),
            '\\' | '\'' | '"' => bytes.push(letter as u8),
            'c' => return Decoded { bytes, stopped: true },
            '0' => bytes.push((take(3, 8).unwrap_or(0) & 0xff) as u8),
            'x' => bytes.extend(take(2, 16).map(|byte| (byte & 0xff) as u8)),
            'u' => bytes.extend(take(4, 16).and_then(char::from_u32).unwrap_or('\u{fffd}').to_string().bytes()),
            other => bytes.extend(format!("\\{other}").bytes()),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Decoded { bytes, stopped: false }
}

/// `printf FORMAT [ARGUMENT…]`; the format is used again while there are arguments.
fn printf(arguments: &[String]) -> Result<Vec<u8>, String> {
    const MAX_OUTPUT: usize = 16 << 20;
    let (format, mut rest) = arguments.split_first().ok_or("usage: printf FORMAT [ARGUMENT]...")?;
    let mut output = Vec::new();
    loop {
        let before = rest.len();
        let stopped = printf_once(format, &mut rest, &mut output)?;
        if stopped || rest.is_empty() || rest.len() == before || output.len() > MAX_OUTPUT {
            return Ok(output);
        }
    }
}

fn printf_once(format: &str, arguments: &mut &[String], output: &mut Vec<u8>) -> Result<bool, String> {
    /// Columns and digits that a conversion may ask for.
    const MAX_WIDTH: usize = 4096;
    let mut next = || {
        let (first, rest) = arguments.split_first()?;
        *arguments = rest;
        Some(first.as_str())
    };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let decoded = decode_escapes(&rest[..at]);
        output.extend(decoded.bytes);
        if decoded.stopped {
            return Ok(true);
        }
        rest = &rest[at + 1..];
        let spec_end = rest.find(|c: char| !"-+ #0123456789.*".contains(c)).ok_or("%: invalid directive")?;
        let (flags, after) = rest.split_at(spec_end);
        let conversion = after.chars().next().unwrap_or('%');
        rest = &after[conversion.len_utf8()..];
        let mut number = |text: &str| match text {
            "*" => next().and_then(|value| value.parse().ok()).unwrap_or(0),
            digits => digits.parse::<usize>().unwrap_or(0),
        };
        let bare = flags.trim_start_matches(['-', '+', ' ', '#', '0']);
        let (width, precision) = match bare.split_once('.') {
            Some((width, precision)) => (number(width), Some(number(precision).min(MAX_WIDTH))),
            None => (number(bare), None),
        };
        let prefix = &flags[..flags.len() - bare.len()];
        let integer = |text: Option<&str>| -> Result<i64, String> {
            let text = text.unwrap_or("0").trim();
            let parsed = match (text.strip_prefix("0x"), text.strip_prefix(['\'', '"'])) {
                (Some(hex), _) => i64::from_str_radix(hex, 16).ok(),
                (_, Some(quoted)) => quoted.chars().next().map(|c| i64::from(u32::from(c))),
                _ => text.parse().ok(),
            };
            parsed.ok_or_else(|| format!("{text}: invalid number"))
        };
        let signed = |value: String, negative: bool| match prefix.contains('+') && !negative {
            true => format!("+{value}"),
            false => value,
        };
        let text = match conversion {
            '%' => "%".to_owned(),
            's' => {
                let text = next().unwrap_or_default();
                precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
            }
            'b' => decode_escapes(next().unwrap_or_default()).text(),
            'c' => next().and_then(|text| text.chars().next()).map(String::from).unwrap_or_default(),
            'd' | 'i' => integer(next()).map(|value| signed(value.to_string(), value < 0))?,
            'u' => integer(next())?.cast_unsigned().to_string(),
            'x' => format!("{:x}", integer(next())?),
            'X' => format!("{:X}", integer(next())?),
            'o' => format!("{:o}", integer(next())?),
            'f' | 'F' | 'g' | 'e' => {
                let text = next().unwrap_or("0");
                let value: f64 = text.trim().parse().map_err(|_| format!("{text}: invalid number"))?;
                match conversion {
                    'e' => format!("{value:.*e}", precision.unwrap_or(6)),
                    'g' => value.to_string(),
                    _ => signed(format!("{value:.*}", precision.unwrap_or(6)), value < 0.0),
                }
            }
            other => return Err(format!("%{other}: invalid directive")),
        };
        let missing = " ".repeat(width.min(MAX_WIDTH).saturating_sub(text.chars().count()));
        let padded = if prefix.contains('-') {
            text + &missing
        } else if prefix.contains('0') && conversion != 's' {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            format!("{sign}{}{digits}", "0".repeat(missing.len()))
        } else {
            missing + &text
        };
        output.extend(padded.bytes());
    }
    let decoded = decode_escapes(rest);
    output.extend(decoded.bytes);
    Ok(decoded.stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(builtin: fn(&[String]) -> Vec<u8>, arguments: &[&str]) -> String {
        String::from_utf8(builtin(&arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())).unwrap()
    }

    #[test]
    fn echo_knows_its_flags() {
        assert_eq!(run(echo, &["-n", "a", "b"]), "a b");
        assert_eq!(run(echo, &["-e", r"a\tb\x41\0101\c", "lost"]), "a\tbAA");
        assert_eq!(run(echo, &["-x", r"\t"]), "-x \\t\n");
    }

    #[test]
    fn printf_formats() {
        let printf = |arguments: &[String]| printf(arguments).unwrap();
        assert_eq!(run(printf, &[r"%-5s|%5s|%03d|%x\n", "a", "b", "7", "255"]), "a    |    b|007|ff\n");
        assert_eq!(run(printf, &["%s,", "a", "b", "c"]), "a,b,c,");
        assert_eq!(run(printf, &["%.2f %%", "3.14159"]), "3.14 %");
        assert_eq!(run(printf, &["%s=%d "]), "=0 ");
    }
}

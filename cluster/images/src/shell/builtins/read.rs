//! `read`, and reading lines of standard input.

use meshlab_program::ExitCode;
use tokio::io::AsyncReadExt;

use super::super::state::{Descriptor, Flow, Shell, Status};

/// The longest line that is read.
const MAX_LINE: usize = 1 << 20;

impl Shell {
    pub(super) async fn read(&mut self, arguments: &[String]) -> Status {
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
    pub(in crate::shell) async fn read_line(&mut self, raw: bool) -> Result<Option<(String, bool)>, Flow> {
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
}

//! Reading commands from standard input: a script that is piped in, or a user at a terminal.

use std::iter::Peekable;
use std::str::Chars;

use super::parse::{self, SyntaxError};
use super::state::{Flow, Shell, Status};

/// The longest command that is put together from several lines.
const MAX_COMMAND: usize = 256 << 10;

impl Shell {
    /// Reads and runs one command after the other. What a command does not read of standard input is the next command.
    pub(super) async fn run_stdin(&mut self) -> Status {
        let mut command = String::new();
        loop {
            let line = match self.prompt_and_read(command.is_empty()).await {
                Err(Flow::Interrupted) => {
                    command.clear();
                    self.status = crate::output::INTERRUPTED;
                    continue;
                }
                line => line?,
            };
            let Some((line, _)) = line else { break };
            command.push_str(&line);
            command.push('\n');
            match parse::program(&command) {
                Err(SyntaxError::Incomplete(_)) if command.len() < MAX_COMMAND => continue,
                _ => {}
            }
            let text = std::mem::take(&mut command);
            match self.run_text(&text).await {
                Err(Flow::Interrupted) => self.status = crate::output::INTERRUPTED,
                Err(Flow::Break(_) | Flow::Continue(_)) => {}
                status => drop(status?),
            }
        }
        if !command.is_empty() {
            // The input ended in the middle of a command: this says so.
            return self.run_text(&command).await;
        }
        if self.interactive {
            self.write(1, "\n").await;
        }
        Ok(self.status)
    }

    async fn prompt_and_read(&mut self, first_line: bool) -> Result<Option<(String, bool)>, Flow> {
        if self.interactive {
            let prompt = self.get(if first_line { "PS1" } else { "PS2" }).unwrap_or_default().to_owned();
            let prompt = self.prompt(&prompt);
            self.write(2, prompt).await;
        }
        self.read_line(true).await
    }

    /// `$PWD`, `\w`, `\h`, `\u` and `\$` of a prompt.
    fn prompt(&self, template: &str) -> String {
        let (mut prompt, mut rest): (String, Peekable<Chars<'_>>) = (String::new(), template.chars().peekable());
        let directory = match self.get("HOME") {
            Some(home) if home != "/" && self.cwd == home => "~".to_owned(),
            _ => self.cwd.clone(),
        };
        while let Some(c) = rest.next() {
            match c {
                '\\' => match rest.next() {
                    Some('w') => prompt.push_str(&directory),
                    Some('h') => prompt.push_str(&self.container.hostname),
                    Some('u') => prompt.push_str(if self.container.uid == 0 { "root" } else { "user" }),
                    Some('$') => prompt.push(if self.container.uid == 0 { '#' } else { '$' }),
                    Some('n') => prompt.push('\n'),
                    Some('[' | ']') | None => {}
                    Some(other) => prompt.push(other),
                },
                '$' if template.contains("$PWD") && rest.clone().take(3).eq("PWD".chars()) => {
                    rest.nth(2);
                    prompt.push_str(&directory);
                }
                c => prompt.push(c),
            }
        }
        prompt
    }
}

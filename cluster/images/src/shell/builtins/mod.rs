//! Commands that change the shell itself, and those that scripts call so often that a process each would be a waste.

mod print;
mod read;
mod signals;
mod variables;

use meshlab_program::{ExitCode, FileType};

use super::state::{Flow, Shell, Status};
use print::{echo, printf};

pub(crate) use print::decode_escapes;

const NAMES: &[&str] = &[
    ".", ":", "[", "alias", "bg", "break", "cd", "command", "continue", "echo", "eval", "exec", "exit", "export", "false", "fg",
    "getopts", "hash", "jobs", "kill", "local", "printf", "pwd", "read", "readonly", "return", "set", "shift", "source", "test",
    "trap", "true", "type", "ulimit", "umask", "unset", "wait",
];

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
            "unset" => self.unset(arguments).await,
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
}

fn levels(argument: Option<&str>) -> u32 {
    argument.and_then(|levels| levels.parse().ok()).filter(|levels| *levels > 0).unwrap_or(1)
}

/// A value as the shell would read it back.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

//! How programs write to their standard streams and fail.

use std::io;

use meshlab_program::{ExitCode, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a program may read into memory from one stream or file.
pub(crate) const MAX_INPUT: u64 = 16 << 20;

/// Exit code of a program whose reader went away (128 + SIGPIPE).
const BROKEN_PIPE: ExitCode = 141;

/// Exit code of a program ended by `Ctrl-C` (128 + SIGINT).
pub(crate) const INTERRUPTED: ExitCode = 130;

/// Exit code of a program ended by SIGTERM (128 + SIGTERM).
pub(crate) const TERMINATED: ExitCode = 143;

/// Why a program ends early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    /// One line for standard error, without the program's name.
    pub(crate) message: String,
}

/// How a program ends.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    pub(crate) fn with_code(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure at a file, in the words of the usual tools: `cannot open 'x': No such file or directory`.
    pub(crate) fn at(path: &str, err: &io::Error) -> Self {
        Self::new(format!("{path}: {err}"))
    }
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        match err.kind() {
            // The reader of a pipe has what it wanted (`seq 1000 | head -1`): an end without words.
            io::ErrorKind::BrokenPipe => Self::with_code(BROKEN_PIPE, ""),
            _ => Self::new(err.to_string()),
        }
    }
}

/// Ends a program: says what failed, as `name: message`, and gives the exit code.
pub(crate) async fn finish(process: &mut Process, outcome: Outcome) -> ExitCode {
    let code = match outcome {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                let name = base_name(process.argv.first().map_or("", String::as_str)).to_owned();
                complain(process, &format!("{name}: {}", failure.message)).await;
            }
            failure.code
        }
    };
    let _ = process.stdio.stdout.flush().await;
    let _ = process.stdio.stderr.flush().await;
    code
}

/// Writes to standard output.
pub(crate) async fn print(process: &mut Process, text: impl AsRef<[u8]>) -> io::Result<()> {
    process.stdio.stdout.write_all(text.as_ref()).await
}

/// Writes a line to standard error. Where even that fails nobody is left to be told.
pub(crate) async fn complain(process: &mut Process, line: &str) {
    let _ = process.stdio.stderr.write_all(format!("{line}\n").as_bytes()).await;
    let _ = process.stdio.stderr.flush().await;
}

/// Reads all of standard input.
pub(crate) async fn read_stdin(process: &mut Process) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    (&mut process.stdio.stdin).take(MAX_INPUT + 1).read_to_end(&mut content).await?;
    if content.len() as u64 > MAX_INPUT {
        return Err(Failure::new(format!("the input is over {} MiB, the most that this tool takes", MAX_INPUT >> 20)));
    }
    Ok(content)
}

/// What follows the last slash of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

//! Commands that run other commands: `env`, `xargs`, `timeout`, `watch`.

use std::collections::BTreeMap;
use std::time::Duration;

use meshlab_program::{Child, ExitCode, Process, Shared, Signal, Signals, Stdio};
use tokio::io::{AsyncRead, AsyncWrite};

use super::system::parse_delay;
use super::{Options, Tool};
use crate::output::{Failure, Outcome, print, read_stdin};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("env", |process| Box::pin(env(process))),
    ("xargs", |process| Box::pin(xargs(process))),
    ("timeout", |process| Box::pin(timeout(process))),
    ("watch", |process| Box::pin(watch(process))),
];

/// Exit code of `timeout` when the time was over.
const TIMED_OUT: ExitCode = 124;

/// How long a command that was asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// The streams of a process, for several children one after the other.
struct Streams {
    stdin: Shared<Box<dyn AsyncRead + Send + Unpin>>,
    stdout: Shared<Box<dyn AsyncWrite + Send + Unpin>>,
    stderr: Shared<Box<dyn AsyncWrite + Send + Unpin>>,
}

impl Streams {
    fn of(process: &mut Process) -> Self {
        let mut own = std::mem::replace(&mut process.stdio, Stdio::null());
        let streams = Self {
            stdin: Shared::new(std::mem::replace(&mut own.stdin, Box::new(tokio::io::empty()))),
            stdout: Shared::new(own.stdout),
            stderr: Shared::new(own.stderr),
        };
        process.stdio = Stdio {
            stdin: Box::new(streams.stdin.clone()),
            stdout: Box::new(streams.stdout.clone()),
            stderr: Box::new(streams.stderr.clone()),
            terminal: own.terminal,
        };
        streams
    }

    fn start(&self, process: &Process, argv: Vec<String>, env: BTreeMap<String, String>) -> Result<Child, Failure> {
        let stdio = Stdio {
            stdin: Box::new(self.stdin.clone()),
            stdout: Box::new(self.stdout.clone()),
            stderr: Box::new(self.stderr.clone()),
            terminal: process.stdio.terminal.clone(),
        };
        // Of its own: a signal to the child is none to this process. One to this process ends it, which kills the child.
        let (_, signals) = Signals::channel();
        let (container, cwd) = (process.container.clone(), process.cwd.clone());
        let name = argv.first().cloned().unwrap_or_default();
        let child = Process { container, argv, env, cwd, stdio, signals }.spawn();
        child.map_err(|err| Failure::with_code(err.exit_code(), format!("can't execute '{name}': No such file or directory")))
    }
}

async fn env(process: &mut Process) -> Outcome {
    let (mut environment, mut words) = (process.env.clone(), process.argv[1..].iter().peekable());
    while let Some(word) = words.peek() {
        match word.as_str() {
            "-i" | "-" => environment.clear(),
            "-u" => {
                words.next();
                environment.remove(words.peek().map_or("", |name| name.as_str()));
            }
            word => match word.split_once('=') {
                Some((name, value)) => drop(environment.insert(name.to_owned(), value.to_owned())),
                None => break,
            },
        }
        words.next();
    }
    let argv: Vec<String> = words.cloned().collect();
    if argv.is_empty() {
        let text: String = environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        print(process, text).await?;
        return Ok(0);
    }
    let streams = Streams::of(process);
    Ok(streams.start(process, argv, environment)?.wait().await)
}

async fn xargs(process: &mut Process) -> Outcome {
    let words = &process.argv;
    // The first word that is no flag begins the command, whose own flags are not ours.
    let mut end = 1;
    while let Some(word) = words.get(end).filter(|word| word.starts_with('-') && word.len() > 1) {
        end += if matches!(word.as_str(), "-n" | "-I" | "-P" | "-L" | "-d") { 2 } else { 1 };
    }
    let end = end.min(words.len());
    let options = Options::parse(&words[..end], "n:I:P:L:d:0rt", &[])?;
    let mut command = words[end..].to_vec();
    if command.is_empty() {
        command.push("echo".to_owned());
    }
    let input = read_stdin(process).await?;
    let text = String::from_utf8_lossy(&input);
    let items: Vec<String> = match (options.has('0'), options.value('d'), options.value('I')) {
        (true, ..) => text.split('\0').map(str::to_owned).collect(),
        (_, Some(delimiter), _) => text.trim_end_matches('\n').split(delimiter).map(str::to_owned).collect(),
        (_, _, Some(_)) => text.lines().map(|line| line.trim_start().to_owned()).collect(),
        _ => text.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect(),
    };
    let items: Vec<String> = items.into_iter().filter(|item| !item.is_empty()).collect();
    let calls: Vec<Vec<String>> = match options.value('I') {
        Some(mark) => items.iter().map(|item| command.iter().map(|word| word.replace(mark, item)).collect()).collect(),
        None => {
            let most = options.number('n')?.or(options.number('L')?).unwrap_or(usize::MAX).max(1);
            items.chunks(most.min(items.len().max(1))).map(|chunk| [&command[..], chunk].concat()).collect()
        }
    };
    let calls = if calls.is_empty() && !options.has('r') && options.value('I').is_none() { vec![command] } else { calls };
    let streams = Streams::of(process);
    let mut code = 0;
    for argv in calls {
        let mut child = streams.start(process, argv, process.env.clone())?;
        code = if child.wait().await == 0 { code } else { 123 };
    }
    Ok(code)
}

async fn timeout(process: &mut Process) -> Outcome {
    let mut words = process.argv[1..].iter().peekable();
    while let Some(flag) = words.next_if(|word| word.starts_with('-')) {
        if matches!(flag.as_str(), "-s" | "-k") {
            words.next();
        }
    }
    let limit = parse_delay(words.next().ok_or_else(|| Failure::new("usage: timeout SECONDS COMMAND..."))?)?;
    let argv: Vec<String> = words.cloned().collect();
    let streams = Streams::of(process);
    let mut child = streams.start(process, argv, process.env.clone())?;
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(code) => Ok(code),
        Err(_) => {
            child.signal(Signal::Terminate);
            // Dropping the child kills what does not listen.
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
            Ok(TIMED_OUT)
        }
    }
}

async fn watch(process: &mut Process) -> Outcome {
    let mut words = process.argv[1..].iter().peekable();
    let mut interval = Duration::from_secs(2);
    while let Some(flag) = words.next_if(|word| word.starts_with('-')) {
        if flag == "-n" {
            interval = parse_delay(words.next().map_or("", String::as_str))?;
        }
    }
    let command = words.cloned().collect::<Vec<_>>().join(" ");
    // Any faster shows nothing more.
    let interval = interval.max(Duration::from_millis(100));
    let streams = Streams::of(process);
    loop {
        print(process, format!("\x1b[H\x1b[JEvery {:.1}s: {command}\n\n", interval.as_secs_f64())).await?;
        let argv = ["sh", "-c", &command].map(str::to_owned).to_vec();
        streams.start(process, argv, process.env.clone())?.wait().await;
        tokio::time::sleep(interval).await;
    }
}

//! `sleep`, `date`, `hostname`, `id`, `whoami`, `uname`, `env`, `printenv`, `ps`, `which`, `nproc`, `tty`, `stty`.

use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use jiff::{Timestamp, fmt::strtime};
use meshlab_program::Process;

use super::{Options, Tool};
use crate::output::{Failure, Outcome, print};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("sleep", |process| Box::pin(sleep(process))),
    ("date", |process| Box::pin(date(process))),
    ("hostname", |process| Box::pin(hostname(process))),
    ("id", |process| Box::pin(id(process))),
    ("whoami", |process| Box::pin(whoami(process))),
    ("uname", |process| Box::pin(uname(process))),
    ("printenv", |process| Box::pin(printenv(process))),
    ("ps", |process| Box::pin(ps(process))),
    ("which", |process| Box::pin(which(process))),
    ("nproc", |process| Box::pin(nproc(process))),
    ("clear", |process| Box::pin(clear(process))),
    ("tty", |process| Box::pin(tty(process))),
    ("stty", |process| Box::pin(stty(process))),
];

/// `5`, `0.5`, `2m`, `infinity`.
pub(super) fn parse_delay(text: &str) -> Result<Duration, Failure> {
    /// Beyond any container's life, and short of what a timer can hold.
    const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let wrong = || Failure::new(format!("invalid number '{text}'"));
    if text == "inf" || text == "infinity" {
        return Ok(FOREVER);
    }
    let (number, unit) = match text.char_indices().last() {
        Some((at, c)) if c.is_ascii_alphabetic() => (&text[..at], c),
        _ => (text, 's'),
    };
    let seconds = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => 86400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?.min(FOREVER))
}

async fn sleep(process: &mut Process) -> Outcome {
    if process.argv.len() < 2 {
        return Err(Failure::new("usage: sleep NUMBER[smhd]..."));
    }
    let mut total = Duration::ZERO;
    for word in &process.argv[1..] {
        total = total.saturating_add(parse_delay(word)?);
    }
    tokio::time::sleep(total).await;
    Ok(0)
}

async fn date(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "uI:R", &[("utc", 'u'), ("iso-8601", 'I'), ("rfc-email", 'R')])?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let format = match options.operands.first() {
        Some(format) => format.strip_prefix('+').ok_or_else(|| Failure::new("the clock cannot be set from a container"))?,
        None if options.has('I') => "%Y-%m-%dT%H:%M:%S+00:00",
        None if options.has('R') => "%a, %d %b %Y %H:%M:%S %z",
        None => "%a %b %e %H:%M:%S UTC %Y",
    };
    let text = strtime::format(format, &now).map_err(|err| Failure::new(err.to_string()))?;
    print(process, format!("{text}\n")).await?;
    Ok(0)
}

async fn hostname(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "ifsd", &[])?;
    let text = if options.has('i') { process.container.net.address().to_string() } else { process.container.hostname.clone() };
    print(process, format!("{text}\n")).await?;
    Ok(0)
}

fn user(process: &Process) -> String {
    if process.container.uid == 0 { "root".to_owned() } else { process.container.uid.to_string() }
}

async fn id(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "ugnG", &[])?;
    let (uid, name) = (process.container.uid, user(process));
    let text = match (options.has('u') || options.has('g') || options.has('G'), options.has('n')) {
        (true, true) => name,
        (true, false) => uid.to_string(),
        _ if uid == 0 => "uid=0(root) gid=0(root) groups=0(root)".to_owned(),
        _ => format!("uid={uid} gid={uid} groups={uid}"),
    };
    print(process, format!("{text}\n")).await?;
    Ok(0)
}

async fn whoami(process: &mut Process) -> Outcome {
    match process.container.uid {
        0 => {
            print(process, "root\n").await?;
            Ok(0)
        }
        uid => Err(Failure::new(format!("unknown uid {uid}"))),
    }
}

async fn uname(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "asnrmvpo", &[])?;
    let host = process.container.hostname.clone();
    let parts = [('s', "Linux"), ('n', &host), ('r', "meshlab"), ('v', "#1"), ('m', std::env::consts::ARCH), ('o', "meshlab")];
    let none = !"asnrmvo".chars().any(|letter| options.has(letter));
    let shown = parts.iter().filter(|(letter, _)| options.has('a') || options.has(*letter) || (none && *letter == 's'));
    let text = shown.map(|(_, part)| *part).collect::<Vec<_>>().join(" ");
    print(process, format!("{text}\n")).await?;
    Ok(0)
}

async fn printenv(process: &mut Process) -> Outcome {
    let names = process.argv[1..].to_vec();
    let all = || process.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
    let text = if names.is_empty() {
        all()
    } else {
        names.iter().filter_map(|name| process.env.get(name)).map(|value| format!("{value}\n")).collect()
    };
    let missing = names.iter().any(|name| !process.env.contains_key(name));
    print(process, text).await?;
    Ok(i32::from(missing))
}

async fn ps(process: &mut Process) -> Outcome {
    let mut text = "PID   USER     TIME  COMMAND\n".to_owned();
    let user = user(process);
    for running in process.container.processes.list() {
        let age = SystemTime::now().duration_since(running.started).unwrap_or_default().as_secs();
        text.push_str(&format!("{:>5} {user:<8} {:>2}:{:02} {}\n", running.pid, age / 60, age % 60, running.argv.join(" ")));
    }
    print(process, text).await?;
    Ok(0)
}

async fn which(process: &mut Process) -> Outcome {
    let mut code = 0;
    let names = process.argv[1..].to_vec();
    for name in names {
        match process.container.image.executable(&name) {
            Some(_) => print(process, format!("/usr/bin/{name}\n")).await?,
            None => code = 1,
        }
    }
    Ok(code)
}

async fn nproc(process: &mut Process) -> Outcome {
    print(process, "1\n").await?;
    Ok(0)
}

async fn clear(process: &mut Process) -> Outcome {
    print(process, "\x1b[H\x1b[J").await?;
    Ok(0)
}

async fn tty(process: &mut Process) -> Outcome {
    let is_terminal = process.stdio.terminal.is_some();
    print(process, if is_terminal { "/dev/pts/0\n" } else { "not a tty\n" }).await?;
    Ok(i32::from(!is_terminal))
}

/// Shows the terminal's size; a terminal here has no other settings.
async fn stty(process: &mut Process) -> Outcome {
    let size = process.stdio.terminal.as_ref().map(|size| *size.borrow());
    let (columns, rows) = size.ok_or_else(|| Failure::new("standard input: Not a tty"))?;
    let text = match process.argv[1..].iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["size"] => format!("{rows} {columns}\n"),
        [] | ["-a"] => format!("speed 38400 baud; rows {rows}; columns {columns};\n"),
        [setting, ..] => return Err(Failure::new(format!("{setting}: not supported here; there are size and -a"))),
    };
    print(process, text).await?;
    Ok(0)
}

//! `wget`, as busybox has it: its flags become curl's, its errors are its own.

use meshlab_program::{ExitCode, Process};

use super::{Options, Tool};
use crate::curl::{self, Transfer};
use crate::output::{Failure, Outcome, complain};

pub(super) const TOOLS: &[(&str, Tool)] = &[("wget", |process| Box::pin(wget(process)))];

async fn wget(process: &mut Process) -> Outcome {
    let long = [
        ("quiet", 'q'),
        ("output-document", 'O'),
        ("spider", 's'),
        ("header", 'H'),
        ("post-data", 'D'),
        ("timeout", 'T'),
        ("user-agent", 'U'),
        ("server-response", 'S'),
        ("no-check-certificate", 'k'),
        ("tries", 't'),
        ("no-verbose", 'n'),
        ("ca-certificate", 'K'),
    ];
    let mut argv = process.argv.clone();
    // The usual way to write `-q -O -`; getopt takes it so, too, but `-nv` is a word of its own.
    argv.retain(|word| word != "-nv");
    let options = Options::parse(&argv, "qsSkcnO:H:D:T:U:t:K:", &long)?;
    let url = options.operands.first().cloned().ok_or_else(|| Failure::new("usage: wget [-qS] [-O FILE] [--header TEXT] URL"))?;
    let name = || {
        let path = url.split(['?', '#']).next()?;
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        Some(path.split_once('/')?.1.rsplit('/').next()?.to_owned())
    };
    let output = options.value('O').map(str::to_owned).or_else(|| name().filter(|name| !name.is_empty()));
    let output = output.unwrap_or_else(|| "index.html".to_owned());
    let mut arguments =
        vec!["-s".to_owned(), "-L".to_owned(), "--globoff".to_owned(), "-f".to_owned(), "-o".to_owned(), output.clone()];
    let mut add = |flag: &str, value: Option<&str>| {
        if let Some(value) = value {
            arguments.extend([flag.to_owned(), value.to_owned()]);
        }
    };
    add("-m", options.value('T'));
    add("-A", Some(options.value('U').unwrap_or("Wget")));
    add("--data-raw", options.value('D'));
    add("--cacert", options.value('K'));
    for header in options.values('H') {
        add("-H", Some(header));
    }
    if options.has('k') {
        arguments.push("-k".to_owned());
    }
    if options.has('s') {
        arguments.push("-I".to_owned());
        arguments[5] = "/dev/null".to_owned();
    }
    arguments.push(url);
    let transfer = curl::transfer(process, &arguments).await?;
    if options.has('S') && transfer.status > 0 {
        complain(process, &format!("  HTTP/1.1 {}", transfer.status)).await;
        for line in &transfer.headers {
            complain(process, &format!("  {line}")).await;
        }
    }
    report(process, &transfer, options.has('q'), &output).await
}

async fn report(process: &mut Process, transfer: &Transfer, quiet: bool, output: &str) -> Outcome {
    match transfer.error {
        None => {
            if !quiet && output != "-" {
                complain(process, &format!("'{output}' saved")).await;
            }
            Ok(0)
        }
        Some((code, ref message)) => Err(Failure::new(describe(code, message, transfer))),
    }
}

fn describe(code: ExitCode, message: &str, transfer: &Transfer) -> String {
    match code {
        6 => format!("bad address '{}'", transfer.host),
        7 => format!("can't connect to remote host ({}): Connection refused", transfer.host),
        22 => format!("server returned error: HTTP/1.1 {}", transfer.status_line()),
        28 => "download timed out".to_owned(),
        52 | 56 => "error getting response: Connection reset by peer".to_owned(),
        _ => message.to_owned(),
    }
}

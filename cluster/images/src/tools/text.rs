//! `cat`, `head`, `tail`, `wc`, `tee`, `seq`, `yes`, `rev`, `tac`, `nl`.

use std::ops::ControlFlow;
use std::time::Duration;

use meshlab_program::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Options, Tool, each_line, read_input, read_inputs};
use crate::output::{Failure, Outcome, complain, print};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("cat", |process| Box::pin(cat(process))),
    ("head", |process| Box::pin(head(process))),
    ("tail", |process| Box::pin(tail(process))),
    ("wc", |process| Box::pin(wc(process))),
    ("tee", |process| Box::pin(tee(process))),
    ("seq", |process| Box::pin(seq(process))),
    ("yes", |process| Box::pin(yes(process))),
    ("tac", |process| Box::pin(tac(process))),
    ("nl", |process| Box::pin(nl(process))),
];

async fn cat(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "nuAetv", &[("number", 'n')])?;
    if options.has('n') {
        return number_lines(process, &options.operands, "").await;
    }
    let files = if options.operands.is_empty() { vec!["-".to_owned()] } else { options.operands };
    let mut code = 0;
    for file in files {
        if file == "-" {
            // Not line by line: this also carries binary streams.
            tokio::io::copy(&mut process.stdio.stdin, &mut process.stdio.stdout).await?;
            continue;
        }
        match process.container.fs.read(&process.path(&file)) {
            Ok(content) => process.stdio.stdout.write_all(&content).await?,
            Err(err) => {
                complain(process, &format!("cat: can't open '{file}': {err}")).await;
                code = 1;
            }
        }
    }
    Ok(code)
}

async fn number_lines(process: &mut Process, files: &[String], suffix: &str) -> Outcome {
    let mut number = 0_u64;
    each_line(process, files, |_, line, output| {
        number += 1;
        output.extend(format!("{number:>6}{suffix}\t").bytes());
        output.extend(line);
        ControlFlow::Continue(())
    })
    .await
}

async fn nl(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "b:", &[])?;
    number_lines(process, &options.operands, "").await
}

/// `head -5` is an old way to write `head -n 5`.
fn with_old_count(argv: &[String]) -> Vec<String> {
    let is_count = |word: &str| word.len() > 1 && word.starts_with('-') && word[1..].bytes().all(|byte| byte.is_ascii_digit());
    let modern = |word: &String| if is_count(word) { format!("-n{}", &word[1..]) } else { word.clone() };
    argv.iter().map(modern).collect()
}

async fn head(process: &mut Process) -> Outcome {
    let options = Options::parse(&with_old_count(&process.argv), "n:c:q", &[("lines", 'n'), ("bytes", 'c')])?;
    if let Some(bytes) = options.number::<u64>('c')? {
        if options.operands.is_empty() {
            tokio::io::copy(&mut (&mut process.stdio.stdin).take(bytes), &mut process.stdio.stdout).await?;
            return Ok(0);
        }
        for file in &options.operands {
            let content = read_input(process, file).await?;
            let end = content.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            print(process, &content[..end]).await?;
        }
        return Ok(0);
    }
    let lines: u64 = options.number('n')?.unwrap_or(10);
    if lines == 0 {
        return Ok(0);
    }
    let (mut left, mut current) = (lines, String::new());
    let only_one = options.operands.len() <= 1;
    each_line(process, &options.operands, |file, line, output| {
        if current != file {
            current = file.to_owned();
            left = lines;
        }
        if left > 0 {
            left -= 1;
            output.extend(line);
        }
        if left == 0 && only_one { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await
}

async fn tail(process: &mut Process) -> Outcome {
    let options = Options::parse(&with_old_count(&process.argv), "n:c:fFq", &[("lines", 'n'), ("bytes", 'c'), ("follow", 'f')])?;
    let content = read_inputs(process, &options.operands).await?;
    let start = match (options.value('c'), options.value('n').unwrap_or("10")) {
        (Some(bytes), _) => from_end(bytes, |count| content.len().saturating_sub(count), |skip| skip)?,
        (None, lines) => {
            let ends: Vec<usize> = content
                .split_inclusive(|byte| *byte == b'\n')
                .scan(0, |at, line| {
                    let start = *at;
                    *at += line.len();
                    Some(start)
                })
                .collect();
            let line_at = |index: usize| ends.get(index).copied().unwrap_or(content.len());
            from_end(lines, |count| if count == 0 { content.len() } else { line_at(ends.len().saturating_sub(count)) }, line_at)?
        }
    };
    print(process, content.get(start..).unwrap_or_default()).await?;
    process.stdio.stdout.flush().await?;
    match (options.has('f') || options.has('F'), options.operands.first()) {
        (true, Some(file)) => follow(process, file, content.len()).await,
        _ => Ok(0),
    }
}

/// `N` counts from the end; `+N` skips to the N-th from the start.
fn from_end(text: &str, last: impl Fn(usize) -> usize, skip: impl Fn(usize) -> usize) -> Result<usize, Failure> {
    let wrong = || Failure::new(format!("invalid number '{text}'"));
    match text.strip_prefix('+') {
        Some(number) => Ok(skip(number.parse::<usize>().map_err(|_| wrong())?.saturating_sub(1))),
        None => Ok(last(text.trim_start_matches('-').parse().map_err(|_| wrong())?)),
    }
}

async fn follow(process: &mut Process, file: &str, mut seen: usize) -> Outcome {
    /// As often as busybox looks.
    const INTERVAL: Duration = Duration::from_secs(1);
    loop {
        tokio::time::sleep(INTERVAL).await;
        // A file that is gone for a moment is one that is being replaced.
        let Ok(content) = process.container.fs.read(&process.path(file)) else { continue };
        // Shorter than before: it was started anew.
        seen = if content.len() < seen { 0 } else { seen };
        print(process, &content[seen..]).await?;
        process.stdio.stdout.flush().await?;
        seen = content.len();
    }
}

async fn wc(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "lwcm", &[("lines", 'l'), ("words", 'w'), ("bytes", 'c'), ("chars", 'm')])?;
    let all = !"lwcm".chars().any(|letter| options.has(letter));
    let files = if options.operands.is_empty() { vec!["-".to_owned()] } else { options.operands.clone() };
    let mut total = [0_usize; 4];
    let show = |counts: [usize; 4], name: &str| {
        let shown = "lwcm".chars().zip(counts).filter(|(letter, _)| options.has(*letter) || (all && *letter != 'm'));
        let numbers: Vec<String> = shown.map(|(_, count)| count.to_string()).collect();
        let numbers = match numbers.len() {
            1 => numbers.concat(),
            _ => numbers.iter().map(|number| format!("{number:>9}")).collect::<String>(),
        };
        if name == "-" { format!("{numbers}\n") } else { format!("{numbers} {name}\n") }
    };
    for file in &files {
        let content = read_input(process, file).await?;
        let text = String::from_utf8_lossy(&content);
        let lines = content.iter().filter(|byte| **byte == b'\n').count();
        let counts = [lines, text.split_whitespace().count(), content.len(), text.chars().count()];
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
        print(process, show(counts, file)).await?;
    }
    if files.len() > 1 {
        print(process, show(total, "total")).await?;
    }
    Ok(0)
}

async fn tee(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "ai", &[("append", 'a')])?;
    let paths: Vec<String> = options.operands.iter().map(|file| process.path(file)).collect();
    let fs = process.container.fs.clone();
    for (path, name) in paths.iter().zip(&options.operands).filter(|_| !options.has('a')) {
        fs.write(path, Vec::new()).map_err(|err| Failure::at(name, &err))?;
    }
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = process.stdio.stdin.read(&mut buffer).await?;
        if count == 0 {
            return Ok(0);
        }
        for (path, name) in paths.iter().zip(&options.operands) {
            fs.append(path, &buffer[..count]).map_err(|err| Failure::at(name, &err))?;
        }
        process.stdio.stdout.write_all(&buffer[..count]).await?;
        process.stdio.stdout.flush().await?;
    }
}

async fn seq(process: &mut Process) -> Outcome {
    // Negative numbers look like flags, so that getopt is of no use here.
    let mut words: Vec<&str> = process.argv[1..].iter().map(String::as_str).collect();
    let mut separator = "\n".to_owned();
    if let Some(at) = words.iter().position(|word| word.starts_with("-s")) {
        let inline = words[at].trim_start_matches("-s");
        let (value, end) =
            if inline.is_empty() { (words.get(at + 1).copied().unwrap_or_default(), at + 2) } else { (inline, at + 1) };
        separator = value.to_owned();
        words.drain(at..end.min(words.len()));
    }
    let number = |text: &str| text.parse::<f64>().map_err(|_| Failure::new(format!("invalid number '{text}'")));
    let (first, step, last) = match words[..] {
        [last] => (1.0, 1.0, number(last)?),
        [first, last] => (number(first)?, 1.0, number(last)?),
        [first, step, last] => (number(first)?, number(step)?, number(last)?),
        _ => return Err(Failure::new("usage: seq [-s SEP] [FIRST [INC]] LAST")),
    };
    let decimals = words.iter().filter_map(|word| word.split_once('.')).map(|(_, digits)| digits.len()).max().unwrap_or(0);
    let mut index = 0.0_f64;
    let mut started = false;
    loop {
        let value = first + index * step;
        if step == 0.0 || (step > 0.0 && value > last) || (step < 0.0 && value < last) {
            break;
        }
        let before = if started { separator.as_str() } else { "" };
        print(process, format!("{before}{value:.decimals$}")).await?;
        started = true;
        index += 1.0;
        tokio::task::consume_budget().await;
    }
    if started {
        print(process, "\n").await?;
    }
    Ok(0)
}

async fn yes(process: &mut Process) -> Outcome {
    let words = process.argv[1..].join(" ");
    let line = format!("{}\n", if words.is_empty() { "y" } else { &words });
    loop {
        print(process, &line).await?;
        tokio::task::consume_budget().await;
    }
}

async fn tac(process: &mut Process) -> Outcome {
    let files = process.argv[1..].to_vec();
    let content = read_inputs(process, &files).await?;
    let mut lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    lines.reverse();
    print(process, lines.concat()).await?;
    Ok(0)
}

//! `mkdir`, `rm`, `rmdir`, `cp`, `mv`, `touch`, `ln`, `chmod`, `mktemp`, `basename`, `dirname`, `readlink`, `realpath`.

use std::io;
use std::time::SystemTime;

use meshlab_program::{FileSystem, FileType, Process};
use rand::Rng;
use rand::distr::Alphanumeric;

use super::{Options, Tool};
use crate::output::{Failure, Outcome, base_name, print};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("mkdir", |process| Box::pin(mkdir(process))),
    ("rm", |process| Box::pin(rm(process))),
    ("rmdir", |process| Box::pin(rmdir(process))),
    ("cp", |process| Box::pin(cp(process))),
    ("mv", |process| Box::pin(mv(process))),
    ("touch", |process| Box::pin(touch(process))),
    ("ln", |process| Box::pin(ln(process))),
    ("chmod", |process| Box::pin(chmod(process))),
    ("chown", |process| Box::pin(chown(process))),
    ("mktemp", |process| Box::pin(mktemp(process))),
    ("basename", |process| Box::pin(basename(process))),
    ("dirname", |process| Box::pin(dirname(process))),
    ("readlink", |process| Box::pin(readlink(process))),
    ("realpath", |process| Box::pin(realpath(process))),
];

/// How deep directories may be nested that a command walks.
const MAX_DEPTH: usize = 100;

fn some(operands: &[String], least: usize, usage: &str) -> Result<(), Failure> {
    if operands.len() < least { Err(Failure::new(format!("usage: {usage}"))) } else { Ok(()) }
}

async fn mkdir(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "pm:v", &[("parents", 'p'), ("mode", 'm')])?;
    some(&options.operands, 1, "mkdir [-p] [-m MODE] DIRECTORY...")?;
    let fs = process.container.fs.clone();
    for name in &options.operands {
        let path = process.path(name);
        let made = if options.has('p') { fs.create_dir_all(&path) } else { fs.create_dir(&path) };
        made.map_err(|err| Failure::new(format!("can't create directory '{name}': {err}")))?;
        if let Some(mode) = options.value('m') {
            fs.set_mode(&path, change_mode(mode, 0o755)?).map_err(|err| Failure::at(name, &err))?;
        }
    }
    Ok(0)
}

async fn rm(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "rRfiv", &[("recursive", 'r'), ("force", 'f')])?;
    if !options.has('f') {
        some(&options.operands, 1, "rm [-rf] FILE...")?;
    }
    let fs = process.container.fs.clone();
    for name in &options.operands {
        let path = process.path(name);
        let recursive = options.has('r') || options.has('R');
        let is_directory = fs.symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type == FileType::Directory);
        let removed = match (is_directory, recursive) {
            (true, true) => fs.remove_dir_all(&path),
            (true, false) => return Err(Failure::new(format!("'{name}' is a directory"))),
            (false, _) => fs.remove_file(&path),
        };
        match removed {
            Err(err) if options.has('f') && err.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|err| Failure::new(format!("can't remove '{name}': {err}")))?,
        }
    }
    Ok(0)
}

async fn rmdir(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "", &[])?;
    some(&options.operands, 1, "rmdir DIRECTORY...")?;
    for name in &options.operands {
        let removed = process.container.fs.remove_dir(&process.path(name));
        removed.map_err(|err| Failure::new(format!("'{name}': {err}")))?;
    }
    Ok(0)
}

/// Where a file goes: into the target if that is a directory.
fn destination(process: &Process, source: &str, target: &str) -> String {
    let path = process.path(target);
    let into = process.container.fs.metadata(&path).is_ok_and(|metadata| metadata.file_type == FileType::Directory);
    if into { format!("{path}/{}", base_name(source)) } else { path }
}

fn check_target(process: &Process, sources: &[String], target: &str) -> Result<(), Failure> {
    let is_directory =
        process.container.fs.metadata(&process.path(target)).is_ok_and(|found| found.file_type == FileType::Directory);
    match sources.len() > 1 && !is_directory {
        true => Err(Failure::new(format!("target '{target}' is not a directory"))),
        false => Ok(()),
    }
}

async fn cp(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "rRapfLdTv", &[("recursive", 'r'), ("archive", 'a'), ("force", 'f')])?;
    some(&options.operands, 2, "cp [-r] SOURCE... TARGET")?;
    let (target, sources) = options.operands.split_last().ok_or_else(|| Failure::new(""))?;
    check_target(process, sources, target)?;
    let recursive = "rRa".chars().any(|letter| options.has(letter));
    for source in sources {
        let (from, to) = (process.path(source), destination(process, source, target));
        if process.container.fs.metadata(&from).is_ok_and(|found| found.file_type == FileType::Directory) && !recursive {
            return Err(Failure::new(format!("omitting directory '{source}'")));
        }
        let real = process.container.fs.canonicalize(&from).unwrap_or_default();
        if process.container.fs.canonicalize(&to).is_ok_and(|to| to == real) {
            return Err(Failure::new(format!("'{source}' and '{target}' are the same file")));
        }
        copy(&process.container.fs, &from, &to, 0)
            .map_err(|err| Failure::new(format!("can't copy '{source}' to '{target}': {err}")))?;
    }
    Ok(0)
}

fn copy(fs: &FileSystem, from: &str, to: &str, depth: usize) -> io::Result<()> {
    let metadata = fs.metadata(from)?;
    if metadata.file_type != FileType::Directory {
        fs.write(to, fs.read(from)?)?;
        return fs.set_mode(to, metadata.mode);
    }
    if depth == MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deep"));
    }
    // The list is taken before anything is written, so that a directory can be copied into itself once, but not without end.
    let entries = fs.list(from)?;
    fs.create_dir_all(to)?;
    for (name, _) in entries {
        let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
        match fs.read_link(&from) {
            Ok(target) => fs.symlink(&target, &to)?,
            Err(_) => copy(fs, &from, &to, depth + 1)?,
        }
    }
    Ok(())
}

async fn mv(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "fnv", &[("force", 'f')])?;
    some(&options.operands, 2, "mv SOURCE... TARGET")?;
    let (target, sources) = options.operands.split_last().ok_or_else(|| Failure::new(""))?;
    check_target(process, sources, target)?;
    let fs = process.container.fs.clone();
    for source in sources {
        let (from, to) = (process.path(source), destination(process, source, target));
        let moved = match fs.rename(&from, &to) {
            Err(err) if err.kind() == io::ErrorKind::CrossesDevices => {
                copy(&fs, &from, &to, 0).and_then(|()| fs.remove_dir_all(&from))
            }
            moved => moved,
        };
        moved.map_err(|err| Failure::new(format!("can't rename '{source}': {err}")))?;
    }
    Ok(0)
}

async fn touch(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "cam", &[("no-create", 'c')])?;
    some(&options.operands, 1, "touch [-c] FILE...")?;
    for name in &options.operands {
        let (fs, path) = (&process.container.fs, process.path(name));
        let touched = match fs.exists(&path) {
            true => fs.set_modified(&path, SystemTime::now()),
            false if options.has('c') => Ok(()),
            false => fs.write(&path, Vec::new()),
        };
        touched.map_err(|err| Failure::at(name, &err))?;
    }
    Ok(0)
}

async fn ln(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "sfn", &[("symbolic", 's'), ("force", 'f')])?;
    let [target, link] = &options.operands[..] else { return Err(Failure::new("usage: ln -s [-f] TARGET LINK")) };
    if !options.has('s') {
        return Err(Failure::new("hard links are not supported by this container's file system; use ln -s"));
    }
    let path = destination(process, target, link);
    if options.has('f') {
        match process.container.fs.remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(Failure::at(link, &err)),
            _ => {}
        }
    }
    process.container.fs.symlink(target, &path).map_err(|err| Failure::at(link, &err))?;
    Ok(0)
}

/// `644`, `+x`, `u+rw,go-w` applied to a mode.
fn change_mode(text: &str, before: u32) -> Result<u32, Failure> {
    let wrong = || Failure::new(format!("invalid mode '{text}'"));
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong);
    }
    let mut mode = before;
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
        let (who, operation) = clause.split_at(at);
        let who = if who.is_empty() || who.contains('a') { "ugo" } else { who };
        let bits = operation[1..].chars().try_fold(0, |bits, c| match c {
            'r' => Ok(bits | 4),
            'w' => Ok(bits | 2),
            'x' | 'X' => Ok(bits | 1),
            _ => Err(wrong()),
        })?;
        for c in who.chars() {
            let shift = match c {
                'u' => 6,
                'g' => 3,
                'o' => 0,
                _ => return Err(wrong()),
            };
            mode = match operation.as_bytes()[0] {
                b'+' => mode | bits << shift,
                b'-' => mode & !(bits << shift),
                _ => mode & !(7 << shift) | bits << shift,
            };
        }
    }
    Ok(mode)
}

async fn chmod(process: &mut Process) -> Outcome {
    // `-x` is a mode here, not a flag.
    let mut words = process.argv[1..].iter().filter(|word| *word != "-R");
    let mode = words.next().cloned().ok_or_else(|| Failure::new("usage: chmod MODE FILE..."))?;
    let names: Vec<String> = words.cloned().collect();
    for name in &names {
        let (fs, path) = (&process.container.fs, process.path(name));
        let before = fs.metadata(&path).map_err(|err| Failure::at(name, &err))?.mode;
        fs.set_mode(&path, change_mode(&mode, before)?).map_err(|err| Failure::at(name, &err))?;
    }
    Ok(0)
}

async fn chown(_process: &mut Process) -> Outcome {
    Err(Failure::new("this container's file system does not keep owners"))
}

async fn mktemp(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "dp:u", &[("directory", 'd')])?;
    let template = options.operands.first().map_or("/tmp/tmp.XXXXXX", String::as_str);
    let end = template.trim_end_matches('X').len();
    let random: String = rand::rng().sample_iter(Alphanumeric).take(template.len() - end).map(char::from).collect();
    let name = format!("{}{random}", &template[..end]);
    let path = process.path(&name);
    let made =
        if options.has('d') { process.container.fs.create_dir(&path) } else { process.container.fs.write(&path, Vec::new()) };
    made.map_err(|err| Failure::at(&name, &err))?;
    print(process, format!("{name}\n")).await?;
    Ok(0)
}

async fn basename(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "", &[])?;
    some(&options.operands, 1, "basename FILE [SUFFIX]")?;
    let name = base_name(&options.operands[0]);
    let suffix = options.operands.get(1).map_or("", String::as_str);
    let line = format!("{}\n", name.strip_suffix(suffix).filter(|stem| !stem.is_empty()).unwrap_or(name));
    print(process, line).await?;
    Ok(0)
}

async fn dirname(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "", &[])?;
    some(&options.operands, 1, "dirname FILE")?;
    let directory = match options.operands[0].trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None if options.operands[0].starts_with('/') => "/",
        None => ".",
    };
    let line = format!("{directory}\n");
    print(process, line).await?;
    Ok(0)
}

async fn readlink(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "fne", &[])?;
    some(&options.operands, 1, "readlink [-f] FILE")?;
    let path = process.path(&options.operands[0]);
    let found = if options.has('f') { process.container.fs.canonicalize(&path) } else { process.container.fs.read_link(&path) };
    match found {
        Ok(found) => {
            print(process, format!("{found}\n")).await?;
            Ok(0)
        }
        // Silent, as everywhere.
        Err(_) => Ok(1),
    }
}

async fn realpath(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "", &[])?;
    some(&options.operands, 1, "realpath FILE...")?;
    for name in &options.operands {
        let found = process.container.fs.canonicalize(&process.path(name)).map_err(|err| Failure::at(name, &err))?;
        print(process, format!("{found}\n")).await?;
    }
    Ok(0)
}

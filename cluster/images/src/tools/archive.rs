//! `tar`, with which `kubectl cp` carries files, and `gzip`.

use std::io::{Cursor, Read, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use meshlab_program::{FileType, Process, absolute};
use tar::{Archive, Builder, EntryType, Header};

use super::{Options, Tool, read_input};
use crate::output::{Failure, Outcome, base_name, complain, print};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("tar", |process| Box::pin(tar(process))),
    ("gzip", |process| Box::pin(gzip(process))),
    ("gunzip", |process| Box::pin(gzip(process))),
    ("zcat", |process| Box::pin(gzip(process))),
];

/// The largest archive, unpacked.
const MAX_ARCHIVE: u64 = 64 << 20;

async fn tar(process: &mut Process) -> Outcome {
    let mut argv = process.argv.clone();
    // `tar xf -`: the first word is flags even without a dash.
    if let Some(first) = argv.get_mut(1).filter(|word| !word.starts_with('-')) {
        first.insert(0, '-');
    }
    let long = [
        ("create", 'c'),
        ("extract", 'x'),
        ("list", 't'),
        ("file", 'f'),
        ("directory", 'C'),
        ("gzip", 'z'),
        ("verbose", 'v'),
        ("touch", 'm'),
        ("no-same-permissions", 'o'),
        ("no-same-owner", 'o'),
        ("warning", 'W'),
        ("strip-components", 'S'),
    ];
    let options = Options::parse(&argv, "cxtzvmpohPf:C:W:S:", &long)?;
    let file = options.value('f').unwrap_or("-").to_owned();
    if options.has('c') {
        return create(process, &options, &file).await;
    }
    if !options.has('x') && !options.has('t') {
        return Err(Failure::new("one of -c, -x and -t is needed"));
    }
    let bytes = read_archive(process, &file).await?;
    extract(process, &options, &bytes).await
}

/// Reads an archive, packed or not: its first bytes tell.
async fn read_archive(process: &mut Process, file: &str) -> Result<Vec<u8>, Failure> {
    use tokio::io::AsyncReadExt;
    let bytes = match file {
        "-" => {
            let mut bytes = Vec::new();
            (&mut process.stdio.stdin).take(MAX_ARCHIVE + 1).read_to_end(&mut bytes).await?;
            bytes
        }
        file => read_input(process, file).await?,
    };
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) { unpack(&bytes)? } else { bytes };
    match bytes.len() as u64 > MAX_ARCHIVE {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}

fn too_large() -> Failure {
    Failure::new(format!("the archive is over {} MiB", MAX_ARCHIVE >> 20))
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut unpacked = Vec::new();
    let read = GzDecoder::new(bytes).take(MAX_ARCHIVE + 1).read_to_end(&mut unpacked);
    read.map_err(|err| Failure::new(format!("invalid gzip data: {err}")))?;
    Ok(unpacked)
}

fn pack(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

async fn create(process: &mut Process, options: &Options, file: &str) -> Outcome {
    let from = options.value('C').map_or_else(|| process.cwd.clone(), |directory| process.path(directory));
    let mut archive = Builder::new(Vec::new());
    let (mut code, mut stripped) = (0, false);
    let mut todo: Vec<String> = options.operands.iter().rev().cloned().collect();
    if todo.is_empty() {
        return Err(Failure::new("empty archive"));
    }
    while let Some(name) = todo.pop() {
        if archive.get_ref().len() as u64 > MAX_ARCHIVE {
            return Err(too_large());
        }
        let path = absolute(&from, &name);
        let fs = process.container.fs.clone();
        let metadata = match fs.symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(err) => {
                complain(process, &format!("tar: {name}: {err}")).await;
                code = 1;
                continue;
            }
        };
        let inside = name.trim_start_matches('/');
        if inside.len() < name.len() && !stripped {
            stripped = true;
            complain(process, "tar: removing leading '/' from member names").await;
        }
        if options.has('v') {
            complain(process, inside).await;
        }
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode);
        header.set_mtime(metadata.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs());
        match metadata.file_type {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                let shown = if inside.is_empty() { "./".to_owned() } else { format!("{}/", inside.trim_end_matches('/')) };
                archive.append_data(&mut header, shown, std::io::empty())?;
                let entries = fs.list(&path).map_err(|err| Failure::at(&name, &err))?;
                todo.extend(entries.into_iter().rev().map(|(entry, _)| format!("{}/{entry}", name.trim_end_matches('/'))));
            }
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, inside, fs.read_link(&path)?)?;
            }
            FileType::File => {
                let content = fs.read(&path).map_err(|err| Failure::at(&name, &err))?;
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, inside, &content[..])?;
            }
            FileType::Null => {}
        }
    }
    let mut bytes = archive.into_inner()?;
    if options.has('z') {
        bytes = pack(&bytes)?;
    }
    match file {
        "-" => print(process, bytes).await?,
        file => process.container.fs.write(&process.path(file), bytes).map_err(|err| Failure::at(file, &err))?,
    }
    Ok(code)
}

/// What an entry is, read out so that no borrowed archive lives while something is awaited.
struct Member {
    path: String,
    kind: EntryType,
    mode: u32,
    modified: SystemTime,
    target: Option<String>,
    content: Vec<u8>,
}

fn members(bytes: &[u8]) -> Result<Vec<Member>, Failure> {
    let wrong = |err: std::io::Error| Failure::new(format!("invalid tar archive: {err}"));
    let mut archive = Archive::new(Cursor::new(bytes));
    let (mut members, mut room) = (Vec::new(), MAX_ARCHIVE);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let header = entry.header();
        let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(header.mtime().unwrap_or(0)));
        let mut member = Member {
            path: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            kind: header.entry_type(),
            mode: header.mode().unwrap_or(0o644),
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
            target: entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned()),
            content: Vec::new(),
        };
        // A sparse file says of itself how long it is, and can be any number of times longer than the archive.
        let read = (&mut entry).take(room + 1).read_to_end(&mut member.content).map_err(wrong)?;
        room = room.checked_sub(read as u64).ok_or_else(too_large)?;
        members.push(member);
    }
    Ok(members)
}

async fn extract(process: &mut Process, options: &Options, bytes: &[u8]) -> Outcome {
    let into = options.value('C').map_or_else(|| process.cwd.clone(), |directory| process.path(directory));
    let fs = process.container.fs.clone();
    if !fs.metadata(&into).is_ok_and(|metadata| metadata.file_type == FileType::Directory) {
        return Err(Failure::new(format!("can't change directory to '{into}': No such file or directory")));
    }
    let strip: usize = options.number('S')?.unwrap_or(0);
    for member in members(bytes)? {
        let shown = member.path.clone();
        let parts: Vec<&str> = member.path.split('/').filter(|part| !part.is_empty() && *part != ".").skip(strip).collect();
        if parts.contains(&"..") {
            complain(process, &format!("tar: skipping '{shown}': it leads out of the archive")).await;
            continue;
        }
        let wanted =
            |name: &String| shown.trim_end_matches('/') == name.trim_end_matches('/') || shown.starts_with(&format!("{name}/"));
        if !options.operands.is_empty() && !options.operands.iter().any(wanted) {
            continue;
        }
        if options.has('t') {
            print(process, format!("{shown}\n")).await?;
            continue;
        }
        if options.has('v') {
            complain(process, &shown).await;
        }
        if parts.is_empty() {
            continue;
        }
        let path = format!("{into}/{}", parts.join("/"));
        let parent = format!("{into}/{}", parts[..parts.len() - 1].join("/"));
        let result = fs.create_dir_all(&parent).and_then(|()| match member.kind {
            EntryType::Directory => fs.create_dir_all(&path),
            EntryType::Symlink => {
                let _ = fs.remove_file(&path);
                fs.symlink(member.target.as_deref().unwrap_or_default(), &path)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                fs.write(&path, member.content)?;
                fs.set_mode(&path, member.mode)?;
                if options.has('m') { Ok(()) } else { fs.set_modified(&path, member.modified) }
            }
            // Comments of the format, such as a pax header.
            _ => Ok(()),
        });
        result.map_err(|err| Failure::new(format!("can't create '{shown}': {err}")))?;
    }
    Ok(0)
}

async fn gzip(process: &mut Process) -> Outcome {
    let name = base_name(&process.argv[0]).to_owned();
    let options = Options::parse(&process.argv, "dckf123456789", &[("decompress", 'd'), ("stdout", 'c')])?;
    let decompress = options.has('d') || name != "gzip";
    let file = options.operands.first().cloned().unwrap_or_else(|| "-".to_owned());
    let content = read_input(process, &file).await?;
    let result = if decompress { unpack(&content)? } else { pack(&content)? };
    if file == "-" || options.has('c') || name == "zcat" {
        print(process, result).await?;
        return Ok(0);
    }
    let target = match decompress {
        true => file.strip_suffix(".gz").ok_or_else(|| Failure::new(format!("{file}: unknown suffix - ignored")))?.to_owned(),
        false => format!("{file}.gz"),
    };
    process.container.fs.write(&process.path(&target), result).map_err(|err| Failure::at(&target, &err))?;
    if !options.has('k') {
        process.container.fs.remove_file(&process.path(&file)).map_err(|err| Failure::at(&file, &err))?;
    }
    Ok(0)
}

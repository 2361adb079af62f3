//! Processes, terminals and pipes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use meshlab_net::{HostOptions, VirtualNet, VirtualNetOptions};
use meshlab_program::{
    Container, ExitCode, FileSystem, Image, Process, Processes, Program, Shared, Signal, Signals, SpawnError, Stdio, pipe,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Writes its arguments, then ends, waits for a signal, or panics, as its name says.
struct Probe;

#[async_trait]
impl Program for Probe {
    async fn run(&self, mut process: Process) -> ExitCode {
        let line = format!("{}\n", process.argv.join(" "));
        process.stdio.stdout.write_all(line.as_bytes()).await.unwrap();
        match process.argv[0].as_str() {
            "wait" => match process.signals.requested().await {
                Signal::Terminate => 143,
                _ => 130,
            },
            "panic" => panic!("a bug in a program"),
            "cat" => {
                tokio::io::copy(&mut process.stdio.stdin, &mut process.stdio.stdout).await.unwrap();
                0
            }
            _ => 7,
        }
    }
}

fn container() -> Arc<Container> {
    let probe: Arc<dyn Program> = Arc::new(Probe);
    let image = ["end", "wait", "panic", "cat"]
        .into_iter()
        .fold(Image::builder(), |image, name| image.executable(name, probe.clone()))
        .build();
    let net = VirtualNet::new(VirtualNetOptions::default());
    let net = net.attach("10.244.0.5".parse().unwrap(), HostOptions::pod("probe", "default", "cluster.local")).unwrap();
    let fs = FileSystem::new(&image);
    Arc::new(Container { image, fs, net, hostname: "probe".to_owned(), uid: 0, processes: Processes::default() })
}

fn process(container: &Arc<Container>, argv: &[&str], stdio: Stdio) -> Process {
    let (_, signals) = Signals::channel();
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    Process { container: container.clone(), argv, env: BTreeMap::new(), cwd: "/".to_owned(), stdio, signals }
}

fn into_pipe() -> (Stdio, meshlab_program::PipeReader) {
    let (writer, reader) = pipe();
    (Stdio { stdout: Box::new(writer), ..Stdio::null() }, reader)
}

#[tokio::test]
async fn a_process_is_in_the_table_while_it_runs() {
    let container = container();
    let mut child = process(&container, &["wait", "x"], Stdio::null()).spawn().unwrap();
    let listed: Vec<_> = container.processes.list().into_iter().map(|running| (running.pid, running.argv)).collect();
    assert_eq!(listed, [(1, vec!["wait".to_owned(), "x".to_owned()])]);
    assert!(container.processes.signal(1, Signal::Terminate));
    assert_eq!(child.wait().await, 143);
    assert!(container.processes.list().is_empty());
    assert!(!container.processes.kill(1));
}

#[tokio::test]
async fn killed_and_broken_processes_have_the_codes_of_their_signals() {
    let container = container();
    let mut killed = process(&container, &["wait"], Stdio::null()).spawn().unwrap();
    container.processes.kill_all();
    assert_eq!(killed.wait().await, 137);
    let mut broken = process(&container, &["panic"], Stdio::null()).spawn().unwrap();
    assert_eq!(broken.wait().await, 134);
    let child = process(&container, &["wait"], Stdio::null()).spawn().unwrap();
    drop(child);
    while !container.processes.list().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn scripts_need_an_interpreter_and_the_executable_bit() {
    let container = container();
    let spawn = |name: &str| process(&container, &[name, "argument"], Stdio::null()).spawn();
    assert_eq!(spawn("none").unwrap_err(), SpawnError::NotFound("none".to_owned()));
    assert_eq!(spawn("/none").unwrap_err().exit_code(), 127);
    container.fs.write("/script", "#!/usr/bin/env end -x\n").unwrap();
    assert_eq!(spawn("/script").unwrap_err(), SpawnError::PermissionDenied("/script".to_owned()));
    container.fs.set_mode("/script", 0o755).unwrap();
    container.fs.write("/script", "#!/bin/end -x y\n").unwrap();
    let (stdio, mut reader) = into_pipe();
    let mut child = process(&container, &["/script", "argument"], stdio).spawn().unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).await.unwrap();
    assert_eq!((child.wait().await, said.as_str()), (7, "/bin/end -x y /script argument\n"));
    container.fs.write("/script", "no interpreter").unwrap();
    assert_eq!(spawn("/script").unwrap_err(), SpawnError::Format("/script".to_owned()));
    container.fs.write("/script", "#!/script\n").unwrap();
    assert_eq!(spawn("/script").unwrap_err().exit_code(), 126);
    assert_eq!(spawn("/usr/local/bin/end").unwrap().wait().await, 7);
}

#[tokio::test]
async fn a_container_has_room_for_so_many_processes() {
    let container = container();
    let mut children = Vec::new();
    let refused = loop {
        match process(&container, &["wait"], Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(err) => break err,
        }
    };
    assert_eq!((children.len(), refused), (256, SpawnError::TooManyProcesses));
}

#[tokio::test]
async fn a_shared_stream_wakes_everybody_who_waits() {
    let (writer, mut reader) = pipe();
    let shared = Shared::new(writer);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let mut shared = shared.clone();
            tokio::spawn(async move { shared.write_all(&vec![1; 200_000]).await.unwrap() })
        })
        .collect();
    drop(shared);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), 800_000);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_terminal_edits_lines_echoes_and_ends_input() {
    let ((mut keys, typed), (screen, mut seen)) = (pipe(), pipe());
    let (sender, mut signals) = Signals::channel();
    let stdio = Stdio::terminal(typed, screen, watch::channel((80, 24)).1, sender);
    let container = container();
    let mut child = process(&container, &["cat"], stdio).spawn().unwrap();
    keys.write_all("aü\x7fb\x1b[A\rlost\x15kept\x17x\r\x04".as_bytes()).await.unwrap();
    assert_eq!(child.wait().await, 0);
    let mut text = String::new();
    // The screen closes only after everything is shown.
    seen.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("cat\r\n") || text.contains("cat\r\n"), "{text:?}");
    assert!(text.contains("ab\r\n") && text.ends_with("x\r\n"), "{text:?}");
    assert_eq!(signals.take(), None);
}

#[tokio::test]
async fn control_c_is_a_signal() {
    let ((mut keys, typed), (screen, _seen)) = (pipe(), pipe());
    let (sender, signals) = Signals::channel();
    let stdio = Stdio::terminal(typed, screen, watch::channel((80, 24)).1, sender);
    let mut process = process(&container(), &["wait"], stdio);
    process.signals = signals;
    let mut child = process.spawn().unwrap();
    keys.write_all(b"\x03").await.unwrap();
    assert_eq!(child.wait().await, 130);
}

//! Exec and attach.

use futures::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::spdy_client::SpdyClient;
use super::websocket_client::WebSocketClient;
use super::{SOON, spdy_request, websocket_request};
use crate::spdy::Frame;
use crate::{Outcome, ProcessStreams, RemoteCommandUpgrade, StreamError, WantedStreams};

const ALL: WantedStreams = WantedStreams { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: WantedStreams = WantedStreams { stdin: true, stdout: true, stderr: false, tty: true };

/// A process's own ends of its streams.
struct Process {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<(u16, u16)>,
    exit: oneshot::Sender<Outcome>,
}

impl Process {
    /// Reads all of standard input, writes it back in capitals, complains, and exits.
    async fn shout(mut self, code: i32) {
        let mut input = String::new();
        self.stdin.read_to_string(&mut input).await.unwrap();
        self.stdout.write_all(input.to_uppercase().as_bytes()).await.unwrap();
        self.stderr.write_all(b"so loud").await.unwrap();
        self.exit.send(Outcome::Exited(code)).unwrap();
    }
}

/// Serves a session on `io`, and gives the ends of the process in it.
fn serve(
    upgrade: RemoteCommandUpgrade,
    io: DuplexStream,
    wanted: WantedStreams,
) -> (Process, tokio::task::JoinHandle<Result<(), StreamError>>) {
    let ((stdin, stdin_end), (stdout_end, stdout), (stderr_end, stderr)) =
        (tokio::io::duplex(64), tokio::io::duplex(64), tokio::io::duplex(64));
    let (resize, sizes) = mpsc::channel(4);
    let (exit, exited) = oneshot::channel();
    let streams = ProcessStreams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: Some(resize),
    };
    let session = tokio::spawn(async move {
        let command = upgrade.start(io, wanted).await?;
        command.run(streams, async { exited.await.unwrap_or_else(|_| Outcome::internal("lost")) }).await
    });
    (Process { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end, sizes, exit }, session)
}

fn websocket(protocol: &str) -> RemoteCommandUpgrade {
    RemoteCommandUpgrade::negotiate(&websocket_request("/exec", protocol)).unwrap()
}

fn spdy(protocol: &str) -> RemoteCommandUpgrade {
    RemoteCommandUpgrade::negotiate(&spdy_request(protocol)).unwrap()
}

#[tokio::test]
async fn websocket_v5_carries_a_command_and_its_exit_code() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (process, session) = serve(websocket("v5.channel.k8s.io"), theirs, ALL);
    tokio::spawn(process.shout(3));
    let mut client = WebSocketClient::new(ours).await;
    client.send(0, b"hello ").await;
    client.send(0, b"world").await;
    client.send(255, &[0]).await;
    let [_, stdout, stderr, status, _] = client.rest().await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("HELLO WORLD", "so loud"));
    insta::assert_snapshot!(status, @r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: exit status 3","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}"#);
    timeout(SOON, session).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_told_in_the_status() {
    let (ours, theirs) = tokio::io::duplex(256);
    let command = websocket("v5.channel.k8s.io").start(theirs, ALL).await.unwrap();
    let finished = tokio::spawn(command.finish(Outcome::internal("no such container")));
    let [.., status, _] = WebSocketClient::new(ours).await.rest().await;
    insta::assert_snapshot!(status, @r#"{"code":500,"message":"no such container","metadata":{},"reason":"InternalError","status":"Failure"}"#);
    timeout(SOON, finished).await.unwrap().unwrap();
}

#[tokio::test]
async fn websocket_v4_knows_no_close_signal() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (mut process, _session) = serve(websocket("v4.channel.k8s.io"), theirs, ALL);
    let mut client = WebSocketClient::new(ours).await;
    client.send(255, &[0]).await;
    client.send(0, b"still here").await;
    process.stdin.read_exact(&mut [0; 10]).await.unwrap();
    process.exit.send(Outcome::Exited(0)).unwrap();
    drop((process.stdout, process.stderr));
    assert_eq!(client.rest().await[3], r#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn the_first_protocol_of_all_has_text_for_failure_and_nothing_for_success() {
    for (code, expected) in [(0, ""), (1, "command terminated with non-zero exit code: exit status 1")] {
        let (ours, theirs) = tokio::io::duplex(256);
        let (process, _session) = serve(websocket("channel.k8s.io"), theirs, ALL);
        drop((process.stdout, process.stderr));
        process.exit.send(Outcome::Exited(code)).unwrap();
        assert_eq!(WebSocketClient::new(ours).await.rest().await[3], expected);
    }
}

#[tokio::test]
async fn base64_channels_are_text() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (process, _session) = serve(websocket("v4.base64.channel.k8s.io"), theirs, ALL);
    let mut client = WebSocketClient::new(ours).await;
    client.0.send(Message::text("0aGVsbG8=")).await.unwrap();
    let mut stdin = process.stdin;
    let mut input = [0; 5];
    stdin.read_exact(&mut input).await.unwrap();
    assert_eq!(&input, b"hello");
    drop((process.stdout, process.stderr));
    process.exit.send(Outcome::Exited(0)).unwrap();
    let mut texts = Vec::new();
    while let Some(Ok(message)) = futures::StreamExt::next(&mut client.0).await {
        if let Message::Text(text) = message {
            texts.push(text.to_string());
        }
    }
    assert_eq!(texts, ["1", "3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ=="]);
}

#[tokio::test]
async fn terminal_sizes_reach_the_process() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (mut process, _session) = serve(websocket("v5.channel.k8s.io"), theirs, TERMINAL);
    let mut client = WebSocketClient::new(ours).await;
    client.send(4, br#"{"Width":80,"Hei"#).await;
    client.send(4, br#"ght":24}{"Width":100,"Height":30}"#).await;
    assert_eq!(process.sizes.recv().await, Some((80, 24)));
    assert_eq!(process.sizes.recv().await, Some((100, 30)));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_session() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (mut process, session) = serve(websocket("v5.channel.k8s.io"), theirs, ALL);
    let mut client = WebSocketClient::new(ours).await;
    client.send(0, b"x").await;
    assert_eq!(process.stdin.read_u8().await.unwrap(), b'x');
    drop(client);
    assert!(matches!(timeout(SOON, session).await.unwrap().unwrap(), Err(StreamError::Disconnected)));
    assert_eq!(process.stdin.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(process.exit.is_closed());
}

#[tokio::test]
async fn messages_beyond_all_measure_end_the_session() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (_process, session) = serve(websocket("v5.channel.k8s.io"), theirs, ALL);
    let mut client = WebSocketClient::new(ours).await;
    // The server hangs up in the middle of it.
    let _ = client.0.send(Message::binary(vec![0; 2 * 1024 * 1024])).await;
    assert!(matches!(timeout(SOON, session).await.unwrap().unwrap(), Err(StreamError::Disconnected)));
}

#[tokio::test]
async fn spdy_v4_carries_a_command_and_its_exit_code() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (process, session) = serve(spdy("v4.channel.k8s.io"), theirs, ALL);
    tokio::spawn(process.shout(3));
    let mut client = SpdyClient::new(ours);
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(stream, &[("streamtype", kind)]).await;
        assert!(matches!(client.next().await, Some(Frame::SynReply { stream: replied, .. }) if replied == stream));
    }
    client.send(Frame::Ping { id: 1 }).await;
    assert_eq!(client.next().await, Some(Frame::Ping { id: 1 }));
    client.data(3, b"hello ", false).await;
    client.data(3, b"world", true).await;
    let status = client.until_end_of(1).await;
    assert!(status.contains("NonZeroExitCode"), "{status}");
    // The status is the last word: everything else had been said before it.
    assert_eq!(client.received[&5], (b"HELLO WORLD".to_vec(), true));
    assert_eq!(client.received[&7], (b"so loud".to_vec(), true));
    loop {
        match client.next().await {
            Some(Frame::GoAway { .. }) => break,
            Some(Frame::Data(frame)) => assert_eq!((frame.stream, frame.fin), (3, true)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.next().await, None);
    drop(client);
    timeout(SOON, session).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn spdy_standard_input_stays_open_as_long_as_the_command_runs() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (mut process, _session) = serve(spdy("v4.channel.k8s.io"), theirs, TERMINAL);
    let mut client = SpdyClient::new(ours);
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        client.open(stream, &[("streamtype", kind)]).await;
        client.next().await;
    }
    client.data(7, br#"{"Width":80,"Height":24}"#, false).await;
    assert_eq!(process.sizes.recv().await, Some((80, 24)));
    client.data(3, b"$", false).await;
    assert_eq!(process.stdin.read_u8().await.unwrap(), b'$');
    process.stdout.write_all(b"prompt").await.unwrap();
    while client.received.get(&5).is_none_or(|(bytes, _)| bytes != b"prompt") {
        client.next().await.unwrap();
    }
    assert_eq!(client.received.keys().collect::<Vec<_>>(), [&5], "kubectl would take an end of stdin for the end");
}

#[tokio::test]
async fn a_spdy_client_without_windows_gets_more_than_one_window() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (mut process, _session) =
        serve(spdy("v4.channel.k8s.io"), theirs, WantedStreams { stdout: true, ..WantedStreams::default() });
    let mut client = SpdyClient::new(ours);
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    let writing = tokio::spawn(async move {
        process.stdout.write_all(&vec![b'x'; 300_000]).await.unwrap();
        drop(process.stdout);
        process.exit.send(Outcome::Exited(0)).unwrap();
    });
    assert_eq!(client.until_end_of(3).await.len(), 300_000);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_spdy_client_with_windows_gets_what_it_allows() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (mut process, _session) =
        serve(spdy("v4.channel.k8s.io"), theirs, WantedStreams { stdout: true, ..WantedStreams::default() });
    let mut client = SpdyClient::new(ours);
    client.send(Frame::Settings { entries: vec![(7, 10)] }).await;
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    process.stdout.write_all(b"0123456789abcdefghij").await.unwrap();
    let received = |client: &SpdyClient<DuplexStream>| client.received.get(&3).map_or(0, |(bytes, _)| bytes.len());
    while received(&client) < 10 {
        client.next().await.unwrap();
    }
    // The answer to a ping comes behind everything that was sent before.
    client.send(Frame::Ping { id: 1 }).await;
    while client.next().await.unwrap() != (Frame::Ping { id: 1 }) {}
    assert_eq!(received(&client), 10);
    client.send(Frame::WindowUpdate { stream: 3, delta: 100 }).await;
    while received(&client) < 20 {
        client.next().await.unwrap();
    }
}

#[tokio::test]
async fn a_spdy_client_gets_windows_for_what_it_sends() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let wanted = WantedStreams { stdin: true, ..WantedStreams::default() };
    let (process, _session) = serve(spdy("v4.channel.k8s.io"), theirs, wanted);
    let mut client = SpdyClient::new(ours);
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdin")]).await;
    let mut stdin = process.stdin;
    tokio::spawn(async move { tokio::io::copy(&mut stdin, &mut tokio::io::sink()).await });
    client.data(3, &vec![0; 40_000], false).await;
    let mut windows = Vec::new();
    while windows.len() < 2 {
        if let Some(Frame::WindowUpdate { stream, delta }) = client.next().await {
            windows.push((stream, delta));
        }
    }
    assert_eq!(windows, [(0, 40_000), (3, 40_000)]);
}

#[tokio::test]
async fn unknown_streams_are_refused_and_do_no_harm() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (process, _session) =
        serve(spdy("v4.channel.k8s.io"), theirs, WantedStreams { stdout: true, ..WantedStreams::default() });
    let mut client = SpdyClient::new(ours);
    client.open(1, &[("streamtype", "nonsense")]).await;
    client.open(3, &[("streamtype", "error")]).await;
    client.open(2, &[("streamtype", "even")]).await;
    client.data(99, b"nobody opened it", false).await;
    client.open(5, &[("streamtype", "stdout")]).await;
    drop((process.stdout, process.stderr));
    process.exit.send(Outcome::Exited(0)).unwrap();
    let mut refused = Vec::new();
    while !client.received.get(&3).is_some_and(|(_, ended)| *ended) {
        if let Some(Frame::RstStream { stream, .. }) = client.next().await {
            refused.push(stream);
        }
    }
    refused.sort_unstable();
    assert_eq!(refused, [1, 2, 99]);
}

#[tokio::test]
async fn a_spdy_client_that_sends_rubbish_is_cut_off() {
    let (mut ours, theirs) = tokio::io::duplex(256);
    let (_process, session) = serve(spdy("v4.channel.k8s.io"), theirs, ALL);
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(timeout(SOON, session).await.unwrap().unwrap(), Err(StreamError::Disconnected)));
    let mut rest = Vec::new();
    timeout(SOON, ours.read_to_end(&mut rest)).await.unwrap().unwrap();
}

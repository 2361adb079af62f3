//! A small image, `tools`, whose programs do what the tests need and nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use meshlab_net::{Listener, Net};
use meshlab_program::{ExitCode, Image, Process, Program, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The image `tools`.
pub(crate) fn tools() -> Arc<Image> {
    let mut image = Image::builder().entrypoint(["serve"]).cmd(["8080"]).env("IMAGE", "tools");
    for name in ["cat", "echo", "env", "exit", "fetch", "serve", "sleep", "stubborn", "upper", "write"] {
        image = image.executable(name, Arc::new(Tool));
    }
    image.build()
}

struct Tool;

#[async_trait]
impl Program for Tool {
    async fn run(&self, process: Process) -> ExitCode {
        let name = process.argv[0].rsplit('/').next().unwrap_or_default().to_owned();
        match name.as_str() {
            "cat" => cat(process).await,
            "echo" => say(process, |process| process.argv[1..].join(" ")).await,
            "env" => say(process, |process| process.env.iter().map(|(k, v)| format!("{k}={v}\n")).collect()).await,
            "exit" => process.argv[1].parse().unwrap(),
            "fetch" => fetch(process).await,
            "serve" => serve(process).await,
            "sleep" => sleep(process).await,
            "stubborn" => std::future::pending().await,
            "upper" => upper(process).await,
            "write" => write(process),
            _ => 127,
        }
    }
}

async fn say(mut process: Process, text: impl FnOnce(&Process) -> String) -> ExitCode {
    let text = text(&process) + "\n";
    match process.stdio.stdout.write_all(text.as_bytes()).await {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// `cat FILE`
async fn cat(mut process: Process) -> ExitCode {
    match process.container.fs.read(&process.path(&process.argv[1])) {
        Ok(content) => process.stdio.stdout.write_all(&content).await.map_or(1, |()| 0),
        Err(error) => {
            let _ = process.stdio.stderr.write_all(format!("cat: {error}\n").as_bytes()).await;
            1
        }
    }
}

/// `write FILE TEXT`
fn write(process: Process) -> ExitCode {
    let path = process.path(&process.argv[1]);
    process.container.fs.write(&path, process.argv[2].clone()).map_or(1, |()| 0)
}

/// `sleep SECONDS [EXIT CODE]`; a signal ends it with 143 at once.
async fn sleep(mut process: Process) -> ExitCode {
    let seconds = Duration::from_secs_f64(process.argv[1].parse().unwrap());
    tokio::select! {
        () = tokio::time::sleep(seconds) => process.argv.get(2).map_or(0, |code| code.parse().unwrap()),
        signal = process.signals.requested() => if signal == Signal::Interrupt { 130 } else { 143 },
    }
}

/// Upper-cases its input, line by line as it comes.
async fn upper(mut process: Process) -> ExitCode {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = process.stdio.stdin.read(&mut buffer).await {
        if process.stdio.stdout.write_all(&buffer[..count].to_ascii_uppercase()).await.is_err() {
            return 1;
        }
    }
    0
}

/// `serve PORT [DELAY]`: HTTP, 200 with the host name; 503 as long as the file `/sick` exists. Listens after DELAY seconds.
async fn serve(process: Process) -> ExitCode {
    let port: u16 = process.argv[1].parse().unwrap();
    if let Some(delay) = process.argv.get(2) {
        tokio::time::sleep(Duration::from_secs_f64(delay.parse().unwrap())).await;
    }
    let Ok(mut listener) = process.container.net.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await else { return 1 };
    let mut signals = process.signals.clone();
    let serve = async {
        while let Ok(mut stream) = listener.accept().await {
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !request[..length].windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                match stream.read(&mut request[length..]).await {
                    Ok(count @ 1..) => length += count,
                    _ => break,
                }
            }
            let sick = process.container.fs.exists("/sick");
            let status = if sick { "503 Service Unavailable" } else { "200 OK" };
            let body = &process.container.hostname;
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    };
    tokio::select! {
        () = serve => 1,
        _ = signals.requested() => 0,
    }
}

/// `fetch HOST PORT`: prints the body that an HTTP server answers with.
async fn fetch(mut process: Process) -> ExitCode {
    let answer = async {
        let addresses = process.container.net.resolve(&process.argv[1]).await?;
        let port: u16 = process.argv[2].parse().map_err(std::io::Error::other)?;
        let mut stream = process.container.net.connect((addresses[0], port).into()).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    };
    match answer.await {
        Ok(body) => process.stdio.stdout.write_all((body + "\n").as_bytes()).await.map_or(1, |()| 0),
        Err(error) => {
            let _ = process.stdio.stderr.write_all(format!("fetch: {error}\n").as_bytes()).await;
            1
        }
    }
}

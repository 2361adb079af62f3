//! nginx: static files and the everyday part of its configuration. Written from nginx's documentation of its directives
//! (<https://nginx.org/en/docs/dirindex.html>); what is not known is refused in nginx's own words.

mod config;
mod location;
mod proxy;
mod serve;
mod static_files;
mod syntax;
mod variables;

use std::sync::Arc;

use async_trait::async_trait;
use meshlab_program::{ExitCode, Image, Process, Program};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::server::listen;
use crate::output::{Failure, Outcome, complain, finish, print};
use config::Config;

/// The version that `Server` and `nginx -v` give: the directives here are those of this one.
const VERSION: &str = "1.27.5";

const CONFIG: &str = "/etc/nginx/nginx.conf";

/// Lines of the access log that may wait to be written.
const LOG_LINES: usize = 1024;

/// Reads a configuration, as at the start and at `nginx -t`.
pub(crate) fn load(fs: &meshlab_program::FileSystem, path: &str) {
    let _ = Config::load(fs, path);
    if let Ok(text) = fs.read_text(path) {
        let _ = syntax::check_globals(&text);
    }
}

/// The image `nginx`.
pub fn nginx() -> Arc<Image> {
    Image::builder()
        .executable("nginx", Arc::new(Nginx))
        .base(&crate::busybox())
        .file(CONFIG, include_str!("files/nginx.conf"))
        .file("/etc/nginx/conf.d/default.conf", include_str!("files/default.conf"))
        .file("/etc/nginx/mime.types", include_str!("files/mime.types"))
        .file("/usr/share/nginx/html/index.html", include_str!("files/index.html"))
        .file("/usr/share/nginx/html/50x.html", include_str!("files/50x.html"))
        .env("NGINX_VERSION", VERSION)
        .cmd(["nginx", "-g", "daemon off;"])
        .build()
}

struct Nginx;

#[async_trait]
impl Program for Nginx {
    async fn run(&self, mut process: Process) -> ExitCode {
        let outcome = run(&mut process).await;
        let outcome = match outcome {
            // nginx's messages carry their own prefix.
            Err(failure) if failure.message.starts_with("nginx:") => {
                complain(&mut process, &failure.message).await;
                Ok(failure.code)
            }
            outcome => outcome,
        };
        finish(&mut process, outcome).await
    }
}

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    test: bool,
    dump: bool,
    config: Option<String>,
    globals: String,
}

async fn run(process: &mut Process) -> Outcome {
    let mut arguments = Arguments::default();
    let mut words = process.argv[1..].iter();
    let missing = |flag: &str| Failure::new(format!("nginx: option \"{flag}\" requires parameter"));
    while let Some(word) = words.next() {
        match word.as_str() {
            "-t" => arguments.test = true,
            "-T" => (arguments.test, arguments.dump) = (true, true),
            "-q" => {}
            "-c" => arguments.config = Some(words.next().ok_or_else(|| missing("-c"))?.clone()),
            "-g" => arguments.globals = words.next().ok_or_else(|| missing("-g"))?.clone(),
            "-v" | "-V" => {
                complain(process, &format!("nginx version: nginx/{VERSION}")).await;
                return Ok(0);
            }
            "-s" => return signal(process, words.next().map_or("", String::as_str)),
            other => return Err(Failure::new(format!("nginx: invalid option: \"{other}\""))),
        }
    }
    let file = arguments.config.unwrap_or_else(|| CONFIG.to_owned());
    let loaded =
        syntax::check_globals(&arguments.globals).and_then(|()| Config::load(&process.container.fs, &process.path(&file)));
    let config = match loaded {
        Ok(config) => config,
        Err(err) => {
            let failed = if arguments.test { format!("\nnginx: configuration file {file} test failed") } else { String::new() };
            return Err(Failure::new(format!("nginx: [emerg] {err}{failed}")));
        }
    };
    if arguments.dump {
        print(process, &config.dump).await?;
    }
    if arguments.test {
        complain(
            process,
            &format!("nginx: the configuration file {file} syntax is ok\nnginx: configuration file {file} test is successful"),
        )
        .await;
        return Ok(0);
    }
    serve(process, config, &file).await
}

/// `nginx -s reload`: to the container's first process.
fn signal(process: &Process, name: &str) -> Outcome {
    let sent = match name {
        "stop" | "quit" => process.container.processes.signal(1, meshlab_program::Signal::Terminate),
        _ => {
            return Err(Failure::new(format!(
                "nginx: \"-s {name}\" is not supported here; there are stop and quit. To read a changed configuration, restart the pod"
            )));
        }
    };
    if sent { Ok(0) } else { Err(Failure::new("nginx: [error] no such process")) }
}

async fn serve(process: &mut Process, config: Config, file: &str) -> Outcome {
    let (net, fs) = (process.container.net.clone(), process.container.fs.clone());
    let (log, mut lines) = tokio::sync::mpsc::channel::<serve::LogLine>(LOG_LINES);
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let config = Arc::new(config);
    let mut servers = JoinSet::new();
    for port in config.ports() {
        let listener = listen(&net, port).await.map_err(|err| {
            let why = if err.kind() == std::io::ErrorKind::AddrInUse {
                "98: Address already in use".to_owned()
            } else {
                err.to_string()
            };
            Failure::new(format!("nginx: [emerg] bind() to 0.0.0.0:{port} failed ({why})"))
        })?;
        let handler = serve::Site {
            config: config.clone(),
            port,
            fs: fs.clone(),
            net: net.clone(),
            hostname: process.container.hostname.clone(),
            log: log.clone(),
        };
        servers.spawn(crate::http::server::serve(listener, Arc::new(handler), stop.clone()));
    }
    drop(log);
    complain(process, &format!("nginx/{VERSION}: serving with {file}")).await;
    let mut signals = process.signals.clone();
    loop {
        tokio::select! {
            _ = signals.requested(), if !stop.is_cancelled() => stop.cancel(),
            // Ends when every server has: they hold the senders.
            line = lines.recv() => match line {
                Some(serve::LogLine::Access(line)) => {
                    print(process, line).await?;
                    process.stdio.stdout.flush().await?;
                }
                Some(serve::LogLine::Error(line)) => complain(process, &line).await,
                None => break,
            },
        }
    }
    while servers.join_next().await.is_some() {}
    Ok(0)
}

#[cfg(test)]
mod tests;

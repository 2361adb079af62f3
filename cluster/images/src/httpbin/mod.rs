//! httpbin: answers with what it was asked. Paths and JSON as <https://httpbin.org> has them.

mod answers;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::{Request, Response};
use meshlab_program::{ExitCode, Image, Process, Program};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::http::Body;
use crate::http::server::{Ends, Handler, listen, serve};
use crate::output::{Failure, Outcome, finish, print};

/// `kennethreitz/httpbin`: port 80.
pub fn httpbin() -> Arc<Image> {
    image("80")
}

/// `mccutchen/go-httpbin`: port 8080. The answers are httpbin's own.
pub fn go_httpbin() -> Arc<Image> {
    image("8080")
}

fn image(port: &str) -> Arc<Image> {
    // Istio's httpbin sample starts `gunicorn -b 0.0.0.0:8080 httpbin:app` on kennethreitz/httpbin.
    let image = Image::builder().executable("httpbin", Arc::new(Httpbin)).executable("gunicorn", Arc::new(Httpbin));
    image.executable("go-httpbin", Arc::new(Httpbin)).base(&crate::busybox()).entrypoint(["httpbin"]).env("PORT", port).build()
}

struct Httpbin;

#[async_trait]
impl Program for Httpbin {
    async fn run(&self, mut process: Process) -> ExitCode {
        let outcome = run(&mut process).await;
        finish(&mut process, outcome).await
    }
}

/// `-port 8080` and `PORT` as go-httpbin has them, `-b ADDRESS:PORT` as gunicorn has it.
fn port(process: &Process) -> Result<u16, Failure> {
    let mut words = process.argv.iter().skip(1);
    let mut port = process.env.get("PORT").cloned().unwrap_or_else(|| "80".to_owned());
    while let Some(word) = words.next() {
        let (name, inline) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value.to_owned())));
        let mut value = || {
            inline.clone().or_else(|| words.next().cloned()).ok_or_else(|| Failure::with_code(2, format!("{name} needs a value")))
        };
        match name {
            "-port" | "--port" => port = value()?,
            "-b" | "--bind" => {
                let address = value()?;
                port = address.rsplit(':').next().unwrap_or_default().to_owned();
            }
            "-host" | "--host" | "-k" | "-w" | "--workers" => drop(value()?),
            "--access-logfile" | "--log-level" => drop(value()?),
            // gunicorn's name of the application.
            "httpbin:app" | "-" => {}
            other => return Err(Failure::with_code(2, format!("unknown argument {other}; there are -port and -b"))),
        }
    }
    port.parse().map_err(|_| Failure::with_code(2, format!("{port:?} is not a port")))
}

async fn run(process: &mut Process) -> Outcome {
    let port = port(process)?;
    let listener = listen(&process.container.net, port).await;
    let listener = listener.map_err(|err| Failure::new(format!("cannot listen on port {port}: {err}")))?;
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    print(process, format!("httpbin listens on 0.0.0.0:{port}\n")).await?;
    process.stdio.stdout.flush().await?;
    let server = tokio::spawn(serve(listener, Arc::new(Httpbin), stop.clone()));
    process.signals.requested().await;
    stop.cancel();
    let _ = server.await;
    Ok(0)
}

impl Handler for Httpbin {
    async fn handle(&self, request: Request<Incoming>, ends: Ends) -> Response<Body> {
        let mut response = answers::answer(request, ends).await;
        let headers = response.headers_mut();
        headers.insert("server", hyper::header::HeaderValue::from_static("gunicorn/19.9.0"));
        headers.insert("access-control-allow-origin", hyper::header::HeaderValue::from_static("*"));
        headers.insert("access-control-allow-credentials", hyper::header::HeaderValue::from_static("true"));
        response
    }
}

#[cfg(test)]
mod tests;

//! `nslookup`, `dig`, `host`, `nc`, `ip`, `ping`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use meshlab_net::{Listener, Net, Stream};
use meshlab_program::Process;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::system::parse_delay;
use super::{Options, Tool};
use crate::output::{Failure, Outcome, complain, print};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("nslookup", |process| Box::pin(nslookup(process))),
    ("dig", |process| Box::pin(dig(process))),
    ("host", |process| Box::pin(host(process))),
    ("getent", |process| Box::pin(getent(process))),
    ("nc", |process| Box::pin(nc(process))),
    ("ip", |process| Box::pin(ip(process))),
    ("ping", |process| Box::pin(ping(process))),
];

/// How long `nc` tries to connect where `-w` does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The name server that the pod's `resolv.conf` names.
fn name_server(process: &Process) -> String {
    let text = process.container.fs.read_text("/etc/resolv.conf").unwrap_or_default();
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver")).map(|rest| rest.trim().to_owned());
    server.unwrap_or_else(|| "10.96.0.10".to_owned())
}

async fn nslookup(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "t:", &[])?;
    let name = options.operands.first().cloned().ok_or_else(|| Failure::new("usage: nslookup HOST"))?;
    let server = name_server(process);
    print(process, format!("Server:\t\t{server}\nAddress:\t{server}:53\n\n")).await?;
    match process.container.net.lookup(&name).await {
        Ok(found) => {
            let lines: String = found
                .addresses
                .iter()
                .map(|address| format!("Name:\t{}\nAddress: {address}\n", found.name.trim_end_matches('.')))
                .collect();
            print(process, format!("{lines}\n")).await?;
            Ok(0)
        }
        Err(_) => {
            print(process, format!("** server can't find {name}: NXDOMAIN\n\n")).await?;
            Ok(1)
        }
    }
}

async fn dig(process: &mut Process) -> Outcome {
    let words: Vec<String> = process.argv[1..].to_vec();
    let (mut short, mut search, mut name) = (false, false, None);
    for word in &words {
        match word.as_str() {
            "+short" => short = true,
            "+search" => search = true,
            "A" | "ANY" | "IN" => {}
            "AAAA" | "SRV" | "TXT" | "MX" | "NS" | "CNAME" | "PTR" | "-x" => {
                return Err(Failure::new(format!("{word} is not supported here: only addresses (A) are looked up")));
            }
            word if word.starts_with('+') || word.starts_with('@') => {}
            word => name = Some(word.to_owned()),
        }
    }
    let name = name.ok_or_else(|| Failure::new("usage: dig [+short] [+search] NAME"))?;
    // Unlike `nslookup`, dig takes a name as it stands.
    let asked = if search || name.ends_with('.') { name.clone() } else { format!("{name}.") };
    let found = process.container.net.lookup(&asked).await.ok();
    let full = found.as_ref().map_or(asked.clone(), |found| format!("{}.", found.name.trim_end_matches('.')));
    let addresses = found.map(|found| found.addresses).unwrap_or_default();
    if short {
        print(process, addresses.iter().map(|address| format!("{address}\n")).collect::<String>()).await?;
        return Ok(0);
    }
    let status = if addresses.is_empty() { "NXDOMAIN" } else { "NOERROR" };
    let mut text = format!("; <<>> DiG <<>> {}\n;; ->>HEADER<<- opcode: QUERY, status: {status}\n\n", words.join(" "));
    text.push_str(&format!(";; QUESTION SECTION:\n;{full}\t\tIN\tA\n\n"));
    if !addresses.is_empty() {
        text.push_str(";; ANSWER SECTION:\n");
        text.extend(addresses.iter().map(|address| format!("{full}\t30\tIN\tA\t{address}\n")));
        text.push('\n');
    }
    let server = name_server(process);
    text.push_str(&format!(";; SERVER: {server}#53({server})\n"));
    print(process, text).await?;
    Ok(0)
}

async fn host(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "t:", &[])?;
    let name = options.operands.first().cloned().ok_or_else(|| Failure::new("usage: host NAME"))?;
    match process.container.net.lookup(&name).await {
        Ok(found) => {
            let lines =
                found.addresses.iter().map(|address| format!("{} has address {address}\n", found.name.trim_end_matches('.')));
            print(process, lines.collect::<String>()).await?;
            Ok(0)
        }
        Err(_) => {
            print(process, format!("Host {name} not found: 3(NXDOMAIN)\n")).await?;
            Ok(1)
        }
    }
}

async fn getent(process: &mut Process) -> Outcome {
    let ["hosts" | "ahosts" | "ahostsv4", name] = process.argv[1..].iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return Err(Failure::new("usage: getent hosts NAME"));
    };
    match process.container.net.lookup(name).await {
        Ok(found) => {
            let lines = found.addresses.iter().map(|address| format!("{address:<15} {}\n", found.name));
            print(process, lines.collect::<String>()).await?;
            Ok(0)
        }
        Err(_) => Ok(2),
    }
}

/// What a failed connection is called.
pub(super) fn connect_error(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::ConnectionRefused => "Connection refused",
        io::ErrorKind::TimedOut => "Connection timed out",
        io::ErrorKind::ConnectionReset => "Connection reset by peer",
        _ => "No route to host",
    }
}

async fn nc(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "zvlnkw:p:q:N", &[])?;
    let limit = options.value('w').map(parse_delay).transpose()?;
    let port = |text: &str| text.parse::<u16>().map_err(|_| Failure::new(format!("bad port '{text}'")));
    if options.has('l') {
        let text = options
            .value('p')
            .or(options.operands.last().map(String::as_str))
            .ok_or_else(|| Failure::new("usage: nc -l -p PORT"))?;
        let address = SocketAddr::from(([0, 0, 0, 0], port(text)?));
        let mut listener = process.container.net.listen(address).await.map_err(|err| Failure::new(format!("bind: {err}")))?;
        let stream = listener.accept().await?;
        if options.has('v') {
            complain(process, &format!("connect to {} from {}", stream.local_addr(), stream.peer_addr())).await;
        }
        return relay(process, stream, limit).await;
    }
    let [name, port_text] = &options.operands[..] else { return Err(Failure::new("usage: nc [-zv] [-w SECONDS] HOST PORT")) };
    let port = port(port_text)?;
    let addresses = process.container.net.resolve(name).await.map_err(|_| Failure::new(format!("bad address '{name}'")))?;
    let ip: IpAddr = *addresses.first().ok_or_else(|| Failure::new(format!("bad address '{name}'")))?;
    let connected =
        tokio::time::timeout(limit.unwrap_or(CONNECT_TIMEOUT), process.container.net.connect(SocketAddr::new(ip, port))).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(Failure::new(format!("can't connect to remote host ({ip}): {}", connect_error(&err)))),
        Err(_) => return Err(Failure::new("timed out")),
    };
    if options.has('v') {
        complain(process, &format!("{name} ({ip}:{port}) open")).await;
    }
    if options.has('z') { Ok(0) } else { relay(process, stream, limit).await }
}

/// Carries bytes both ways until the other end is done, or nothing comes for `idle`.
async fn relay(process: &mut Process, stream: impl AsyncRead + AsyncWrite + Unpin, idle: Option<Duration>) -> Outcome {
    let (mut read, mut write) = tokio::io::split(stream);
    let (stdin, stdout) = (&mut process.stdio.stdin, &mut process.stdio.stdout);
    let send = async {
        let _ = tokio::io::copy(stdin, &mut write).await;
        // The other end sees the end of the input, and may still answer.
        let _ = write.shutdown().await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let next = read.read(&mut buffer);
            let count = match idle {
                Some(idle) => tokio::time::timeout(idle, next).await.unwrap_or(Ok(0)),
                None => next.await,
            };
            match count {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    stdout.write_all(&buffer[..count]).await?;
                    stdout.flush().await?;
                }
                Err(err) => return Err(Failure::new(connect_error(&err))),
            }
        }
    };
    tokio::select! {
        () = send => Ok(0),
        result = receive => result.map(|()| 0),
    }
}

async fn ip(process: &mut Process) -> Outcome {
    let address = process.container.net.address();
    match process.argv.get(1).map(String::as_str) {
        Some("a" | "ad" | "addr" | "address") => {
            let text = format!(
                "1: lo: <LOOPBACK,UP,LOWER_UP>\n    inet 127.0.0.1/8 scope host lo\n2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP>\n    inet {address}/16 scope global eth0\n"
            );
            print(process, text).await?;
            Ok(0)
        }
        Some("r" | "route") => {
            print(process, "default dev eth0 scope link\n").await?;
            Ok(0)
        }
        _ => Err(Failure::new("only \"ip addr\" and \"ip route\" are supported here")),
    }
}

async fn ping(_process: &mut Process) -> Outcome {
    Err(Failure::new("not supported: this cluster's network carries TCP only; try curl or nc -zv HOST PORT"))
}

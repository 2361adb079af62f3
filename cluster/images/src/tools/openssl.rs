//! `openssl s_client`, which shows what certificate a server has, and `openssl x509`, which reads one.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meshlab_net::Net;
use meshlab_program::Process;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::network::connect_error;
use super::{Tool, read_input};
use crate::output::{Failure, Outcome, complain, print};
use crate::tls::{self, Shown, TlsOptions};

pub(super) const TOOLS: &[(&str, Tool)] = &[("openssl", |process| Box::pin(openssl(process)))];

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Flags with one dash, as openssl has them, and the words behind those that take one.
struct Flags<'a>(&'a [String]);

impl Flags<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().position(|word| word == name).and_then(|at| self.0.get(at + 1)).map(String::as_str)
    }

    /// Refuses what is not known, so that no flag is silently without effect.
    fn check(&self, alone: &[&str], with_value: &[&str]) -> Result<(), Failure> {
        let mut words = self.0.iter();
        while let Some(word) = words.next() {
            if with_value.contains(&word.as_str()) {
                words.next();
            } else if !alone.contains(&word.as_str()) {
                return Err(Failure::new(format!(
                    "unknown option or argument {word}; there are {} {}",
                    alone.join(" "),
                    with_value.join(" ")
                )));
            }
        }
        Ok(())
    }
}

async fn openssl(process: &mut Process) -> Outcome {
    let words = process.argv.get(2..).unwrap_or_default().to_vec();
    match process.argv.get(1).map(String::as_str) {
        Some("s_client") => s_client(process, &Flags(&words)).await,
        Some("x509") => x509(process, &Flags(&words)).await,
        Some("version") => {
            print(process, "OpenSSL 3.0 commands by meshlab (rustls)\n").await?;
            Ok(0)
        }
        other => Err(Failure::new(format!(
            "{} is not supported here; there are s_client, x509 and version",
            other.unwrap_or("(no command)")
        ))),
    }
}

fn tls_options(process: &Process, flags: &Flags<'_>) -> Result<TlsOptions, Failure> {
    let read = |name: &str| {
        let content = process.container.fs.read(&process.path(name));
        content.map(|content| content.to_vec()).map_err(|err| Failure::at(name, &err))
    };
    let identity = match flags.value("-cert") {
        Some(certificate) => Some((read(certificate)?, read(flags.value("-key").unwrap_or(certificate))?)),
        None => None,
    };
    Ok(TlsOptions {
        authorities: flags.value("-CAfile").map(read).transpose()?.unwrap_or_default(),
        // The user wants to see what the server shows, trusted or not.
        insecure: true,
        identity,
        alpn: flags.value("-alpn").into_iter().flat_map(|list| list.split(',')).map(|name| name.as_bytes().to_vec()).collect(),
        only_tls13: flags.has("-tls1_3"),
        only_tls12: flags.has("-tls1_2"),
    })
}

async fn s_client(process: &mut Process, flags: &Flags<'_>) -> Outcome {
    flags.check(
        &["-showcerts", "-quiet", "-brief", "-tls1_2", "-tls1_3", "-noservername", "-no_ign_eof", "-ign_eof"],
        &["-connect", "-servername", "-CAfile", "-cert", "-key", "-alpn", "-verify_hostname", "-verify"],
    )?;
    let target = flags
        .value("-connect")
        .ok_or_else(|| Failure::new("usage: openssl s_client -connect HOST:PORT [-showcerts] [-servername NAME]"))?;
    let (host, port) = target.rsplit_once(':').unwrap_or((target, "443"));
    let port: u16 = port.parse().map_err(|_| Failure::new(format!("bad port in {target}")))?;
    let options = tls_options(process, flags)?;
    let addresses = process.container.net.resolve(host).await.unwrap_or_default();
    let ip = *addresses.first().ok_or_else(|| Failure::new(format!("connect: cannot resolve {host}")))?;
    let stream = process.container.net.connect(SocketAddr::new(ip, port)).await;
    let stream = stream.map_err(|err| Failure::new(format!("connect:errno: {}", connect_error(&err))))?;
    print(process, "CONNECTED(00000003)\n").await?;
    let name = flags.value("-servername").unwrap_or(host).to_owned();
    let secured = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::connect(stream, &name, &options)).await {
        Ok(Ok(secured)) => secured,
        Ok(Err(err)) => {
            print(process, "---\nno peer certificate available\n---\nVerify return code: 0 (ok)\n---\n").await?;
            return Err(Failure::new(format!("handshake failed: {err}")));
        }
        Err(_) => return Err(Failure::new("handshake: timed out")),
    };
    let session = secured.stream.get_ref().1;
    let summary = format!(
        "New, {version}, Cipher is {}\n{}\n",
        tls::cipher_name(session.negotiated_cipher_suite()),
        session
            .alpn_protocol()
            .map_or("No ALPN negotiated".to_owned(), |name| format!("ALPN protocol: {}", String::from_utf8_lossy(name))),
        version = tls::version_name(session.protocol_version()),
    );
    print(process, describe(&secured.shown, flags.has("-showcerts"), &summary)).await?;
    process.stdio.stdout.flush().await?;
    // What the user types goes to the server until the input ends.
    let (mut read, mut write) = tokio::io::split(secured.stream);
    let (stdin, stdout) = (&mut process.stdio.stdin, &mut process.stdio.stdout);
    let send = async { drop(tokio::io::copy(stdin, &mut write).await) };
    let receive = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => return None,
                Ok(count) => {
                    if stdout.write_all(&buffer[..count]).await.is_err() || stdout.flush().await.is_err() {
                        return None;
                    }
                }
                Err(err) => return Some(err),
            }
        }
    };
    let failed = tokio::select! {
        () = send => None,
        failed = receive => failed,
    };
    match failed {
        // With TLS 1.3 a server says only after the handshake that it wants the client's certificate.
        Some(err) => {
            complain(process, &format!("read: {err}")).await;
            Ok(1)
        }
        None => {
            complain(process, "DONE").await;
            Ok(0)
        }
    }
}

fn describe(shown: &Shown, all: bool, summary: &str) -> String {
    let mut text = "---\nCertificate chain\n".to_owned();
    for (index, der) in shown.chain.iter().enumerate() {
        if let Ok((_, certificate)) = X509Certificate::from_der(der) {
            text.push_str(&format!(" {index} s:{}\n   i:{}\n", name(certificate.subject()), name(certificate.issuer())));
            let validity = certificate.validity();
            text.push_str(&format!("   v:NotBefore: {}; NotAfter: {}\n", time(&validity.not_before), time(&validity.not_after)));
        }
        if all {
            text.push_str(&pem(der));
        }
    }
    text.push_str("---\nServer certificate\n");
    if let Some(own) = shown.chain.first() {
        if !all {
            text.push_str(&pem(own));
        }
        if let Ok((_, certificate)) = X509Certificate::from_der(own) {
            text.push_str(&format!("subject={}\nissuer={}\n", name(certificate.subject()), name(certificate.issuer())));
        }
    }
    let (verification, number, words) = match shown.untrusted {
        None => ("Verification: OK".to_owned(), 0, "ok"),
        Some(why) => (format!("Verification error: {}", why.words), why.number, why.words),
    };
    text.push_str(&format!("---\n{verification}\n---\n{summary}Verify return code: {number} ({words})\n---\n"));
    text
}

/// `O = cluster.local, CN = web`, as OpenSSL 3 writes a name.
fn name(name: &X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let key = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry)
            .map_or_else(|_| attribute.attr_type().to_string(), str::to_owned);
        format!("{key} = {}", attribute.as_str().unwrap_or_default())
    };
    name.iter_attributes().map(part).collect::<Vec<_>>().join(", ")
}

fn time(time: &ASN1Time) -> String {
    let stamp = jiff::Timestamp::from_second(time.timestamp()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%b %e %H:%M:%S %Y GMT").to_string()
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    // Base64 is ASCII, so that any cut is between characters.
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.iter());
    let one = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::IPAddress([a, b, c, d]) => format!("IP Address:{a}.{b}.{c}.{d}"),
        other => other.to_string(),
    };
    names.into_iter().flatten().map(one).collect()
}

async fn x509(process: &mut Process, flags: &Flags<'_>) -> Outcome {
    flags.check(&["-noout", "-text", "-subject", "-issuer", "-dates", "-startdate", "-enddate", "-serial"], &["-in", "-ext"])?;
    let content = read_input(process, flags.value("-in").unwrap_or("-")).await?;
    let der = CertificateDer::from_pem_slice(&content)
        .map_err(|_| Failure::new("Could not find certificate: no PEM CERTIFICATE in the input"))?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|err| Failure::new(format!("the certificate cannot be read: {err}")))?;
    let validity = certificate.validity();
    let (from, until) = (time(&validity.not_before), time(&validity.not_after));
    let serial: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect();
    let names = alternative_names(&certificate).join(", ");
    let mut text = String::new();
    if flags.has("-text") {
        text.push_str(&format!(
            "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number: {serial}\n        Issuer: {}\n        Validity\n            \
             Not Before: {from}\n            Not After : {until}\n        Subject: {}\n",
            name(certificate.issuer()),
            name(certificate.subject())
        ));
        if !names.is_empty() {
            text.push_str(&format!(
                "        X509v3 extensions:\n            X509v3 Subject Alternative Name: \n                {names}\n"
            ));
        }
    }
    for (flag, line) in [
        ("-serial", format!("serial={serial}\n")),
        ("-subject", format!("subject={}\n", name(certificate.subject()))),
        ("-issuer", format!("issuer={}\n", name(certificate.issuer()))),
    ] {
        if flags.has(flag) {
            text.push_str(&line);
        }
    }
    if flags.has("-dates") || flags.has("-startdate") {
        text.push_str(&format!("notBefore={from}\n"));
    }
    if flags.has("-dates") || flags.has("-enddate") {
        text.push_str(&format!("notAfter={until}\n"));
    }
    match flags.value("-ext") {
        Some("subjectAltName") => text.push_str(&format!("X509v3 Subject Alternative Name: \n    {names}\n")),
        Some(other) => return Err(Failure::new(format!("-ext {other} is not supported here; there is subjectAltName"))),
        None => {}
    }
    if !flags.has("-noout") {
        text.push_str(&pem(&der));
    }
    print(process, text).await?;
    Ok(0)
}

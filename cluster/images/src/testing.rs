//! Pods to run programs in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use meshlab_net::{HostOptions, Listener, Net, PodNet, VirtualNet, VirtualNetOptions};
use meshlab_program::{Child, Container, ExitCode, FileSystem, Image, Process, Processes, Signal, Signals, Stdio, pipe};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsAcceptor;

/// A network with pods.
pub(crate) struct World {
    pub(crate) net: VirtualNet,
}

/// One pod with one container.
pub(crate) struct Pod {
    pub(crate) container: Arc<Container>,
    image: Arc<Image>,
    pub(crate) env: BTreeMap<String, String>,
}

/// What a finished program leaves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) code: ExitCode,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A program that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdin: DuplexStream,
    pub(crate) stdout: DuplexStream,
    pub(crate) stderr: DuplexStream,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { net: VirtualNet::new(VirtualNetOptions::default()) }
    }

    /// A pod that is reached by its name.
    pub(crate) fn pod(&self, name: &str, address: &str, image: Arc<Image>) -> Pod {
        let address: IpAddr = address.parse().unwrap();
        let net = self.net.attach(address, HostOptions::pod(name, "default", "cluster.local")).unwrap();
        self.net.upsert_record(&format!("{name}.default.svc.cluster.local"), meshlab_net::Record::Addresses(vec![address]));
        Pod::on(net, name, image)
    }
}

impl Pod {
    /// A pod that is alone in its world.
    pub(crate) fn alone(image: Arc<Image>) -> Self {
        World::new().pod("box", "10.244.0.9", image)
    }

    fn on(net: PodNet, name: &str, image: Arc<Image>) -> Self {
        let container = Container {
            fs: FileSystem::new(&image),
            image: image.clone(),
            net,
            hostname: name.to_owned(),
            uid: image.uid,
            processes: Processes::default(),
        };
        Self { container: Arc::new(container), env: image.env.clone(), image }
    }

    /// Starts the image's own command with `arguments` in place of its `cmd`, if there are any.
    pub(crate) fn start_image(&self, arguments: &[&str]) -> Running {
        let own: Vec<&str> = self.image.cmd.iter().map(String::as_str).collect();
        let arguments = if arguments.is_empty() { &own } else { arguments };
        let argv: Vec<&str> = self.image.entrypoint.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        self.start(&argv)
    }

    pub(crate) fn start(&self, argv: &[&str]) -> Running {
        let ((stdin, read), (write_out, stdout), (write_err, stderr)) = (pipe(), pipe(), pipe());
        let (_, signals) = Signals::channel();
        let stdio = Stdio { stdin: Box::new(read), stdout: Box::new(write_out), stderr: Box::new(write_err), terminal: None };
        Running { child: self.process(argv, stdio, signals).spawn().unwrap(), stdin, stdout, stderr }
    }

    pub(crate) fn process(&self, argv: &[&str], stdio: Stdio, signals: Signals) -> Process {
        Process {
            container: self.container.clone(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: self.env.clone(),
            cwd: "/".to_owned(),
            stdio,
            signals,
        }
    }

    pub(crate) async fn run(&self, argv: &[&str]) -> Output {
        self.run_with_input(argv, "").await
    }

    pub(crate) async fn run_with_input(&self, argv: &[&str], input: &str) -> Output {
        let mut running = self.start(argv);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut stdin = running.stdin;
        let feed = async move { drop(stdin.write_all(input.as_bytes()).await) };
        let ((), out, err) = tokio::join!(feed, running.stdout.read_to_end(&mut stdout), running.stderr.read_to_end(&mut stderr));
        out.unwrap();
        err.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code: running.child.wait().await, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a script.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        self.run(&["sh", "-c", script]).await
    }

    /// A script's standard output; it must succeed and say nothing else.
    pub(crate) async fn out(&self, script: &str) -> String {
        let output = self.sh(script).await;
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{script}: {}", output.stdout);
        output.stdout
    }
}

impl Running {
    /// Waits until standard output says `text`, and gives all that it said.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        let mut said = String::new();
        let mut buffer = [0; 1024];
        while !said.contains(text) {
            let count = self.stdout.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the program ended after {said:?}");
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        said
    }

    /// Asks it to stop, and gives its exit code.
    pub(crate) async fn stop(mut self) -> ExitCode {
        self.child.signal(Signal::Terminate);
        self.child.wait().await
    }
}

/// A TLS server that answers every connection with one HTTP response. Gives the authority's certificate.
pub(crate) async fn tls_server(server: &Pod, port: u16, name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "lab authority");
    let authority_certificate = authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private_key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut listener = server.container.net.listen(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap();
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure").await;
            let _ = stream.shutdown().await;
        }
    });
    authority_certificate.pem()
}

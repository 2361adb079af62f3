//! Programs of the built-in images, each in a pod that is alone in its world.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use meshlab_net::{HostOptions, Net, PodNet, VirtualNet, VirtualNetOptions};
use meshlab_program::{Child, Container, FileSystem, Image, Process, Processes, Signals, Stdio, pipe};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// The exit code of a program that panicked.
const ABORTED: i32 = 134;

/// So much is read of what is answered; who writes more finds the reader gone.
const MAX_OUTPUT: u64 = 1 << 20;

/// On a clock that stands still while anything moves: what is not over by then waits for something that never comes.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

static TOOLBOX: LazyLock<Arc<Image>> = LazyLock::new(meshlab_images::busybox);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
}

fn network() -> (VirtualNet, PodNet) {
    let network = VirtualNet::new(VirtualNetOptions::default());
    let pod = network.attach(IpAddr::from([10, 244, 0, 9]), HostOptions::pod("box", "default", "cluster.local"));
    (network, pod.expect("the address is free"))
}

fn container(image: &Arc<Image>, net: PodNet) -> Arc<Container> {
    let (fs, hostname) = (FileSystem::new(image), "box".to_owned());
    Arc::new(Container { image: image.clone(), fs, net, hostname, uid: image.uid, processes: Processes::default() })
}

fn spawn(container: Arc<Container>, argv: Vec<String>, stdio: Stdio) -> Option<Child> {
    let env: BTreeMap<_, _> = container.image.env.clone();
    let process = Process { container, argv, env, cwd: "/tmp".to_owned(), stdio, signals: Signals::channel().1 };
    process.spawn().ok()
}

async fn read(stream: impl AsyncRead + Unpin) {
    let mut seen = Vec::new();
    // Who is cut off in the middle was cut off on purpose.
    let _ = stream.take(MAX_OUTPUT).read_to_end(&mut seen).await;
}

/// Runs a command of the toolbox on this input.
///
/// # Panics
/// The command panics.
fn run(argv: Vec<String>, input: &[u8]) {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (_network, net) = network();
            let ((mut stdin, reads), (writes, stdout), (complains, stderr)) = (pipe(), pipe(), pipe());
            let stdio = Stdio { stdin: Box::new(reads), stdout: Box::new(writes), stderr: Box::new(complains), terminal: None };
            let said = argv.join(" ");
            let Some(mut child) = spawn(container(&TOOLBOX, net), argv, stdio) else { return };
            let feed = async move {
                // A command may end before it has read everything.
                let _ = stdin.write_all(input).await;
                drop(stdin);
            };
            let work = async { tokio::join!(feed, read(stdout), read(stderr), child.wait()).3 };
            // `sleep` and servers go on for ever.
            if let Ok(code) = tokio::time::timeout(PATIENCE, work).await {
                assert_ne!(code, ABORTED, "{said}");
            }
        });
    });
}

/// A command line of the built-in tools, its words parted by blanks; the lines after it are the standard input.
pub(crate) fn tool_arguments(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (command, input) = text.split_once('\n').unwrap_or((text, ""));
    let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    // A shell's loop may go on for ever, which is its right.
    let is_shell =
        |word: &String| ["sh", "ash", "bash"].iter().any(|shell| word == shell || word.ends_with(&format!("/{shell}")));
    if !argv.is_empty() && !argv.iter().any(is_shell) {
        run(argv, input.as_bytes());
    }
}

/// An archive that `kubectl cp` brings, packed or not.
pub(crate) fn archive(bytes: &[u8]) {
    for command in ["tar -xmf - -C /tmp", "tar tvf -", "gunzip"] {
        run(command.split(' ').map(str::to_owned).collect(), bytes);
    }
}

/// The keys that are typed in `kubectl exec -it`; the first byte is the terminal's width.
pub(crate) fn terminal(input: &[u8]) {
    let Some((width, keys)) = input.split_first() else { return };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (_size, columns) = watch::channel((u16::from(*width), 24));
            let (screen, shown) = pipe();
            let Stdio { stdin, stdout, stderr, .. } =
                Stdio::terminal(std::io::Cursor::new(keys.to_vec()), screen, columns, Signals::channel().0);
            let program = async move {
                read(stdin).await;
                drop((stdout, stderr));
            };
            // `Ctrl-D` is one end of file, after which a shell reads on; this program does not.
            let ended = tokio::time::timeout(PATIENCE, async { tokio::join!(program, read(shown)) }).await;
            assert!(ended.is_ok(), "the terminal outlives its keys");
        });
    });
}

/// A server that runs for all inputs.
struct Server {
    client: PodNet,
    address: SocketAddr,
    _network: VirtualNet,
    _child: Child,
}

impl Server {
    /// Starts an image's own command, with these files in it, and waits until its port is open.
    async fn start(image: Arc<Image>, port: u16) -> Self {
        let (network, net) = network();
        let address = SocketAddr::new(IpAddr::from([10, 244, 0, 9]), port);
        let client = network.attach(IpAddr::from([10, 244, 0, 3]), HostOptions::external("client")).expect("the address is free");
        let argv = image.entrypoint.iter().chain(&image.cmd).cloned().collect();
        let child = spawn(container(&image, net), argv, Stdio::null()).expect("the image has a command");
        let started = tokio::time::timeout(PATIENCE, async {
            while client.connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        started.await.expect("the server listens");
        Self { client, address, _network: network, _child: child }
    }

    /// Sends `bytes`, then nothing more, and reads what comes back to its end.
    async fn connection(&self, bytes: &[u8]) {
        let stream = self.client.connect(self.address).await.expect("the server accepts");
        let (reads, mut writes) = tokio::io::split(stream);
        let send = async {
            // The server may hang up before it has read everything.
            let _ = writes.write_all(bytes).await;
            let _ = writes.shutdown().await;
        };
        let ended = tokio::time::timeout(PATIENCE, async { tokio::join!(send, read(reads)) }).await;
        assert!(ended.is_ok(), "the connection outlives every timeout");
    }
}

/// Makes a target of a server.
macro_rules! server {
    ($(#[$doc:meta])* $name:ident, $image:expr, $port:expr) => {
        $(#[$doc])*
        pub(crate) fn $name(bytes: &[u8]) {
            thread_local! {
                static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
            }
            RUNTIME.with(|runtime| {
                SERVER.with_borrow_mut(|server| {
                    let server = server.get_or_insert_with(|| runtime.block_on(Server::start($image, $port)));
                    runtime.block_on(server.connection(bytes));
                });
            });
        }
    };
}

server!(
    /// A connection to the app for mesh lessons: HTTP/1, HTTP/2 and gRPC, and the orders in a request.
    webapp_connection,
    meshlab_images::webapp(),
    8080
);
server!(
    /// A connection to httpbin.
    httpbin_connection,
    meshlab_images::httpbin(),
    80
);
server!(
    /// A connection to nginx.
    nginx_connection,
    meshlab_images::nginx(),
    80
);

//! How much the network inside the process carries, with as many threads as the machine has: `cargo bench -p meshlab-net`.
//!
//! Everything in an embedded cluster goes through it, usually three times for one request (client to its sidecar, sidecar to sidecar,
//! sidecar to server), so it must be far faster than the proxies it connects.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshlab_net::{HostOptions, Listener, Net, PodNet, VirtualNet, VirtualNetOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const TIME: Duration = Duration::from_secs(2);
const CLIENTS: usize = 16;
const MESSAGE: usize = 256;
const BLOCK: usize = 64 * 1024;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let network = VirtualNet::new(VirtualNetOptions::default());
    let server = network.attach([10, 244, 0, 2].into(), HostOptions::external("server"))?;
    let client = network.attach([10, 244, 0, 3].into(), HostOptions::external("client"))?;
    let address = SocketAddr::from(([10, 244, 0, 2], 80));
    let mut listener = server.listen(address).await?;
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; BLOCK];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    println!("connections with one exchange: {:>9.0} /s", rate(&client, address, connect_and_exchange).await);
    println!("exchanges on open connections: {:>9.0} /s", rate(&client, address, exchange).await);
    let blocks = rate(&client, address, transfer).await;
    println!("bulk, both ways:               {:>9.0} MB/s", blocks * (2 * BLOCK) as f64 / 1e6);
    Ok(())
}

/// Runs `work` in many tasks at once, and says how often a second it counted.
async fn rate<F>(net: &PodNet, address: SocketAddr, work: fn(PodNet, SocketAddr, Instant) -> F) -> f64
where
    F: Future<Output = std::io::Result<u64>> + Send + 'static,
{
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        tasks.spawn(work(net.clone(), address, started + TIME));
    }
    let counts = tasks.join_all().await.into_iter().map(|count| count.unwrap_or_else(|error| panic!("{error}")));
    counts.sum::<u64>() as f64 / started.elapsed().as_secs_f64()
}

async fn connect_and_exchange(net: PodNet, address: SocketAddr, until: Instant) -> std::io::Result<u64> {
    let mut count = 0;
    while Instant::now() < until {
        let mut stream = net.connect(address).await?;
        stream.write_all(&[1; MESSAGE]).await?;
        stream.read_exact(&mut [0; MESSAGE]).await?;
        count += 1;
    }
    Ok(count)
}

async fn exchange(net: PodNet, address: SocketAddr, until: Instant) -> std::io::Result<u64> {
    let mut stream = net.connect(address).await?;
    let mut count = 0;
    while Instant::now() < until {
        stream.write_all(&[1; MESSAGE]).await?;
        stream.read_exact(&mut [0; MESSAGE]).await?;
        count += 1;
    }
    Ok(count)
}

async fn transfer(net: PodNet, address: SocketAddr, until: Instant) -> std::io::Result<u64> {
    let mut stream = net.connect(address).await?;
    let (mut count, block, mut back) = (0, vec![1; BLOCK], vec![0; BLOCK]);
    while Instant::now() < until {
        stream.write_all(&block).await?;
        stream.read_exact(&mut back).await?;
        count += 1;
    }
    Ok(count)
}

//! A small cluster.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use meshlab_net::{HostOptions, Listener, Net, PodNet, VirtualNet, VirtualNetOptions, VirtualStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Far longer than anything here takes; a test that waits so long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) fn network() -> VirtualNet {
    VirtualNet::new(VirtualNetOptions::default())
}

/// Attaches a pod of namespace `default`.
pub(crate) fn pod(network: &VirtualNet, address: &str, name: &str) -> PodNet {
    network.attach(ip(address), HostOptions::pod(name, "default", "cluster.local")).unwrap()
}

pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// Sends `message`, ends its half, and reads the answer to its end.
pub(crate) async fn exchange(stream: &mut VirtualStream, message: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(message).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Serves every connection with `greeting`, then whatever the client sends, until the test ends.
pub(crate) async fn echo(net: &PodNet, address: &str, greeting: &'static str) -> SocketAddr {
    let mut listener = net.listen(at(address)).await.unwrap();
    let address = listener.local_addr();
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(greeting.as_bytes()).await?;
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    address
}

/// Connects to `address` and says who answered.
pub(crate) async fn who(net: &PodNet, address: &str) -> io::Result<String> {
    let mut stream = net.connect(at(address)).await?;
    Ok(String::from_utf8(exchange(&mut stream, b"").await?).unwrap())
}

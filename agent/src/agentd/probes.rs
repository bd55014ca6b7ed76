//! Questions that need no command: does a socket accept?

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_lifecycle::Answer;
use rustix::fs::OFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::roots;

/// Whether the stream socket at `path` inside `root` accepts a connection.
pub async fn unix(root: PathBuf, path: String, limit: Duration) -> Answer {
    let connect = async {
        // Found as the function sees it, and reached through its descriptor.
        let socket = roots::inside(&root, &path, OFlags::PATH)?;
        UnixStream::connect(roots::by_descriptor(&socket)).await
    };
    answer(&path, timeout(limit, connect).await.map(|result| result.map(drop)), limit)
}

/// Whether 127.0.0.1 accepts at `port`, in the network namespace that is kept at `network`, or in ours.
pub async fn tcp(network: Option<PathBuf>, port: u16, limit: Duration) -> Answer {
    let (tell, told) = oneshot::channel();
    // A thread of its own: entering a network namespace changes the thread that does it.
    std::thread::spawn(move || {
        let _ = tell.send(connect(network.as_deref(), port, limit));
    });
    let result = timeout(limit, told).await.map(|got| got.unwrap_or_else(|e| Err(io::Error::other(e))));
    answer(&format!("127.0.0.1:{port}"), result, limit)
}

fn connect(network: Option<&Path>, port: u16, limit: Duration) -> io::Result<()> {
    if let Some(path) = network {
        let network = std::fs::File::open(path)?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit).map(drop)
}

fn answer(
    what: &str,
    result: Result<io::Result<()>, tokio::time::error::Elapsed>,
    limit: Duration,
) -> Answer {
    match result {
        Ok(Ok(())) => Answer::Pass,
        Ok(Err(error)) => Answer::Fail(format!("{what}: {error}")),
        Err(_) => Answer::Fail(format!("{what}: no answer within {} ms", limit.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_socket_that_accepts_passes_and_one_that_is_gone_fails() {
        let root = tempfile::tempdir().expect("folder");
        let listener = std::os::unix::net::UnixListener::bind(root.path().join("s")).expect("socket");
        let ask = || unix(root.path().to_owned(), "/s".to_owned(), LIMIT);
        assert_eq!(ask().await, Answer::Pass);
        drop(listener);
        assert!(matches!(ask().await, Answer::Fail(why) if why.contains("/s")));
    }

    #[tokio::test]
    async fn a_port_is_asked_over_loopback() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        assert_eq!(tcp(None, port, LIMIT).await, Answer::Pass);
        drop(listener);
        assert!(matches!(tcp(None, port, LIMIT).await, Answer::Fail(_)));
    }
}

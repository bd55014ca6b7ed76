//! One file, whatever is asked for: `serve ADDRESS:PORT FILE`. What `make bench` measures.

use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;

use tftp_server::{Content, ReadRequest, Server, ServerConfig, Source};

struct OneFile(PathBuf);

impl Source for OneFile {
    fn open(&self, _: &ReadRequest) -> Option<Content> {
        let file = File::open(&self.0).ok()?;
        let length = file.metadata().ok()?.len();
        Some(Content::File { file, length })
    }
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, file] = arguments.as_slice() else {
        return Err(io::Error::other("usage: serve ADDRESS:PORT FILE"));
    };
    let address: SocketAddrV4 = address.parse().map_err(io::Error::other)?;
    // A rack's worth of clients comes from one address here.
    let config = ServerConfig { sessions_per_client: 256, ..ServerConfig::default() };
    let (server, mut seen) = Server::bind(address, config, Arc::new(OneFile(file.into())))?;
    println!("ready");
    tokio::spawn(async move { while seen.recv().await.is_some() {} });
    server.run(std::future::pending()).await;
    Ok(())
}

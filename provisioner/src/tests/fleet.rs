//! A fleet in a folder, and a server over it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::api::{MachineView, RolloutView};
use kiln_model::manifest::{ManifestKind, Part};
use kiln_model::{Arch, Format, Manifest, PartName, Sha256};
use kiln_signing::bundle::{Bundle, write_bundle};
use kiln_signing::fleet::{FleetKeys, load_key, load_publish_keys};
use kiln_signing::repository::{self, Extra};
use kiln_signing::{KeySet, envelope};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::wire::{Answer, exchange, request};
use crate::server::now;
use crate::{ServeError, ServerConfig, serve};

pub const R1: &str = "02:00:00:00:00:01";
pub const R2: &str = "02:00:00:00:00:02";

/// A fleet of two machines, and the server when it runs.
pub struct Fleet {
    pub dir: tempfile::TempDir,
    pub http: SocketAddr,
    pub dhcp: u16,
    pub tftp: u16,
    running: Option<Running>,
}

/// Stops the server, and tells how it ended.
type Running = (oneshot::Sender<()>, JoinHandle<Result<(), ServeError>>);

fn free_tcp() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port").port()
}

fn free_udp() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port").port()
}

pub fn fleet_toml(asn: u32) -> String {
    let machine = |name: &str, mac: &str, last: u8| {
        format!(
            "[[machine]]\nname = \"{name}\"\nmac = \"{mac}\"\naddress = \"127.0.0.{last}\"\nimage = \"edge\"\nvars = {{ asn = {asn} }}\n\n"
        )
    };
    format!(
        "format = 1\n\n[boot]\ntries = 2\nretry_s = 7\n\n[rollout]\nsoak_s = 1\ndeadline_s = 60\n\n[[network]]\nsubnet = \"127.0.0.0/24\"\npool = [\"127.0.0.100\", \"127.0.0.110\"]\nrouters = [\"127.0.0.1\"]\nprobe = false\n\n{}{}",
        machine("r1", R1, 11),
        machine("r2", R2, 12)
    )
}

impl Fleet {
    /// Keys, configuration and an empty repository.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (http, dhcp, tftp) = (free_tcp(), free_udp(), free_udp());
        let kiln = format!(
            "format = 1\n[serve]\ninterface = \"lo\"\naddress = \"127.0.0.1\"\nhttp_port = {http}\ndhcp_port = {dhcp}\ntftp_port = {tftp}\n"
        );
        std::fs::write(dir.path().join("kiln.toml"), kiln).expect("written");
        std::fs::write(dir.path().join("fleet.toml"), fleet_toml(65001)).expect("written");
        FleetKeys::generate().expect("keys").write(dir.path(), now()).expect("written");
        Self { dir, http: SocketAddr::from(([127, 0, 0, 1], http)), dhcp, tftp, running: None }
    }

    pub fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join(inner)
    }

    pub fn config(&self) -> ServerConfig {
        ServerConfig::load(&self.path("kiln.toml")).expect("a good configuration")
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(self.config(), async {
            let _ = stopped.await;
        }));
        self.running = Some((stop, task));
        for _ in 0..200 {
            if UnixStream::connect(self.path("state/kiln.sock")).await.is_ok() {
                return;
            }
            let failed = self.running.as_ref().is_some_and(|(_, task)| task.is_finished());
            assert!(!failed, "{:?}", self.running.take().expect("it ran").1.await);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server does not answer");
    }

    pub async fn stop(&mut self) {
        let (stop, task) = self.running.take().expect("it runs");
        stop.send(()).expect("it runs");
        task.await.expect("it ends").expect("well");
    }

    /// Bakes and publishes a tiny image.
    pub fn publish(&self, version: &str) -> Manifest {
        self.publish_with(version, &[], &[])
    }

    /// The same with further parts, and with files that were made of it.
    pub fn publish_with(&self, version: &str, more: &[(&str, &[u8])], derived: &[(&str, &[u8])]) -> Manifest {
        let name = |text: &str| text.parse::<PartName>().expect("a name");
        let mut parts: BTreeMap<PartName, Vec<u8>> = BTreeMap::from([
            (name("vmlinuz"), format!("kernel {version}").repeat(1000).into_bytes()),
            (name("initrd"), format!("initrd {version}").into_bytes()),
            (name("base"), vec![7; 4096]),
            (name("loader/ipxe.efi"), vec![9; 5000]),
        ]);
        parts.extend(more.iter().map(|(part, bytes)| (name(part), bytes.to_vec())));
        let lock = b"format = 1\n";
        let part =
            |bytes: &Vec<u8>| Part { size: bytes.len() as u64, sha256: Sha256::of(bytes), verity: None };
        let manifest = Manifest {
            kind: ManifestKind::Manifest,
            format: Format,
            name: "edge".parse().expect("a name"),
            version: version.parse().expect("a version"),
            arch: Arch::X86_64,
            profile: "generic/vm".to_owned(),
            cmdline: "console=ttyS0".to_owned(),
            health_deadline_s: 60,
            parts: parts.iter().map(|(name, bytes)| (name.clone(), part(bytes))).collect(),
            functions: Vec::new(),
            lock: Sha256::of(lock),
        };
        let targets = load_key(&self.path("keys/targets.json")).expect("a key");
        let envelope = envelope::sign(&manifest, &[&targets]).expect("signed");
        let file = self.path(&format!("edge-{version}.kiln"));
        write_bundle(&file, &envelope, lock, parts).expect("a bundle");
        let bundle = Bundle::open(&file).expect("a bundle");
        let keys = load_publish_keys(&self.path("keys")).expect("keys");
        let root = std::fs::read(self.path("trust/root.json")).expect("a root");
        let extra = derived.iter().map(|(name, bytes)| {
            let path = self.path(name);
            std::fs::write(&path, bytes).expect("written");
            Extra { name: (*name).to_owned(), path }
        });
        let extra: Vec<Extra> = extra.collect();
        let repository = self.path("repository");
        repository::publish_with(&bundle, &extra, &repository, &root, &keys, now()).expect("published");
        manifest
    }

    pub fn director(&self) -> KeySet {
        KeySet::from_json(&std::fs::read(self.path("trust/director.json")).expect("there"))
            .expect("a key set")
    }

    /// A request to the machines' side.
    pub async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.http).await.expect("connected");
        exchange(stream, &request(method, path, headers, body)).await
    }

    /// The same, from another of the loopback's addresses.
    pub async fn http_from(&self, from: Ipv4Addr, method: &str, path: &str) -> Answer {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("bound");
        let stream = socket.connect(self.http).await.expect("connected");
        exchange(stream, &request(method, path, &[], b"")).await
    }

    /// The same, with headers.
    pub async fn http_with(
        &self,
        from: Ipv4Addr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("bound");
        let stream = socket.connect(self.http).await.expect("connected");
        exchange(stream, &request(method, path, headers, b"")).await
    }

    /// A request to the operators' side.
    pub async fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.path("state/kiln.sock")).await.expect("connected");
        let headers = [("content-type", "application/json")];
        exchange(stream, &request(method, path, &headers, body.as_bytes())).await
    }

    pub async fn machine(&self, name: &str) -> MachineView {
        self.api("GET", &format!("/v1/machines/{name}"), "").await.json()
    }

    pub async fn rollout(&self) -> RolloutView {
        self.api("GET", "/v1/rollouts/current", "").await.json()
    }

    /// The server sees what was published within its polling interval.
    pub async fn sees_images(&self, count: usize) {
        for _ in 0..80 {
            let images: Vec<kiln_model::api::ImageView> = self.api("GET", "/v1/images", "").await.json();
            if images.len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not see {count} images");
    }
}

//! HTTP: one artifact to many clients at once, beside nginx with sendfile.

pub mod client;

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fleet::{serve, write};
use crate::process::Daemon;
use crate::table::{Better, Figure};
use crate::wire::{SERVER, Wire};

use client::Fetched;

const CLIENTS: u32 = 64;
const SIZE: u64 = 64 << 20;
/// Times that each is measured, in turns: of an odd number, one is in the middle.
const ROUNDS: usize = 5;

/// What one server sent, of every round.
#[derive(Default)]
struct Rounds {
    gigabytes_per_s: Vec<f64>,
    gigabytes_per_cpu_s: Vec<f64>,
}

/// The one in the middle: a round in which something else ran on this host moves a mean, and not this.
fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// Takes the figures.
pub fn measure(wire: &Wire, kiln: &Path, folder: &Path) -> Result<Vec<Figure>> {
    let file = folder.join("artifact");
    fs::write(&file, vec![0x5a; usize::try_from(SIZE).unwrap_or(0)])
        .map_err(Error::io(file.display().to_string()))?;
    let (mut ours, mut peer) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let kiln = serve(wire, kiln, folder)?;
        // Any file under a name of its digest's form is served; that of a target is in the metadata.
        let name = format!("edge-router/1/x86_64/{}.vmlinuz", "5a".repeat(32));
        let target = folder.join("fleet/repository/targets").join(&name);
        let parent = target.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Error::io(parent.display().to_string()))?;
        fs::hard_link(&file, &target).map_err(Error::io(target.display().to_string()))?;
        load(wire, &kiln, "kiln", &format!("/repository/targets/{name}"), &mut ours)?;
        drop(kiln);
        load(wire, &nginx(wire, folder)?, "nginx", "/artifact", &mut peer)?;
    }
    let figure = |unit, ours, peer| {
        let peer = ("nginx sendfile", median(peer));
        Figure::new("HTTP 64 clients × 64 MiB", unit, Better::Higher, median(ours), peer)
    };
    Ok(vec![
        figure("GB/CPU s", ours.gigabytes_per_cpu_s, peer.gigabytes_per_cpu_s),
        figure("GB/s", ours.gigabytes_per_s, peer.gigabytes_per_s),
    ])
}

fn load(wire: &Wire, server: &Daemon, name: &str, path: &str, rounds: &mut Rounds) -> Result<()> {
    let before = server.cpu()?;
    let arguments = ["http", SERVER, path, &CLIENTS.to_string(), &SIZE.to_string()];
    let fetched: Fetched = wire.load(&arguments.map(str::to_owned))?;
    let cpu = server.cpu()? - before;
    let gigabytes = fetched.bytes as f64 / 1e9;
    eprintln!(
        "bench: http {name}: {gigabytes:.2} GB in {:.2} s, {cpu:.2} s of CPU: {:.2} GB/CPU s",
        fetched.seconds,
        gigabytes / cpu
    );
    rounds.gigabytes_per_s.push(gigabytes / fetched.seconds);
    rounds.gigabytes_per_cpu_s.push(gigabytes / cpu);
    Ok(())
}

fn nginx(wire: &Wire, folder: &Path) -> Result<Daemon> {
    let at = folder.canonicalize().map_err(Error::io(folder.display().to_string()))?;
    let at = at.display();
    let config = format!(
        "daemon off; user root; worker_processes 2; pid {at}/nginx.pid; error_log {at}/nginx-error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ sendfile on; tcp_nopush on; access_log off; client_body_temp_path {at}/nginx-body;\n\
         proxy_temp_path {at}/nginx-proxy; fastcgi_temp_path {at}/nginx-fastcgi;\n\
         uwsgi_temp_path {at}/nginx-uwsgi; scgi_temp_path {at}/nginx-scgi;\n\
         server {{ listen {SERVER}:80; root {at}; }} }}\n"
    );
    let path = folder.join("nginx.conf");
    write(&path, &config)?;
    let path = path.canonicalize().map_err(Error::io(path.display().to_string()))?;
    let daemon = Daemon::start("nginx", wire.server("nginx").arg("-c").arg(path), &folder.join("nginx.log"))?;
    let sockets = format!("/proc/{}/net/tcp", daemon.pid());
    // 0050 is port 80, 0A the state LISTEN.
    daemon.until(|| {
        let table = fs::read_to_string(&sockets).unwrap_or_default();
        table.lines().any(|line| line.contains(":0050 ") && line.contains(" 0A "))
    })
}

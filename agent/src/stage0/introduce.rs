//! `kiln.mode=discover`: nobody knows this machine yet. It says what it is made of and which switch it hears,
//! shows the same on its console, and waits until somebody accepts it; then it boots again.

pub mod hardware;
mod lldp;
mod screen;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kiln_model::inventory::{LIMIT, Neighbour};
use kiln_model::{Inventory, MacAddr};
use rustix::net::{RecvFlags, recv};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

use super::alive;
use crate::cmdline::Contact;
use crate::console::say;
use crate::http::{Client, HttpError};
use crate::network::{Interface, Network, NetworkError};
use crate::sys::{self, wire};

const PATH: &str = "/v1/boot/inventory";
/// How often the provisioner is asked whether somebody has accepted the machine.
const EVERY: Duration = Duration::from_secs(5);
/// The first report does not wait for a switch, which says who it is every 30 s (IEEE 802.1AB-2016, 9.2.5.5): a
/// technician wants to see something. What is heard later is reported when it is heard.
const FIRST: Duration = Duration::from_secs(2);
/// After so many refusals in a row this boot's token is worth nothing any more.
const REFUSALS: u32 = 6;
/// A frame's bytes at most.
const FRAME: usize = 2048;

type Heard = (MacAddr, Neighbour);

/// Introduces this machine; ends when it is to boot again.
///
/// # Errors
/// There is no network.
pub async fn run(network: &Network, contact: &Contact) -> Result<(), NetworkError> {
    let boots = network.boot_interface(contact).await?;
    say!("kiln: {} {}: reports what this machine is", boots.name, contact.address);
    let (tell, mut told) = unbounded_channel();
    for interface in network.ethernet().await? {
        network.up(interface.index).await?;
        tokio::spawn(listen(interface, tell.clone()));
    }
    let client = Client::to(contact.server, contact.token.clone());
    let mut neighbours = BTreeMap::<MacAddr, Vec<Neighbour>>::new();
    let mut reported: Option<Inventory> = None;
    let mut refusals = 0;
    let mut pause = FIRST;
    loop {
        alive();
        collect(&mut told, &mut neighbours, pause).await;
        pause = EVERY;
        let inventory = inventory(contact.mac, &neighbours);
        if reported.as_ref() != Some(&inventory) {
            say!("{}", screen::screen(&inventory));
            match report(&client, &inventory).await {
                Ok(()) => reported = Some(inventory),
                Err(error) => say!("kiln: {error}; reports again"),
            }
        }
        match client.get_once(PATH, 64, None).await {
            Ok(answer) if answer.status == 205 => {
                say!("kiln: this machine was accepted; it boots again");
                return Ok(());
            }
            Ok(_) => refusals = 0,
            Err(HttpError::Status { status, text, .. }) if (400..500).contains(&status) => {
                refusals += 1;
                say!("kiln: the provisioner answers {status}: {}", crate::console::printable(&text));
                if refusals >= REFUSALS {
                    say!("kiln: the provisioner does not know this boot any more; it boots again");
                    return Ok(());
                }
            }
            Err(error) => say!("kiln: {error}; asks again"),
        }
    }
}

/// Takes what is heard for `pause`.
async fn collect(
    told: &mut UnboundedReceiver<Heard>,
    neighbours: &mut BTreeMap<MacAddr, Vec<Neighbour>>,
    pause: Duration,
) {
    let end = Instant::now() + pause;
    while let Ok(Some((mac, neighbour))) =
        timeout(end.saturating_duration_since(Instant::now()), told.recv()).await
    {
        let known = neighbours.entry(mac).or_default();
        // A device that has other words for itself now takes its own place.
        known.retain(|n| (&n.chassis, &n.port) != (&neighbour.chassis, &neighbour.port));
        known.push(neighbour);
        known.sort();
    }
    sleep(end.saturating_duration_since(Instant::now())).await;
}

fn inventory(mac: MacAddr, neighbours: &BTreeMap<MacAddr, Vec<Neighbour>>) -> Inventory {
    let mut inventory = hardware::look(Path::new("/"), mac);
    for interface in &mut inventory.interfaces {
        interface.neighbours = neighbours.get(&interface.mac).cloned().unwrap_or_default();
    }
    inventory.bounded()
}

async fn report(client: &Client, inventory: &Inventory) -> Result<(), HttpError> {
    let json = serde_json::to_vec(inventory).unwrap_or_default();
    if json.len() > LIMIT {
        return Err(HttpError::TooLong { path: PATH.to_owned(), limit: LIMIT as u64 });
    }
    client.post(PATH, json).await
}

/// Listens on one interface for as long as somebody wants to know.
async fn listen(interface: Interface, tell: UnboundedSender<Heard>) {
    let socket = match wire::lldp(interface.index).and_then(sys::watch) {
        Ok(socket) => socket,
        Err(why) => {
            say!("kiln: {}: cannot listen for its switch: {why}", interface.name);
            return;
        }
    };
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let mut frame = [0; FRAME];
        match recv(socket.get_ref(), &mut frame, RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                let neighbour = lldp::read(frame.get(..length).unwrap_or_default());
                if neighbour.is_some_and(|neighbour| tell.send((interface.mac, neighbour)).is_err()) {
                    return;
                }
            }
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            // The interface went down; when it is up again it is heard again.
            Err(_) => sleep(EVERY).await,
        }
    }
}

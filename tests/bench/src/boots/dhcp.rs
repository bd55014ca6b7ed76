//! A relay (RFC 2131, section 4.1) and the machines behind it: from DISCOVER to ACK.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::wire::CLIENT;

/// How long firmware waits before it says something again (RFC 2131, section 4.1: four seconds, and more).
const PATIENCE: Duration = Duration::from_secs(4);
/// How often it does.
const TRIES: u64 = 4;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// The relay's socket, and who waits for which answers.
pub struct Relay {
    socket: Arc<UdpSocket>,
    address: Ipv4Addr,
    /// By number of machine, which is its transaction too.
    answers: Vec<Mutex<Receiver<Vec<u8>>>>,
}

/// What a machine was given.
pub struct Lease {
    pub address: Ipv4Addr,
    /// The boot file's name.
    pub file: String,
    pub retries: u64,
}

impl Relay {
    /// Listens on the relay's port and hands each answer to whom it is for.
    pub fn start(server: Ipv4Addr, machines: u32) -> io::Result<Self> {
        let address: Ipv4Addr = CLIENT.parse().map_err(io::Error::other)?;
        let socket = UdpSocket::bind((address, 67))?;
        // One socket hears what a thousand firmwares would hear.
        let _ = set_socket_recv_buffer_size_force(&socket, 4 << 20);
        socket.connect((server, 67))?;
        let socket = Arc::new(socket);
        let (senders, answers): (Vec<Sender<Vec<u8>>>, Vec<_>) = (0..machines).map(|_| channel()).unzip();
        let listening = Arc::clone(&socket);
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok(length) = listening.recv(&mut buffer) {
                let packet = buffer.get(..length).unwrap_or_default();
                let number = packet.get(4..8).and_then(|xid| xid.try_into().ok()).map(u32::from_be_bytes);
                if let Some(sender) = number.and_then(|number| senders.get(number as usize)) {
                    let _ = sender.send(packet.to_vec());
                }
            }
        });
        let answers = answers.into_iter().map(Mutex::new).collect();
        Ok(Self { socket, address, answers })
    }

    /// Sends `packet` until an answer of this kind comes; with how often it was sent again.
    fn ask(&self, number: u32, packet: &[u8], kind: u8) -> io::Result<(Vec<u8>, u64)> {
        let answers = self.answers.get(number as usize).ok_or(io::ErrorKind::NotFound)?;
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        for retry in 0..TRIES {
            self.socket.send(packet)?;
            while let Ok(answer) = answers.recv_timeout(PATIENCE) {
                if option(&answer, 53) == Some(&[kind][..]) {
                    return Ok((answer, retry));
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer of kind {kind}")))
    }
}

/// DISCOVER, OFFER, REQUEST, ACK, as UEFI firmware for x86-64 asks.
pub fn exchange(relay: &Relay, number: u32, mac: [u8; 6]) -> io::Result<Lease> {
    let (offer, first) = relay.ask(number, &packet(relay.address, number, mac, DISCOVER, &[]), OFFER)?;
    let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let given = offer.get(16..20).and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    let server = option(&offer, 54).unwrap_or_default();
    let mut chosen = vec![50, 4];
    chosen.extend(given.octets());
    chosen.extend([54, 4]);
    chosen.extend(server);
    let (ack, second) = relay.ask(number, &packet(relay.address, number, mac, REQUEST, &chosen), ACK)?;
    let fixed = ack.get(108..236).unwrap_or_default();
    let fixed = fixed.split(|byte| *byte == 0).next().unwrap_or_default();
    let file = option(&ack, 67).filter(|file| !file.is_empty()).unwrap_or(fixed);
    let file = String::from_utf8_lossy(file).trim_end_matches('\0').to_owned();
    Ok(Lease { address: given, file, retries: first + second })
}

/// A request as the relay passes it on.
fn packet(relay: Ipv4Addr, number: u32, mac: [u8; 6], kind: u8, more: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet[..4].copy_from_slice(&[1, 1, 6, 1]);
    packet[4..8].copy_from_slice(&number.to_be_bytes());
    packet[24..28].copy_from_slice(&relay.octets());
    packet[28..34].copy_from_slice(&mac);
    packet.extend(COOKIE);
    packet.extend([53, 1, kind]);
    packet.extend([60, 32]);
    packet.extend(b"PXEClient:Arch:00007:UNDI:003016");
    packet.extend([93, 2, 0, 7, 94, 3, 1, 3, 16, 55, 6, 1, 3, 54, 60, 66, 67]);
    packet.extend(more);
    packet.push(255);
    packet
}

/// The value of an option (RFC 2132); no server here splits one.
fn option(packet: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = packet.get(240..)?;
    loop {
        match rest {
            [0, more @ ..] => rest = more,
            [255, ..] | [] | [_] => return None,
            [code, length, more @ ..] => {
                let value = more.get(..usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                rest = more.get(usize::from(*length)..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_and_broken_ones_are_not_followed() {
        let mut bytes = packet(Ipv4Addr::LOCALHOST, 7, [2; 6], DISCOVER, &[12, 1, b'x']);
        assert_eq!(option(&bytes, 53), Some(&[DISCOVER][..]));
        assert_eq!(option(&bytes, 12), Some(&b"x"[..]));
        assert_eq!(option(&bytes, 67), None);
        bytes.truncate(bytes.len() - 2);
        assert_eq!(option(&bytes, 12), None);
    }
}

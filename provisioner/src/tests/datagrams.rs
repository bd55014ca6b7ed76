//! DHCP and TFTP over UDP on loopback. Packets come through a relay that asks for answers at its own port
//! (RFC 8357), so that the test needs no privileged port; real clients on a real wire are the lab's.

use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_model::api::{MachineState, MachineView, Timeline};
use kiln_model::timeline::Step;
use tokio::net::UdpSocket;

use super::fleet::Fleet;

const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// A packet of UEFI firmware on x86-64.
pub fn packet(kind: u8, mac: [u8; 6], options: &[(u8, &[u8])]) -> Vec<u8> {
    packet_of(b"PXEClient:Arch:00007:UNDI:003016", 7, kind, mac, options)
}

/// A packet of any firmware.
pub fn packet_of(
    vendor: &[u8],
    architecture: u8,
    kind: u8,
    mac: [u8; 6],
    options: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
    bytes[4..8].copy_from_slice(&[1, 2, 3, mac[5]]);
    bytes[24..28].copy_from_slice(&[127, 0, 0, 1]);
    bytes[28..34].copy_from_slice(&mac);
    bytes.extend(MAGIC);
    bytes.extend([53, 1, kind]);
    let architecture = [0, architecture];
    let firmware: [(u8, &[u8]); 2] = [(60, vendor), (93, &architecture)];
    for (code, data) in firmware.iter().chain(options).chain([&(82, &[19, 0][..])]) {
        bytes.extend([*code, u8::try_from(data.len()).expect("short")]);
        bytes.extend(*data);
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

pub fn option(bytes: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = bytes.get(240..)?;
    loop {
        match *rest.first()? {
            0 => rest = &rest[1..],
            255 => return None,
            code => {
                let length = usize::from(*rest.get(1)?);
                let data = rest.get(2..2 + length)?;
                if code == wanted {
                    return Some(data.to_vec());
                }
                rest = &rest[2 + length..];
            }
        }
    }
}

pub async fn tell(socket: &UdpSocket, port: u16, packet: &[u8]) -> Vec<u8> {
    socket.send_to(packet, ("127.0.0.1", port)).await.expect("sent");
    let mut buffer = vec![0; 2000];
    let (length, _) = tokio::time::timeout(Duration::from_secs(3), socket.recv_from(&mut buffer))
        .await
        .expect("an answer")
        .expect("received");
    buffer.truncate(length);
    buffer
}

/// DISCOVER, OFFER, REQUEST, ACK; answers with the address and the boot file.
pub async fn lease(fleet: &Fleet, mac: [u8; 6]) -> (Ipv4Addr, Option<String>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let offer = tell(&socket, fleet.dhcp, &packet(1, mac, &[])).await;
    assert_eq!(option(&offer, 53), Some(vec![2]), "an offer");
    let address = [offer[16], offer[17], offer[18], offer[19]];
    let server = option(&offer, 54).expect("a server id");
    let ack = tell(&socket, fleet.dhcp, &packet(3, mac, &[(50, &address), (54, &server)])).await;
    assert_eq!(option(&ack, 53), Some(vec![5]), "an ack");
    let file = option(&ack, 67).map(|f| String::from_utf8_lossy(&f).trim_end_matches('\0').to_owned());
    (address.into(), file)
}

/// Fetches a file in blocks of 512 bytes (RFC 1350).
async fn fetch(fleet: &Fleet, from: &str, name: &str) -> Result<Vec<u8>, u8> {
    let socket = UdpSocket::bind((from, 0)).await.expect("bound");
    let request = [&[0, 1][..], name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, ("127.0.0.1", fleet.tftp)).await.expect("sent");
    let mut contents = Vec::new();
    loop {
        let mut buffer = [0; 600];
        let (length, session) = tokio::time::timeout(Duration::from_secs(3), socket.recv_from(&mut buffer))
            .await
            .expect("an answer")
            .expect("received");
        if buffer[1] == 5 {
            return Err(buffer[3]);
        }
        contents.extend(&buffer[4..length]);
        socket.send_to(&[0, 4, buffer[2], buffer[3]], session).await.expect("sent");
        if length < 516 {
            return Ok(contents);
        }
    }
}

#[tokio::test]
async fn a_machine_gets_its_address_its_loader_and_a_timeline() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let (address, file) = lease(&fleet, [2, 0, 0, 0, 0, 1]).await;
    assert_eq!(address, Ipv4Addr::new(127, 0, 0, 11), "its own address");
    let file = file.expect("a boot file");
    assert!(file.starts_with("loader/") && file.ends_with("/ipxe.efi"), "{file}");
    assert_eq!(fetch(&fleet, "127.0.0.11", &file).await, Ok(vec![9; 5000]));
    for hostile in
        ["../keys/director.json", "loader/../../keys/director.json", "/etc/passwd", "loader/x/ipxe.efi"]
    {
        assert_eq!(fetch(&fleet, "127.0.0.11", hostile).await, Err(1), "{hostile}: not found");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fleet.machine("r1").await.state, MachineState::Loading);
    let timeline: Timeline = fleet.api("GET", "/v1/machines/r1/timeline", "").await.json();
    // Refusals of names that do not exist may be told before the end of the transfer.
    let steps = timeline.entries.iter().map(|e| e.step).filter(|step| *step != Step::TftpNotFound);
    let steps: Vec<Step> = steps.collect();
    let wanted = [Step::Discover, Step::Offer, Step::Request, Step::Ack, Step::TftpStart, Step::TftpDone];
    assert_eq!(steps.get(..6), Some(&wanted[..]), "{steps:?}");

    // A lease is durable: after a restart the same machine has the same address.
    fleet.stop().await;
    fleet.start().await;
    assert_eq!(lease(&fleet, [2, 0, 0, 0, 0, 1]).await.0, address);
    fleet.stop().await;
}

#[tokio::test]
async fn a_stranger_is_listed_and_keeps_its_address_over_a_restart() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let (address, _) = lease(&fleet, [2, 0, 0, 0, 0, 0x77]).await;
    assert!((100..=110).contains(&address.octets()[3]), "from the pool: {address}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let machines: Vec<MachineView> = fleet.api("GET", "/v1/machines", "").await.json();
    let stranger = machines.iter().find(|m| m.name.is_none()).expect("it is listed");
    assert_eq!((stranger.state, stranger.address), (MachineState::Discovered, Some(address)));
    assert!(stranger.trouble.contains("PXE firmware, architecture 7"), "{}", stranger.trouble);
    fleet.stop().await;
    fleet.start().await;
    assert_eq!(lease(&fleet, [2, 0, 0, 0, 0, 0x77]).await.0, address);
    fleet.stop().await;
}

//! Packets of real clients, captured from the wire with tcpdump (`captures/*.hex`), and our answers.
//!
//! OVMF 2022.11 for x86-64 and arm64 (PXE and HTTP boot) and iPXE 1.0.0+git20190125 (the ROM in QEMU 7.2's virtio
//! card, under BIOS), udhcpc 1.35, dhclient 4.4.3, dhcpcd 9.4.1 and systemd-networkd 252, all of Debian 12. ONIE,
//! SONiC and Cumulus Linux are BusyBox 1.35 and dhclient 4.4.3, configured as those systems configure theirs;
//! `captures/make.sh` has those configurations and makes the packets again.

#[path = "support/hex.rs"]
mod hex;
mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;
use kiln_dhcp::{ClientFacts, Destination, Effect, Firmware, Inbound, Request, Reservation};
use kiln_model::MacAddr;

use support::{Ask, INSTALLER, LOADER, Lab, SCRIPT, file, kind, option};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x0b]);
const HTTP_LOADER: &str = "http://10.77.0.1/loader/0123456789abcdef/ipxe.efi";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

fn captured(text: &str) -> Ask {
    Ask { bytes: hex::bytes(text) }
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.memory.machines.clear();
    let machine = "r1".parse().expect("a name");
    lab.memory.machines.insert(MAC, Reservation { machine, address: Some(ADDRESS) });
    lab
}

/// What a client sends first and second.
struct Pair {
    discover: &'static str,
    request: &'static str,
}

macro_rules! pair {
    ($client:literal) => {
        Pair {
            discover: include_str!(concat!("captures/", $client, "-discover.hex")),
            request: include_str!(concat!("captures/", $client, "-request.hex")),
        }
    };
}

/// Each capture: as what it is recognised, its architectures (option 93), whether it has a UUID, what it boots.
fn captures() -> Vec<(Pair, Firmware, Vec<u16>, bool, &'static str)> {
    vec![
        (pair!("ovmf-pxe"), Firmware::Pxe, vec![7], true, LOADER),
        (pair!("ovmf-arm64-pxe"), Firmware::Pxe, vec![11], true, LOADER),
        (pair!("ipxe"), Firmware::Ipxe, vec![0], true, SCRIPT),
        (pair!("ovmf-http"), Firmware::HttpBoot, vec![16], true, HTTP_LOADER),
        (pair!("ovmf-arm64-http"), Firmware::HttpBoot, vec![19], true, HTTP_LOADER),
        (pair!("onie-network"), Firmware::Onie, vec![], false, INSTALLER),
        (pair!("onie"), Firmware::Onie, vec![], false, INSTALLER),
        // SONiC and Cumulus Linux hear of a script in option 239, which is no boot file.
        (pair!("sonic"), Firmware::Sonic, vec![], false, ""),
        (pair!("cumulus"), Firmware::Cumulus, vec![], false, ""),
        (pair!("dhcpcd"), Firmware::Other, vec![], false, ""),
        (pair!("networkd"), Firmware::Other, vec![], false, ""),
        (pair!("udhcpc"), Firmware::Other, vec![], false, ""),
        (pair!("dhclient"), Firmware::Other, vec![], false, ""),
    ]
}

#[test]
fn each_client_is_told_from_the_others() {
    for (pair, firmware, architectures, has_uuid, _) in captures() {
        for packet in [pair.discover, pair.request] {
            let facts = ClientFacts::of(&Request::parse(&captured(packet).bytes).expect("a request"));
            assert_eq!((facts.mac, facts.firmware, facts.uuid.is_some()), (MAC, firmware, has_uuid));
            assert_eq!(facts.architectures, architectures);
        }
    }
}

#[test]
fn each_client_gets_from_discover_to_ack() {
    for (pair, _, _, _, boots) in captures() {
        let mut lab = lab();
        let (offer, _) = lab.tell(&captured(pair.discover)).expect("an offer");
        let (ack, sent) = lab.tell(&captured(pair.request)).expect("an ACK");
        assert_eq!((kind(&offer), kind(&ack)), (MessageType::Offer, MessageType::Ack));
        assert_eq!((offer.yiaddr(), ack.yiaddr()), (ADDRESS, ADDRESS));
        assert_eq!(file(&sent.bytes), boots);
        assert_eq!(lab.memory.by_owner[&MAC].address, ADDRESS);
    }
}

/// The one offer that ONIE takes URLs from fits its 576 bytes with all of them in it.
#[test]
fn onie_hears_of_its_installer_in_every_way_that_it_looks() {
    let discover = captured(pair!("onie").discover);
    let (_, sent) = lab().tell(&discover).expect("an offer");
    assert!(sent.bytes.len() <= 548, "{} bytes", sent.bytes.len());
    let url = INSTALLER.as_bytes();
    let vendor = option(&sent.bytes, 125).expect("option 125");
    assert_eq!((&vendor[..4], &vendor[7..]), (&[0, 0, 0xa6, 0x7f][..], url), "the enterprise, and one URL");
    assert_eq!((option(&sent.bytes, 114), option(&sent.bytes, 67)), (Some(url.to_vec()), Some(url.to_vec())));
    for code in [54, 72, 150] {
        assert_eq!(option(&sent.bytes, code), Some(support::SERVER.octets().to_vec()), "option {code}");
    }
    assert_eq!(option(&sent.bytes, 66), Some(support::SERVER.to_string().into_bytes()));
    // A serial number behind a zero, on each of its cards the same: sent back as it came.
    assert_eq!(option(&sent.bytes, 61), Some(b"\0KILN0001".to_vec()));
}

/// What ONIE calls a client id is the box's serial number: two cards that say the same are two clients.
#[test]
fn two_cards_of_one_switch_get_two_addresses() {
    let mut lab = Lab::new();
    let (discover, request) = (captured(pair!("onie").discover), captured(pair!("onie").request));
    let mut taken = Vec::new();
    for last in [1, 2] {
        let from = |ask: &Ask| {
            let mut ask = ask.clone();
            ask.bytes[28..34].copy_from_slice(&support::mac(last).0);
            ask
        };
        let (offer, _) = lab.tell(&from(&discover)).expect("an offer");
        let mut request = from(&request);
        let at = request.bytes.windows(2).position(|two| two == [50, 4]).expect("option 50") + 2;
        request.bytes[at..at + 4].copy_from_slice(&offer.yiaddr().octets());
        let (ack, _) = lab.tell(&request).expect("an answer");
        assert_eq!(kind(&ack), MessageType::Ack);
        taken.push(ack.yiaddr());
    }
    assert_ne!(taken[0], taken[1]);
}

#[test]
fn switches_own_systems_hear_of_their_script() {
    let told = |packet: &str, ztp: &str| {
        let mut lab = lab();
        ztp.clone_into(&mut lab.memory.ztp);
        let (_, sent) = lab.tell(&captured(packet)).expect("an offer");
        [67, 239].map(|code| option(&sent.bytes, code).map(|data| String::from_utf8(data).expect("text")))
    };
    let (json, script) = ("http://10.77.0.1/ztp/sonic.json", "http://10.77.0.1/ztp/cumulus.sh");
    assert_eq!(told(pair!("sonic").discover, json), [Some(json.to_owned()), None]);
    assert_eq!(told(pair!("sonic").discover, script), [None, Some(script.to_owned())]);
    assert_eq!(told(pair!("cumulus").discover, script), [None, Some(script.to_owned())]);
}

#[test]
fn firmware_hears_what_it_needs_to_believe_an_offer() {
    let discover = captured(include_str!("captures/ovmf-pxe-discover.hex"));
    let uuid = option(&discover.bytes, 97);
    let (_, sent) = lab().tell(&discover).expect("an offer");
    assert_eq!(option(&sent.bytes, 60), Some(b"PXEClient".to_vec()));
    assert_eq!(option(&sent.bytes, 43), Some(vec![6, 1, 8, 255]));
    assert_eq!((option(&sent.bytes, 97), uuid.map(|u| u.len())), (option(&discover.bytes, 97), Some(17)));

    let http = captured(include_str!("captures/ovmf-http-discover.hex"));
    let (_, sent) = lab().tell(&http).expect("an offer");
    assert_eq!(option(&sent.bytes, 60), Some(b"HTTPClient".to_vec()));
    assert_eq!(option(&sent.bytes, 67), Some(HTTP_LOADER.as_bytes().to_vec()));

    let (_, sent) = lab().tell(&captured(include_str!("captures/ipxe-discover.hex"))).expect("an offer");
    assert_eq!(option(&sent.bytes, 175), Some(vec![176, 1, 1]));
    // iPXE leaves the broadcast flag clear and cannot answer ARP: a frame of its own.
    assert_eq!(sent.to, Destination::Raw { address: ADDRESS, mac: MAC });
}

/// Beside dnsmasq, which gave the address: OVMF took our offer without a file and asked port 4011.
#[test]
fn firmware_beside_another_server_asks_the_boot_server_and_is_told() {
    let mut lab = lab();
    lab.memory.subnets[0].proxy = true;
    let (offer, sent) =
        lab.tell(&captured(include_str!("captures/ovmf-pxe-discover.hex"))).expect("an offer");
    assert_eq!((offer.yiaddr(), option(&sent.bytes, 43)), (Ipv4Addr::UNSPECIFIED, None));

    let request = captured(include_str!("captures/ovmf-4011-request.hex"));
    let source = SocketAddrV4::new(ADDRESS, 4011);
    let input = Inbound { bytes: &request.bytes, source, local: support::SERVER };
    let effects = lab.server.boot_service(&input, lab.now, &lab.memory);
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Send(sent) => Some(sent),
        _ => None,
    });
    let sent = sent.expect("an ACK");
    assert_eq!((sent.to, file(&sent.bytes).as_str()), (Destination::Unicast(source), LOADER));
}

//! Packets of real clients, captured from the wire with tcpdump (`captures/*.hex`), and our answers.
//!
//! OVMF 2022.11 (PXE and HTTP boot) and iPXE 1.0.0+git20190125 (the ROM in QEMU 7.2's virtio card), udhcpc 1.35,
//! dhclient 4.4.3, dhcpcd 9.4.1 and systemd-networkd 252, all of Debian 12.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;
use kiln_dhcp::{ClientFacts, Destination, Effect, Firmware, Inbound, Request, Reservation};
use kiln_model::MacAddr;

use support::{Ask, LOADER, Lab, SCRIPT, file, kind, option};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x0b]);
const HTTP_LOADER: &str = "http://10.77.0.1/loader/0123456789abcdef/ipxe.efi";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

fn captured(text: &str) -> Ask {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    Ask { bytes: digits.chunks(2).map(byte).collect() }
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.memory.machines.clear();
    let machine = "r1".parse().expect("a name");
    lab.memory.machines.insert(MAC, Reservation { machine, address: Some(ADDRESS) });
    lab
}

#[test]
fn each_client_is_told_from_the_others() {
    for (packet, firmware, architectures, has_uuid) in [
        (include_str!("captures/ovmf-pxe-discover.hex"), Firmware::Pxe, vec![7], true),
        (include_str!("captures/ipxe-discover.hex"), Firmware::Ipxe, vec![0], true),
        (include_str!("captures/ovmf-http-discover.hex"), Firmware::HttpBoot, vec![16], true),
        (include_str!("captures/dhcpcd-discover.hex"), Firmware::Other, vec![], false),
        (include_str!("captures/networkd-discover.hex"), Firmware::Other, vec![], false),
        (include_str!("captures/udhcpc-discover.hex"), Firmware::Other, vec![], false),
        (include_str!("captures/dhclient-discover.hex"), Firmware::Other, vec![], false),
    ] {
        let facts = ClientFacts::of(&Request::parse(&captured(packet).bytes).expect("a request"));
        assert_eq!((facts.mac, facts.firmware, facts.uuid.is_some()), (MAC, firmware, has_uuid));
        assert_eq!(facts.architectures, architectures);
    }
}

#[test]
fn each_client_gets_from_discover_to_ack() {
    for (discover, request, boots) in [
        (
            include_str!("captures/ovmf-pxe-discover.hex"),
            include_str!("captures/ovmf-pxe-request.hex"),
            LOADER,
        ),
        (include_str!("captures/ipxe-discover.hex"), include_str!("captures/ipxe-request.hex"), SCRIPT),
        (
            include_str!("captures/ovmf-http-discover.hex"),
            include_str!("captures/ovmf-http-request.hex"),
            HTTP_LOADER,
        ),
        (include_str!("captures/dhcpcd-discover.hex"), include_str!("captures/dhcpcd-request.hex"), ""),
        (include_str!("captures/networkd-discover.hex"), include_str!("captures/networkd-request.hex"), ""),
        (include_str!("captures/udhcpc-discover.hex"), include_str!("captures/udhcpc-request.hex"), ""),
        (include_str!("captures/dhclient-discover.hex"), include_str!("captures/dhclient-request.hex"), ""),
    ] {
        let mut lab = lab();
        let (offer, _) = lab.tell(&captured(discover)).expect("an offer");
        let (ack, sent) = lab.tell(&captured(request)).expect("an ACK");
        assert_eq!((kind(&offer), kind(&ack)), (MessageType::Offer, MessageType::Ack));
        assert_eq!((offer.yiaddr(), ack.yiaddr()), (ADDRESS, ADDRESS));
        assert_eq!(file(&sent.bytes), boots);
        assert_eq!(lab.memory.by_owner[&MAC].address, ADDRESS);
    }
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

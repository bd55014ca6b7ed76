//! Packets of real clients, captured from the wire with tcpdump (`captures/*.hex`), and our answers.
//!
//! OVMF 2022.11 (PXE and HTTP boot), dhclient 4.4.3 and systemd-networkd 252, all of Debian 12.

#[path = "../../dhcp/tests/support/hex.rs"]
mod hex;
mod support;

use dhcproto::v6::MessageType;
use kiln_dhcp::Firmware;
use kiln_dhcp6::options::{code, find};
use kiln_dhcp6::{Request, Reservation};
use kiln_model::MacAddr;

use support::{Ask, Lab, given, ip, read};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x0b]);
/// The link-local address of that card; every capture came from there.
const SOURCE: &str = "fe80::5054:ff:fe77:b";

fn captured(text: &str) -> Ask {
    Ask { bytes: hex::bytes(text) }
}

#[test]
fn each_client_is_told_from_the_others_and_gets_from_solicit_to_reply() {
    for (solicit, request, firmware, architectures, boots) in [
        (
            include_str!("captures/ovmf-pxe-solicit.hex"),
            include_str!("captures/ovmf-pxe-request.hex"),
            Firmware::Pxe,
            vec![7],
            Some("tftp://[fd77::1]/loader/ipxe.efi"),
        ),
        (
            include_str!("captures/ovmf-http-solicit.hex"),
            include_str!("captures/ovmf-http-request.hex"),
            Firmware::HttpBoot,
            vec![16],
            Some("http://[fd77::1]/boot/ipxe.efi"),
        ),
        (
            include_str!("captures/dhclient-solicit.hex"),
            include_str!("captures/dhclient-request.hex"),
            Firmware::Other,
            vec![],
            None,
        ),
        (
            include_str!("captures/networkd-solicit.hex"),
            include_str!("captures/networkd-request.hex"),
            Firmware::Other,
            vec![],
            None,
        ),
    ] {
        let (solicit, request) = (captured(solicit), captured(request));
        let facts = Request::parse(&solicit.bytes, ip(SOURCE)).expect("a message").client;
        assert_eq!((facts.mac, facts.firmware, facts.architectures), (Some(MAC), firmware, architectures));

        let mut lab = Lab::new();
        let machine = Reservation { machine: "r1".parse().expect("a name"), address: Some(ip("fd77::11")) };
        lab.memory.machines = [(MAC, machine)].into();
        let advertise = lab.tell_from(&solicit, SOURCE).expect("an ADVERTISE");
        let reply = lab.tell_from(&request, SOURCE).expect("a REPLY");
        assert_eq!(read(&advertise.bytes).msg_type(), MessageType::Advertise);
        assert_eq!(read(&reply.bytes).msg_type(), MessageType::Reply);
        assert_eq!(given(&read(&reply.bytes)), [(ip("fd77::11"), 3600)]);
        // Both firmwares ask for option 60; only what boots by PXE reads a size there.
        let size = find(&reply.bytes[4..], code::BOOT_PARAMETERS);
        assert_eq!(size, (firmware == Firmware::Pxe).then_some(&b"\0\x042040"[..]));
        let asked = lab.seen.first().map(|seen| seen.detail.clone()).unwrap_or_default();
        assert_eq!(asked.contains(", UNDI 3.0"), boots.is_some(), "{asked}");
        let url = find(&reply.bytes[4..], code::BOOT_URL);
        assert_eq!(url.map(|url| std::str::from_utf8(url).expect("text")), boots);
        assert_eq!(lab.memory.leases.len(), 1);
    }
}

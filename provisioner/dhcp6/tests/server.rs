//! The server's answers, message by message (RFC 8415, section 18.3), read with dhcproto's decoder.

mod support;

use std::net::SocketAddrV6;

use dhcproto::v6::MessageType;
use kiln_dhcp::Firmware;
use kiln_dhcp6::options::{code, find};
use kiln_dhcp6::{BootAnswer, Duid, PacketError, Request};
use kiln_model::timeline::Step;
use proptest::prelude::*;

use support::{Ask, Lab, given, ip, mac, read, server_id, statuses};

const SOLICIT: u8 = 1;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;

fn duid(last: u8) -> Duid {
    Duid::of_mac(mac(last))
}

/// What firmware calls itself: nothing in it says which card it has.
fn uuid(last: u8) -> Duid {
    Duid::new(&[&[0, 4][..], &[last; 16]].concat()).expect("one")
}

#[test]
fn uefi_firmware_of_a_known_machine_gets_its_address_and_what_to_boot() {
    let mut lab = Lab::new();
    // OVMF names itself by its UUID; its link-local address is made of its card's.
    let source = "fe80::5054:ff:fe00:1";
    let solicit =
        Ask::new(SOLICIT, &uuid(9)).wants(7, &[]).option(61, &[0, 7]).vendor("PXEClient:Arch:00007");
    let advertise = lab.tell_from(&solicit, source).expect("an ADVERTISE");
    let message = read(&advertise.bytes);
    assert_eq!((message.msg_type(), message.xid()), (MessageType::Advertise, [1, 2, 3]));
    assert_eq!(given(&message), [(ip("fd77::11"), 3600)]);
    assert_eq!(advertise.to, SocketAddrV6::new(ip(source), 546, 0, 3));
    let url = find(&advertise.bytes[4..], code::BOOT_URL).expect("option 59");
    assert_eq!(url, b"tftp://[fd77::1]/loader/ipxe.efi");
    assert_eq!(find(&advertise.bytes[4..], 2), Some(server_id().as_bytes()));
    assert_eq!(find(&advertise.bytes[4..], 1), Some(uuid(9).as_bytes()));

    let request = Ask::new(REQUEST, &uuid(9)).for_us().wants(7, &[ip("fd77::11")]);
    let reply = lab.tell_from(&request, source).expect("a REPLY");
    assert_eq!(read(&reply.bytes).msg_type(), MessageType::Reply);
    let lease = &lab.memory.leases[&ip("fd77::11")];
    assert_eq!((lease.mac, lease.expires), (Some(mac(1)), lab.now.plus((3600 + 900) * 1000)));
    let steps: Vec<Step> = lab.seen.iter().map(|seen| seen.step).collect();
    assert_eq!(steps, [Step::Discover, Step::Offer, Step::Request, Step::Ack]);

    // The operating system of the same machine names itself otherwise, and gets the same address.
    assert_eq!(lab.boot(&duid(1)), Some(ip("fd77::11")));
    assert_eq!(lab.memory.leases.len(), 1);
}

#[test]
fn http_boot_firmware_is_told_that_we_are_an_http_client_too() {
    let mut lab = Lab::new();
    let solicit =
        Ask::new(SOLICIT, &duid(1)).wants(1, &[]).option(61, &[0, 16]).vendor("HTTPClient:Arch:00016");
    let reply = lab.tell(&solicit).expect("an ADVERTISE");
    assert_eq!(find(&reply.bytes[4..], 59), Some(&b"http://[fd77::1]/boot/ipxe.efi"[..]));
    assert_eq!(find(&reply.bytes[4..], 16), Some(&b"\0\0\x01\x57\0\x0aHTTPClient"[..]));
    let ipxe = Ask::new(SOLICIT, &duid(1)).wants(1, &[]).option(15, b"\0\x04iPXE").vendor("PXEClient");
    let reply = lab.tell(&ipxe).expect("an ADVERTISE");
    assert_eq!(find(&reply.bytes[4..], 59), Some(&b"http://[fd77::1]/boot/ipxe"[..]));
}

#[test]
fn a_parameter_is_for_who_asks_for_it_and_no_file_is_called_smaller_than_it_is() {
    let mut lab = Lab::new();
    let solicit = |oro: &[u8]| {
        let ask = Ask::new(SOLICIT, &duid(1)).wants(1, &[]).option(61, &[0, 7]).vendor("PXEClient");
        ask.option(6, oro).option(62, &[1, 3, 16])
    };
    let reply = lab.tell(&solicit(&[0, 59, 0, 60])).expect("an ADVERTISE");
    assert_eq!(find(&reply.bytes[4..], 60), Some(&b"\0\x042040"[..]));
    let reply = lab.tell(&solicit(&[0, 59])).expect("an ADVERTISE");
    assert_eq!(find(&reply.bytes[4..], 60), None);
    assert!(lab.seen[0].detail.contains("PXE firmware, architecture 7, UNDI 3.16"), "{:?}", lab.seen[0]);
    // A length that is none of this option's is as if it were not there.
    for wrong in [&b""[..], &[1], &[1, 3], &[1, 3, 16, 0]] {
        let ask = Ask::new(SOLICIT, &duid(1)).wants(1, &[]).option(62, wrong);
        assert_eq!(Request::parse(&ask.bytes, ip("fe80::1")).expect("a message").client.card, None);
    }
    for (size, told) in [(0, Some("0")), (1, Some("1")), (512, Some("1")), (513, Some("2"))]
        .into_iter()
        .chain([(65_535 * 512, Some("65535")), (65_535 * 512 + 1, None)])
    {
        let answer = BootAnswer { url: String::new(), size: Some(size) };
        assert_eq!(answer.parameters(Firmware::Pxe), Vec::from_iter(told), "{size}");
        assert_eq!(answer.parameters(Firmware::Ipxe), Vec::<String>::new());
    }
}

#[test]
fn a_stranger_gets_a_short_lease_from_its_share_and_nothing_to_boot() {
    let mut lab = Lab::new();
    let solicit = Ask::new(SOLICIT, &duid(9)).wants(1, &[]).vendor("PXEClient");
    let reply = lab.tell(&solicit).expect("an ADVERTISE");
    let (address, seconds) = given(&read(&reply.bytes))[0];
    assert!(address >= ip("fd77::10c") && seconds == 120, "{address} {seconds}");
    assert_eq!(find(&reply.bytes[4..], 59), None);
    let served = (10..60).filter(|last| lab.boot(&duid(*last)).is_some()).count();
    assert_eq!(served, 4, "a quarter of sixteen");
    let refused = read(&lab.tell(&Ask::new(SOLICIT, &duid(99)).wants(1, &[])).expect("an ADVERTISE").bytes);
    assert_eq!((statuses(&refused), given(&refused).len()), (vec![2], 0));
    assert!(lab.boot(&duid(2)).is_some(), "known machines are not affected");
}

#[test]
fn rapid_commit_gives_at_once() {
    let mut lab = Lab::new();
    let reply = lab.tell(&Ask::new(SOLICIT, &duid(2)).wants(1, &[]).option(14, &[])).expect("a REPLY");
    assert_eq!(read(&reply.bytes).msg_type(), MessageType::Reply);
    assert_eq!(find(&reply.bytes[4..], 14), Some(&[][..]));
    assert_eq!(lab.memory.leases.len(), 1);
}

#[test]
fn a_client_renews_rebinds_confirms_and_releases() {
    let mut lab = Lab::new();
    let held = lab.boot(&duid(2)).expect("an address");
    lab.now = lab.now.plus(1_800_000);
    let renewed = lab.tell(&Ask::new(RENEW, &duid(2)).for_us().wants(1, &[held])).expect("a REPLY");
    assert_eq!(given(&read(&renewed.bytes)), [(held, 3600)]);
    assert_eq!(lab.memory.leases[&held].expires, lab.now.plus(4_500_000));
    let rebound = lab.tell(&Ask::new(REBIND, &duid(2)).wants(1, &[held])).expect("a REPLY");
    assert_eq!(given(&read(&rebound.bytes)), [(held, 3600)]);
    // Somebody else's: it must stop using it. Another network's as well.
    for (client, address) in [(9, held), (2, ip("fd99::5"))] {
        let reply = lab.tell(&Ask::new(RENEW, &duid(client)).for_us().wants(1, &[address])).expect("a REPLY");
        assert_eq!(given(&read(&reply.bytes)), [(address, 0)]);
    }
    let elsewhere = lab.tell(&Ask::new(REBIND, &duid(9)).wants(1, &[ip("fd99::5")])).expect("a REPLY");
    assert_eq!(given(&read(&elsewhere.bytes)), [(ip("fd99::5"), 0)]);
    assert!(lab.tell(&Ask::new(REBIND, &duid(9)).wants(1, &[held])).is_none(), "another server may know it");
    for (address, status) in [(held, 0), (ip("fd99::5"), 4)] {
        let reply = lab.tell(&Ask::new(CONFIRM, &duid(2)).wants(1, &[address])).expect("a REPLY");
        assert_eq!(statuses(&read(&reply.bytes)), [status]);
    }
    assert!(lab.tell(&Ask::new(CONFIRM, &duid(2)).wants(1, &[])).is_none());
    let stranger = lab.tell(&Ask::new(RELEASE, &duid(9)).for_us().wants(1, &[held])).expect("a REPLY");
    assert_eq!((statuses(&read(&stranger.bytes)), lab.memory.leases.len()), (vec![3, 0], 1));
    let released = lab.tell(&Ask::new(RELEASE, &duid(2)).for_us().wants(1, &[held])).expect("a REPLY");
    assert_eq!((statuses(&read(&released.bytes)), lab.memory.leases.len()), (vec![0], 0));
}

#[test]
fn an_address_somebody_else_sits_on_is_kept_unused() {
    let mut lab = Lab::new();
    let held = lab.boot(&duid(2)).expect("an address");
    lab.tell(&Ask::new(DECLINE, &duid(9)).for_us().wants(1, &[held]));
    assert!(lab.memory.quarantine.is_empty(), "it was not the stranger's to decline");
    lab.tell(&Ask::new(DECLINE, &duid(2)).for_us().wants(1, &[held]));
    assert_eq!(lab.memory.quarantine[&held], lab.now.plus(86_400_000));
    assert_ne!(lab.boot(&duid(2)).expect("another"), held);
}

#[test]
fn what_is_incomplete_or_for_another_server_is_not_answered() {
    let mut lab = Lab::new();
    let other = Duid::of_mac(mac(0x33));
    let nobody = |kind: u8| Ask { bytes: vec![kind, 1, 2, 3] }.wants(1, &[]);
    for ask in [
        nobody(SOLICIT),
        Ask::new(SOLICIT, &duid(2)).for_us().wants(1, &[]),
        Ask::new(REQUEST, &duid(2)).wants(1, &[]),
        Ask::new(REQUEST, &duid(2)).option(2, other.as_bytes()).wants(1, &[]),
        Ask::new(RENEW, &duid(2)).wants(1, &[]),
        Ask::new(REBIND, &duid(2)).for_us().wants(1, &[]),
        Ask::new(CONFIRM, &duid(2)).for_us().wants(1, &[ip("fd77::5")]),
        Ask::new(RELEASE, &duid(2)).wants(1, &[]),
        Ask::new(DECLINE, &duid(2)).wants(1, &[]),
        Ask::new(INFORMATION, &duid(2)).wants(1, &[]),
        Ask::new(INFORMATION, &duid(2)).option(2, other.as_bytes()),
        Ask::new(2, &duid(2)).wants(1, &[]),
        Ask::new(7, &duid(2)).wants(1, &[]),
    ] {
        assert!(lab.tell(&ask).is_none(), "{:?}", ask.bytes);
    }
    let told = lab.tell(&Ask::new(INFORMATION, &duid(2))).expect("a REPLY");
    assert_eq!(find(&told.bytes[4..], 23), Some(&ip("fd00::53").octets()[..]));
}

#[test]
fn answers_go_back_through_every_relay_as_they_came() {
    let mut lab = Lab::new();
    let ask = Ask::new(SOLICIT, &uuid(1))
        .wants(1, &[])
        .through(0, "fd88::1", "fe80::9", &[(79, &[0, 1, 0x52, 0x54, 0, 0, 0, 2]), (18, b"eth7")])
        .through(1, "::", "fd88::1", &[(18, b"core"), (135, &[0, 0])]);
    let sent = lab.tell_from(&ask, "fd00::9").expect("an ADVERTISE");
    assert_eq!(sent.to, SocketAddrV6::new(ip("fd00::9"), 5460, 0, 3), "at the port that it asked from");
    let outer = &sent.bytes;
    assert_eq!((outer[0], outer[1], &outer[18..34]), (13, 1, &ip("fd88::1").octets()[..]));
    assert_eq!((find(&outer[34..], 18), find(&outer[34..], 135)), (Some(&b"core"[..]), Some(&[0, 0][..])));
    let inner = find(&outer[34..], 9).expect("a message");
    assert_eq!((inner[0], inner[1], &inner[2..18]), (13, 0, &ip("fd88::1").octets()[..]));
    assert_eq!(find(&inner[34..], 18), Some(&b"eth7"[..]));
    let message = read(find(&inner[34..], 9).expect("a message"));
    assert_eq!(message.msg_type(), MessageType::Advertise);
    let (address, seconds) = given(&message)[0];
    assert!(address >= ip("fd88::100") && seconds == 3600, "the relay's word says that it is r2: {address}");
    // A relay in a network that is not ours.
    let far = Ask::new(SOLICIT, &duid(2)).wants(1, &[]).through(0, "fd99::1", "fe80::9", &[]);
    assert!(lab.tell(&far).is_none());
}

#[test]
fn nine_relays_are_too_many_and_a_relay_must_forward_something() {
    let mut ask = Ask::new(SOLICIT, &duid(2)).wants(1, &[]);
    for hops in 0..8 {
        ask = ask.through(hops, "fd77::1", "fe80::9", &[]);
    }
    assert_eq!(Request::parse(&ask.bytes, ip("fe80::1")).expect("eight").relays.len(), 8);
    let ask = ask.through(8, "fd77::1", "fe80::9", &[]);
    assert_eq!(Request::parse(&ask.bytes, ip("fe80::1")), Err(PacketError::Relays));
    let empty = [&[12, 0][..], &[0; 32]].concat();
    assert_eq!(Request::parse(&empty, ip("fe80::1")), Err(PacketError::Nothing));
    for (bytes, error) in [
        (&[][..], PacketError::Short { found: 0 }),
        (&[1, 2, 3], PacketError::Short { found: 3 }),
        (&[12, 2, 3], PacketError::Short { found: 3 }),
        (&[99, 2, 3, 4], PacketError::Kind(99)),
    ] {
        assert_eq!(Request::parse(bytes, ip("fe80::1")), Err(error));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_server_panic(
        kind in 0u8..14, body in prop::collection::vec(any::<u8>(), 0..400), relayed in any::<bool>()
    ) {
        let mut bytes = vec![kind, 1, 2, 3];
        bytes.extend(body);
        let ask = Ask { bytes };
        let ask = if relayed { ask.through(0, "fd77::1", "fe80::9", &[]) } else { ask };
        let _ = Lab::new().tell(&ask);
    }

    #[test]
    fn no_options_make_the_server_panic(
        kind in 0u8..14, cut in 0usize..400, ours in any::<bool>(),
        options in prop::collection::vec((0u16..140, prop::collection::vec(any::<u8>(), 0..60)), 0..9),
    ) {
        let mut ask = Ask::new(kind, &duid(2)).wants(1, &[ip("fd77::100")]);
        if ours {
            ask = ask.for_us();
        }
        for (code, data) in options {
            ask = ask.option(code, &data);
        }
        ask.bytes.truncate(ask.bytes.len().saturating_sub(cut % 7));
        if let Some(reply) = Lab::new().tell(&ask) {
            read(&reply.bytes);
        }
    }

    /// `Lab::commit` asserts that no address is given to two clients; this gives it every chance.
    #[test]
    fn no_address_is_ever_given_twice(
        script in prop::collection::vec((0u8..7, 0u8..12, 0xfdu8..0xff, 0x0u8..18), 0..100)
    ) {
        let mut lab = Lab::new();
        for (act, client, _, last) in script {
            let at = ip(&format!("fd77::{:x}", 0xff + u16::from(last)));
            match act {
                0 => drop(lab.boot(&duid(client))),
                1 => drop(lab.tell(&Ask::new(REQUEST, &duid(client)).for_us().wants(1, &[at]))),
                2 => drop(lab.tell(&Ask::new(RENEW, &duid(client)).for_us().wants(1, &[at]))),
                3 => drop(lab.tell(&Ask::new(REBIND, &duid(client)).wants(1, &[at]).wants(2, &[at]))),
                4 => drop(lab.tell(&Ask::new(RELEASE, &duid(client)).for_us().wants(1, &[at]))),
                5 => drop(lab.tell(&Ask::new(DECLINE, &duid(client)).for_us().wants(1, &[at]))),
                _ => lab.now = lab.now.plus(u64::from(last) * 100_000),
            }
        }
    }
}

//! What went wrong on other people's networks, and must not here: each test is a line of what operators of other
//! servers reported, or of an RFC that those servers read another way.

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use dhcproto::v4::MessageType;
use kiln_dhcp::{Class, Destination, Reservation};
use kiln_model::MacAddr;

use support::{Ask, LOADER, Lab, SCRIPT, SERVER, file, kind, mac, option};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

fn takes(lab: &mut Lab, discover: Ask, request: Ask) -> Ipv4Addr {
    let (offer, _) = lab.tell(&discover).expect("an offer");
    let (ack, _) = lab.tell(&request.address(54, SERVER).address(50, offer.yiaddr())).expect("an answer");
    assert_eq!(kind(&ack), MessageType::Ack);
    ack.yiaddr()
}

/// ROM, iPXE, our stage 0 and an operating system: one card, four client identifiers (RFC 4361), and firmware that
/// sends none.
#[test]
fn whatever_a_machine_calls_itself_it_has_one_address() {
    let mut lab = Lab::new();
    let ids: [Option<&[u8]>; 5] = [
        None,
        Some(&[0; 17]),
        Some(b"\x01\x52\x54\0\0\0\x02"),
        Some(b"\xff\0\0\0\x02\0\x01\0\x01\x29\x33\x37\xba\x52\x54\0\0\0\x02"),
        Some(b"SONiC##box##KILN0001"),
    ];
    let mut addresses = BTreeSet::new();
    for id in ids {
        let says = |kind| {
            let ask = Ask::new(kind, mac(2));
            id.map_or(ask.clone(), |id| ask.option(61, id))
        };
        addresses.insert(takes(&mut lab, says(DISCOVER), says(REQUEST)));
        // An operating system that comes up begins with what it had last.
        let reboots = says(REQUEST).address(50, *addresses.first().expect("one"));
        assert_eq!(kind(&lab.tell(&reboots).expect("an ACK").0), MessageType::Ack);
    }
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    assert_eq!(lab.memory.by_address.len(), 1);
}

/// Two cards whose firmware sends the same identifier are two clients, in whatever order they ask.
#[test]
fn two_cards_with_one_client_id_never_share_an_address() {
    let mut lab = Lab::new();
    let says = |kind, last| Ask::new(kind, mac(last)).option(61, b"\0SERIAL");
    let [one, two] = [1, 2].map(|last| lab.tell(&says(DISCOVER, last)).expect("an offer").0.yiaddr());
    assert_ne!(one, two);
    // The second card asks for what the first was offered.
    let thief = says(REQUEST, 2).address(54, SERVER).address(50, one);
    assert_eq!(kind(&lab.tell(&thief).expect("a NAK").0), MessageType::Nak);
}

#[test]
fn a_client_id_is_sent_back_unless_the_network_has_clients_that_cannot_bear_it() {
    let ask = |kind| Ask::new(kind, mac(1)).option(61, b"\0firmware");
    for echoes in [true, false] {
        let mut lab = Lab::new();
        lab.memory.subnets[0].echo_client_id = echoes;
        let wanted = echoes.then(|| b"\0firmware".to_vec());
        let wrong = Ask::new(REQUEST, mac(1)).option(61, b"\0firmware").address(54, SERVER);
        for ask in [ask(DISCOVER), wrong.address(50, Ipv4Addr::new(10, 77, 0, 99))] {
            let (message, sent) = lab.tell(&ask).expect("an answer");
            assert_eq!(option(&sent.bytes, 61), wanted, "{:?}", kind(&message));
        }
    }
}

/// A room that is switched on at once: as many machines as there are addresses, and each is served.
#[test]
fn a_burst_as_large_as_the_pool_is_served_to_the_last() {
    let mut lab = Lab::new();
    for last in 20..28 {
        let machine = format!("m{last}").parse().expect("a name");
        lab.memory.machines.insert(mac(last), Reservation { machine, address: None });
    }
    // All DISCOVERs come before any REQUEST.
    let offers: Vec<Ipv4Addr> = (20..28)
        .map(|last| lab.tell(&Ask::new(DISCOVER, mac(last)).pxe()).expect("an offer").0.yiaddr())
        .collect();
    assert_eq!(offers.iter().collect::<BTreeSet<_>>().len(), 8, "{offers:?}");
    for (last, offered) in (20..28).zip(offers) {
        let ask = Ask::new(REQUEST, mac(last)).address(54, SERVER).address(50, offered);
        assert_eq!(kind(&lab.tell(&ask).expect("an ACK").0), MessageType::Ack, "{offered}");
    }
}

/// A machine's own address inside the pool is nobody else's, asked for or not.
#[test]
fn an_address_of_a_machine_inside_the_pool_is_not_given_away() {
    let mut lab = Lab::new();
    let own = Ipv4Addr::new(10, 77, 0, 107);
    let machine = "own".parse().expect("a name");
    lab.memory.machines.insert(mac(3), Reservation { machine, address: Some(own) });
    for last in 30..40 {
        let ask = Ask::new(DISCOVER, mac(last)).address(50, own);
        assert!(lab.tell(&ask).is_none_or(|(offer, _)| offer.yiaddr() != own));
    }
    assert_eq!(lab.tell(&Ask::new(DISCOVER, mac(3))).expect("an offer").0.yiaddr(), own);
}

#[test]
fn each_network_has_its_own_router_and_mask() {
    for (relay, router) in [([10, 77, 0, 253], [10, 77, 0, 254]), ([10, 88, 0, 253], [10, 88, 0, 254])] {
        let ask = Ask::new(DISCOVER, mac(2)).pxe().giaddr(relay.into());
        let (offer, sent) = Lab::new().tell(&ask).expect("an offer");
        assert_eq!(option(&sent.bytes, 3), Some(router.to_vec()));
        assert_eq!(offer.yiaddr().octets()[..3], router[..3]);
        // And the boot file beside it, from the one boot server.
        assert_eq!((file(&sent.bytes).as_str(), offer.siaddr()), (LOADER, SERVER));
    }
}

/// RFC 3527 before RFC 3011 before `giaddr`.
#[test]
fn the_link_is_the_relays_word_then_the_clients_then_the_relays_address() {
    let [seventy, eighty] = [Ipv4Addr::new(10, 77, 0, 9), Ipv4Addr::new(10, 88, 0, 9)];
    let selects = |link: Ipv4Addr| [&[5, 4][..], &link.octets()].concat();
    let network = |ask: Ask| Lab::new().tell(&ask).expect("an offer").0.yiaddr().octets()[1];
    let ask = || Ask::new(DISCOVER, mac(2));
    assert_eq!(network(ask().giaddr(eighty).address(118, eighty).option(82, &selects(seventy))), 77);
    assert_eq!(network(ask().giaddr(eighty).address(118, seventy)), 77);
    assert_eq!(network(ask().giaddr(eighty)), 88);
    // A client that writes a relay's option itself is not believed.
    assert_eq!(network(ask().option(82, &selects(eighty))), 77);
}

/// 82.11 with a renewal that comes by unicast to the address in it, and one that a relay took up.
#[test]
fn with_a_server_id_of_the_relays_a_lease_is_renewed_either_way() {
    let relay = Ipv4Addr::new(10, 88, 0, 254);
    let agent = [&[11, 4][..], &relay.octets()].concat();
    let mut lab = Lab::new();
    let says = |kind| Ask::new(kind, mac(2)).giaddr(relay).option(82, &agent);
    let (offer, _) = lab.tell(&says(DISCOVER)).expect("an offer");
    let request = says(REQUEST).address(54, relay).address(50, offer.yiaddr());
    assert_eq!(kind(&lab.tell(&request).expect("an ACK").0), MessageType::Ack);
    let (ack, sent) = lab.tell(&says(REQUEST).ciaddr(offer.yiaddr())).expect("an ACK");
    assert_eq!((kind(&ack), ack.yiaddr()), (MessageType::Ack, offer.yiaddr()));
    assert_eq!(option(&sent.bytes, 54), Some(relay.octets().to_vec()));
    // It rebinds: no relay between, and an address of another wire's network.
    let rebinds = Ask::new(REQUEST, mac(2)).ciaddr(offer.yiaddr());
    assert!(lab.tell_from(&rebinds, offer.yiaddr()).is_some());
}

/// Nobody has keys for RFC 3118: its option changes nothing, and is not sent back.
#[test]
fn authentication_that_nobody_deploys_is_passed_over() {
    let ask = Ask::new(DISCOVER, mac(1)).pxe().option(90, &[0; 11]);
    let (offer, sent) = Lab::new().tell(&ask).expect("an offer");
    assert_eq!((kind(&offer), option(&sent.bytes, 90)), (MessageType::Offer, None));
}

/// Neither `secs`, which iPXE fills with flags, nor hops decide who is answered.
#[test]
fn seconds_and_hops_decide_nothing() {
    for seconds in [0_u16, 4, 10, 18, 0xffff] {
        let mut ask = Ask::new(DISCOVER, mac(1)).pxe();
        ask.bytes[3] = 4;
        ask.bytes[8..10].copy_from_slice(&seconds.to_be_bytes());
        assert!(Lab::new().tell(&ask).is_some(), "{seconds}");
    }
}

/// PXE 2.1 wants option 97, and old ROMs leave it out.
#[test]
fn firmware_without_a_uuid_boots_and_hears_of_none() {
    let ask = Ask::new(DISCOVER, mac(1)).option(60, b"PXEClient:Arch:00000:UNDI:002001").option(93, &[0, 0]);
    let (_, sent) = Lab::new().tell(&ask).expect("an offer");
    assert_eq!((file(&sent.bytes).as_str(), option(&sent.bytes, 97)), (LOADER, None));
    assert_eq!(option(&sent.bytes, 43), Some(vec![6, 1, 8, 255]), "direct boot, without a discovery");
}

/// Firmware takes the file's name and its server from any of several places.
#[test]
fn firmware_hears_the_same_wherever_it_looks() {
    let (offer, sent) = Lab::new().tell(&Ask::new(DISCOVER, mac(1)).pxe()).expect("an offer");
    assert_eq!(Some(file(&sent.bytes).into_bytes()), option(&sent.bytes, 67));
    assert_eq!(offer.siaddr(), SERVER);
    assert_eq!(option(&sent.bytes, 66), Some(SERVER.to_string().into_bytes()));
    assert_eq!(option(&sent.bytes, 150), Some(SERVER.octets().to_vec()));
}

/// Options 67 and 114 mean something else to everybody but those who boot.
#[test]
fn who_does_not_boot_hears_of_no_file() {
    for vendor in [&b"MSFT 5.0"[..], b"android-dhcp-13", b""] {
        let (offer, sent) =
            Lab::new().tell(&Ask::new(DISCOVER, mac(1)).option(60, vendor)).expect("an offer");
        let told = [66, 67, 114, 125, 150, 239].map(|code| option(&sent.bytes, code));
        assert!(told.iter().all(Option::is_none), "{told:?}");
        assert_eq!((file(&sent.bytes).as_str(), offer.siaddr()), ("", Ipv4Addr::UNSPECIFIED));
    }
}

/// SONiC sometimes leaves its client id out; iPXE's user class comes with and without a length.
#[test]
fn what_a_client_leaves_out_does_not_make_it_another() {
    let mut lab = Lab::new();
    lab.memory.ztp = "http://10.77.0.1/ztp/sonic.json".to_owned();
    let (_, sent) = lab.tell(&Ask::new(DISCOVER, mac(1)).option(77, b"SONiC-ZTP")).expect("an offer");
    assert_eq!(option(&sent.bytes, 67), Some(lab.memory.ztp.clone().into_bytes()));
    for class in [&b"iPXE"[..], b"\x04iPXE"] {
        let (_, sent) =
            Lab::new().tell(&Ask::new(DISCOVER, mac(1)).pxe().option(77, class)).expect("an offer");
        assert_eq!(file(&sent.bytes), SCRIPT);
    }
}

/// RFC 3396 both ways: what is longer than 255 bytes goes out in parts that stand together, and comes in joined.
#[test]
fn an_option_of_more_than_255_bytes_goes_out_in_parts() {
    let long: Vec<u8> = (0..=255).chain(0..100).collect();
    let mut lab = Lab::new();
    lab.memory.subnets[0].classes = vec![Class { options: vec![(43, long.clone())], ..Class::default() }];
    let ask = Ask::new(DISCOVER, mac(1)).option(57, &1472_u16.to_be_bytes());
    let (_, sent) = lab.tell(&ask).expect("an offer");
    assert_eq!(option(&sent.bytes, 43), Some(long.clone()));
    let first = sent.bytes.windows(3).position(|three| three == [43, 255, 0]).expect("255 bytes");
    assert_eq!(sent.bytes[first + 257..first + 259], [43, 101], "and the rest behind it");

    let agent: Vec<u8> = [&[1, 250][..], &[7; 250], &[2, 60], &[8; 60]].concat();
    let ask = Ask::new(DISCOVER, mac(1)).option(57, &1472_u16.to_be_bytes());
    let ask = ask.giaddr(SERVER).option(82, &agent[..200]).option(82, &agent[200..]);
    let (_, sent) = lab.tell(&ask).expect("an offer");
    assert_eq!(option(&sent.bytes, 82), Some(agent));
    assert_eq!(lab.seen[2].client.relay.as_ref().and_then(|r| r.circuit_id.clone()), Some(vec![7; 250]));
}

#[test]
fn a_reply_is_never_shorter_than_bootps_300_bytes() {
    let nak = Ask::new(REQUEST, mac(9)).address(50, Ipv4Addr::new(192, 0, 2, 1));
    let (message, sent) = Lab::new().tell(&nak).expect("a NAK");
    assert_eq!((kind(&message), sent.bytes.len()), (MessageType::Nak, 300));
}

/// A relayed client that has its address again is answered through the relay, with what it may not do broadcast.
#[test]
fn where_a_reply_goes_is_the_relays_word_the_clients_address_or_its_card() {
    let relay = Ipv4Addr::new(10, 77, 0, 253);
    let own = Ipv4Addr::new(10, 77, 0, 11);
    let to = |ask: Ask| Lab::new().tell(&ask).expect("an answer").1.to;
    let reboot = || Ask::new(REQUEST, mac(1)).address(50, own);
    assert_eq!(to(reboot()), Destination::Raw { address: own, mac: mac(1) });
    assert_eq!(to(reboot().broadcast()), Destination::Broadcast);
    assert_eq!(to(reboot().giaddr(relay)), support::to_relay(relay));
    let renew = Ask::new(REQUEST, mac(1)).ciaddr(own).broadcast();
    assert_eq!(to(renew), Destination::Unicast("10.77.0.11:68".parse().expect("an address")));
}

/// A card that nobody can have: broadcast, and all zeros.
#[test]
fn cards_that_cannot_be_are_not_answered() {
    for bytes in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        assert!(Lab::new().tell(&Ask::new(DISCOVER, MacAddr(bytes))).is_none(), "{bytes:?}");
    }
}

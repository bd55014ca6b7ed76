//! The server's answers, state by state (RFC 2131, section 4.3), read with dhcproto's decoder.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;
use kiln_dhcp::{Class, Destination, Pool};
use kiln_model::UnixMillis;
use kiln_model::timeline::Step;
use proptest::prelude::*;

use support::{AGENT, Ask, INSTALLER, LOADER, Lab, SCRIPT, SERVER, file, kind, mac, option, to_relay};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;
const R1: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

#[test]
fn uefi_firmware_of_a_known_machine_gets_its_address_and_its_loader() {
    let mut lab = Lab::new();
    let (offer, sent) =
        lab.tell(&Ask::new(DISCOVER, mac(1)).pxe().option(61, b"\0firmware")).expect("an offer");
    assert_eq!(kind(&offer), MessageType::Offer);
    assert_eq!((offer.yiaddr(), offer.siaddr(), offer.xid()), (R1, SERVER, 0xabcd_ef01));
    assert_eq!(file(&sent.bytes), LOADER);
    assert_eq!(sent.to, Destination::Raw { address: R1, mac: mac(1) });
    for (code, want) in [
        (1, vec![255, 255, 255, 0]),
        (3, vec![10, 77, 0, 254]),
        (6, vec![9, 9, 9, 9]),
        (12, b"r1".to_vec()),
        (28, vec![10, 77, 0, 255]),
        (43, vec![6, 1, 8, 255]),
        (51, 3600_u32.to_be_bytes().to_vec()),
        (54, SERVER.octets().to_vec()),
        (58, 1800_u32.to_be_bytes().to_vec()),
        (59, 3150_u32.to_be_bytes().to_vec()),
        (60, b"PXEClient".to_vec()),
        (61, b"\0firmware".to_vec()),
        (66, b"10.77.0.1".to_vec()),
        (67, LOADER.as_bytes().to_vec()),
        (97, [&[0][..], &[7; 16]].concat()),
    ] {
        assert_eq!(option(&sent.bytes, code), Some(want), "option {code}");
    }
    assert_eq!(lab.boot(mac(1)), Some(R1));
    assert_eq!(
        lab.steps(),
        [Step::Discover, Step::Offer, Step::Discover, Step::Offer, Step::Request, Step::Ack]
    );
}

#[test]
fn ipxe_gets_the_script_and_does_not_wait_for_a_proxy() {
    let mut lab = Lab::new();
    let (_, sent) = lab.tell(&Ask::new(DISCOVER, mac(1)).pxe().option(77, b"iPXE")).expect("an offer");
    assert_eq!(file(&sent.bytes), SCRIPT);
    assert_eq!(option(&sent.bytes, 175), Some(vec![176, 1, 1]));
    assert_eq!(option(&sent.bytes, 43), None);
}

#[test]
fn http_boot_firmware_believes_only_an_http_client_with_a_url() {
    let mut lab = Lab::new();
    let ask =
        Ask::new(DISCOVER, mac(1)).option(60, b"HTTPClient:Arch:00016:UNDI:003001").option(93, &[0, 16]);
    let (_, sent) = lab.tell(&ask).expect("an offer");
    assert_eq!(option(&sent.bytes, 60), Some(b"HTTPClient".to_vec()));
    assert_eq!(option(&sent.bytes, 67), Some(format!("http://10.77.0.1/{LOADER}").into_bytes()));
}

#[test]
fn an_unknown_machine_gets_a_short_lease_from_its_share_and_nothing_to_boot() {
    let mut lab = Lab::new();
    let (offer, sent) = lab.tell(&Ask::new(DISCOVER, mac(9)).pxe()).expect("an offer");
    assert!((106..=107).contains(&offer.yiaddr().octets()[3]), "{}", offer.yiaddr());
    assert_eq!(option(&sent.bytes, 51), Some(120_u32.to_be_bytes().to_vec()));
    assert_eq!((option(&sent.bytes, 67), offer.siaddr()), (None, Ipv4Addr::UNSPECIFIED));
}

#[test]
fn strangers_cannot_use_up_what_known_machines_need() {
    let mut lab = Lab::new();
    let served = (10..60).filter(|last| lab.boot(mac(*last)).is_some()).count();
    assert_eq!(served, 2, "a quarter of eight");
    assert!(lab.seen.last().expect("seen").detail.contains("the pool is used up"));
    assert!(lab.boot(mac(2)).is_some());
}

#[test]
fn a_client_gets_its_address_back_after_its_lease_ended() {
    let mut lab = Lab::new();
    let first = lab.boot(mac(2));
    lab.now = lab.now.plus(30 * 24 * 3_600_000);
    assert_eq!(lab.boot(mac(2)), first);
}

#[test]
fn the_store_is_given_more_time_than_the_client() {
    let mut lab = Lab::new();
    lab.boot(mac(1));
    assert_eq!(lab.memory.by_owner[&mac(1)].expires, lab.now.plus((3600 + 900) * 1000));
}

#[test]
fn who_takes_another_servers_offer_is_left_in_peace() {
    let mut lab = Lab::new();
    lab.tell(&Ask::new(DISCOVER, mac(2)));
    let other = Ask::new(REQUEST, mac(2)).address(54, Ipv4Addr::new(10, 77, 0, 2)).address(50, R1);
    assert!(lab.tell(&other).is_none());
    assert!(!lab.steps().contains(&Step::Nak));
}

#[test]
fn selecting_an_address_that_is_not_free_is_refused() {
    let mut lab = Lab::new();
    for (client, wanted) in
        [(9, R1), (1, Ipv4Addr::new(10, 77, 0, 100)), (2, Ipv4Addr::new(192, 0, 2, 9)), (2, SERVER)]
    {
        let ask = Ask::new(REQUEST, mac(client)).address(54, SERVER).address(50, wanted);
        let (nak, sent) = lab.tell(&ask).expect("a NAK");
        assert_eq!((kind(&nak), sent.to), (MessageType::Nak, Destination::Broadcast), "{wanted}");
        assert!(option(&sent.bytes, 56).is_some() && option(&sent.bytes, 51).is_none());
        assert_eq!((nak.yiaddr(), nak.ciaddr()), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
    }
}

#[test]
fn what_is_offered_to_one_client_is_kept_from_the_others_for_a_while() {
    let mut lab = Lab::new();
    let offered = lab.tell(&Ask::new(DISCOVER, mac(9))).expect("an offer").0.yiaddr();
    let thief = Ask::new(REQUEST, mac(10)).address(54, SERVER).address(50, offered);
    assert_eq!(kind(&lab.tell(&thief).expect("a NAK").0), MessageType::Nak);
    // Whatever their first candidates are, the two of the strangers' share are offered to two of them.
    let second = lab.tell(&Ask::new(DISCOVER, mac(10)).address(50, offered)).expect("an offer").0.yiaddr();
    assert_ne!(offered, second);
    assert!(lab.tell(&Ask::new(DISCOVER, mac(11))).is_none(), "a third is told nothing");
    lab.now = lab.now.plus(30_000);
    assert!(lab.tell(&Ask::new(DISCOVER, mac(11))).is_some());
}

#[test]
fn a_client_that_reboots_is_confirmed_refused_or_left_alone() {
    let mut lab = Lab::new();
    let held = lab.boot(mac(2)).expect("an address");
    let reboot = |client, address| Ask::new(REQUEST, mac(client)).address(50, address);
    let free = Ipv4Addr::new(10, 77, 0, 50);
    let answer = |lab: &mut Lab, ask| lab.tell(&ask).map(|(message, _)| kind(&message));
    assert_eq!(answer(&mut lab, reboot(2, held)), Some(MessageType::Ack));
    assert_eq!(answer(&mut lab, reboot(2, free)), Some(MessageType::Nak), "it has another");
    assert_eq!(answer(&mut lab, reboot(1, R1)), Some(MessageType::Ack), "reserved for it, no lease yet");
    assert_eq!(answer(&mut lab, reboot(9, free)), None, "we know nothing of it");
    assert_eq!(answer(&mut lab, reboot(9, held)), Some(MessageType::Nak), "somebody else has it");
    assert_eq!(
        answer(&mut lab, reboot(9, Ipv4Addr::new(192, 168, 1, 5))),
        Some(MessageType::Nak),
        "wrong network"
    );
}

#[test]
fn a_client_renews_by_unicast_and_rebinds_by_broadcast() {
    let mut lab = Lab::new();
    let held = lab.boot(mac(2)).expect("an address");
    lab.now = lab.now.plus(1_800_000);
    let renew = Ask::new(REQUEST, mac(2)).ciaddr(held);
    let (ack, sent) = lab.tell(&renew).expect("an ACK");
    assert_eq!((ack.yiaddr(), ack.ciaddr()), (held, held));
    assert_eq!(sent.to, Destination::Unicast(SocketAddrV4::new(held, 68)));
    assert_eq!(lab.memory.by_owner[&mac(2)].expires, lab.now.plus(4_500_000));
    // From another network, through routers: it is still in its own.
    assert!(lab.tell_from(&renew, held).is_some());
    let stranger = Ask::new(REQUEST, mac(9)).ciaddr(Ipv4Addr::new(10, 77, 0, 105));
    assert!(lab.tell(&stranger).is_none());
    let thief = Ask::new(REQUEST, mac(9)).ciaddr(held);
    assert_eq!(kind(&lab.tell(&thief).expect("a NAK").0), MessageType::Nak);
}

#[test]
fn an_address_that_is_released_is_free_again_and_only_its_owner_releases_it() {
    let mut lab = Lab::new();
    let held = lab.boot(mac(2)).expect("an address");
    lab.tell(&Ask::new(RELEASE, mac(9)).ciaddr(held).address(54, SERVER));
    lab.tell(&Ask::new(RELEASE, mac(2)).ciaddr(held).address(54, Ipv4Addr::new(10, 77, 0, 2)));
    assert!(lab.memory.by_address.contains_key(&held));
    lab.tell(&Ask::new(RELEASE, mac(2)).ciaddr(held).address(54, SERVER));
    assert!(lab.memory.by_address.is_empty());
}

#[test]
fn an_address_somebody_else_sits_on_is_kept_unused() {
    let mut lab = Lab::new();
    let held = lab.boot(mac(2)).expect("an address");
    lab.tell(&Ask::new(DECLINE, mac(9)).address(50, held).address(54, SERVER));
    assert!(lab.memory.quarantine.is_empty(), "it was not the stranger's to decline");
    lab.tell(&Ask::new(DECLINE, mac(2)).address(50, held).address(54, SERVER));
    assert_eq!(lab.memory.quarantine[&held], lab.now.plus(86_400_000));
    assert_eq!(lab.steps().last(), Some(&Step::Decline));
    assert_ne!(lab.boot(mac(2)).expect("another"), held);
    lab.now = lab.now.plus(86_400_001);
    lab.tell(&Ask::new(RELEASE, mac(2)).ciaddr(lab.memory.by_owner[&mac(2)].address).address(54, SERVER));
    let again = lab.tell(&Ask::new(DISCOVER, mac(2)).address(50, held)).expect("an offer").0;
    assert_eq!(again.yiaddr(), held);
}

#[test]
fn a_client_with_an_address_is_told_the_rest() {
    let mut lab = Lab::new();
    let own = Ipv4Addr::new(10, 77, 0, 40);
    let (ack, sent) = lab.tell(&Ask::new(INFORM, mac(9)).ciaddr(own)).expect("an ACK");
    assert_eq!((kind(&ack), ack.yiaddr(), ack.ciaddr()), (MessageType::Ack, Ipv4Addr::UNSPECIFIED, own));
    assert_eq!((option(&sent.bytes, 51), option(&sent.bytes, 6)), (None, Some(vec![9, 9, 9, 9])));
    assert_eq!(sent.to, Destination::Unicast(SocketAddrV4::new(own, 68)));
    assert!(lab.memory.by_owner.is_empty());
}

#[test]
fn a_relays_word_decides_network_server_id_and_port() {
    let relay = Ipv4Addr::new(10, 88, 0, 254);
    let mut lab = Lab::new();
    let agent = [&[1, 4][..], b"eth7", &[151, 0]].concat();
    let (offer, sent) =
        lab.tell(&Ask::new(DISCOVER, mac(2)).giaddr(relay).option(82, &agent)).expect("an offer");
    assert_eq!(offer.yiaddr().octets()[..3], [10, 88, 0]);
    assert_eq!((sent.to, offer.giaddr()), (to_relay(relay), relay));
    let end = sent.bytes.iter().rposition(|byte| *byte == 255).expect("an end");
    assert_eq!(sent.bytes[end - agent.len() - 2..end], [&[82, 8][..], &agent].concat(), "verbatim, and last");
    assert_eq!(lab.seen[0].client.relay.as_ref().and_then(|r| r.circuit_id.clone()), Some(b"eth7".to_vec()));

    // 82.5 link selection, 82.11 server id, 82.19 source port; the relay itself is in no network of ours.
    let far = Ipv4Addr::new(172, 16, 0, 1);
    let agent = [&[5, 4, 10, 77, 0, 0][..], &[11, 4], &far.octets(), &[19, 0]].concat();
    let (offer, sent) =
        lab.tell(&Ask::new(DISCOVER, mac(9)).giaddr(far).option(82, &agent)).expect("an offer");
    assert_eq!(offer.yiaddr().octets()[..3], [10, 77, 0]);
    assert_eq!(option(&sent.bytes, 54), Some(far.octets().to_vec()));
    assert_eq!(sent.to, Destination::Relay(SocketAddrV4::new(far, 68)));
    let ask =
        Ask::new(REQUEST, mac(9)).giaddr(far).option(82, &agent).address(54, far).address(50, offer.yiaddr());
    assert_eq!(kind(&lab.tell(&ask).expect("an ACK").0), MessageType::Ack);

    // 118 subnet selection, echoed; and a relay that nobody knows.
    let net = Ipv4Addr::new(10, 88, 0, 0);
    let (offer, sent) = lab.tell(&Ask::new(DISCOVER, mac(10)).address(118, net)).expect("an offer");
    assert_eq!(offer.yiaddr().octets()[..3], [10, 88, 0]);
    assert_eq!(option(&sent.bytes, 118), Some(net.octets().to_vec()));
    assert!(lab.tell(&Ask::new(DISCOVER, mac(11)).giaddr(far)).is_none());
    assert!(lab.seen.last().expect("seen").detail.contains("no network of fleet.toml"));
}

#[test]
fn a_refusal_through_a_relay_is_broadcast_there() {
    let relay = Ipv4Addr::new(10, 88, 0, 254);
    let mut lab = Lab::new();
    let (nak, sent) = lab.tell(&Ask::new(REQUEST, mac(2)).giaddr(relay).address(50, R1)).expect("a NAK");
    assert_eq!((kind(&nak), sent.to, nak.flags().broadcast()), (MessageType::Nak, to_relay(relay), true));
}

#[test]
fn a_client_that_asks_for_a_broadcast_gets_one() {
    let (_, sent) = Lab::new().tell(&Ask::new(DISCOVER, mac(1)).broadcast()).expect("an offer");
    assert_eq!(sent.to, Destination::Broadcast);
}

#[test]
fn replies_fit_what_the_client_takes_and_keep_what_matters() {
    let agent = vec![9; 200];
    for (limit, most) in [(None, 548), (Some(100), 548), (Some(1400), 1372), (Some(65280), 1472)] {
        let mut lab = Lab::new();
        let mut ask = Ask::new(DISCOVER, mac(1)).pxe().option(61, &[1; 100]).option(82, &agent);
        if let Some(limit) = limit {
            ask = ask.option(57, &u16::to_be_bytes(limit));
        }
        let (_, sent) = lab.tell(&ask).expect("an offer");
        assert!(sent.bytes.len() <= most, "{} of {most}", sent.bytes.len());
        assert_eq!(option(&sent.bytes, 82), Some(agent.clone()));
        assert!(option(&sent.bytes, 51).is_some() && option(&sent.bytes, 54).is_some());
        assert_eq!(option(&sent.bytes, 6).is_some(), most > 548, "name servers give way first");
    }
}

#[test]
fn two_servers_that_share_nothing_offer_the_same_address() {
    let offer = || Lab::new().tell(&Ask::new(DISCOVER, mac(2))).expect("an offer").0.yiaddr();
    assert_eq!(offer(), offer());
}

#[test]
fn each_kind_of_client_hears_of_its_file_in_its_own_options() {
    let onie = |ask: Ask| {
        ask.option(60, b"onie_vendor:x86_64-kvm_x86_64-r0").option(77, b"\x14onie_dhcp_user_class")
    };
    let (_, sent) = Lab::new().tell(&onie(Ask::new(DISCOVER, mac(1)))).expect("an offer");
    let url = INSTALLER.as_bytes();
    let length = u8::try_from(url.len()).expect("short");
    // RFC 3925: enterprise 42623, its length, then sub-option 1.
    assert_eq!(option(&sent.bytes, 125), Some([&[0, 0, 0xa6, 0x7f, length + 2, 1, length], url].concat()));
    assert_eq!((option(&sent.bytes, 114), option(&sent.bytes, 67)), (Some(url.to_vec()), Some(url.to_vec())));
    assert_eq!(file(&sent.bytes), INSTALLER);
    for code in [72, 150] {
        assert_eq!(option(&sent.bytes, code), Some(SERVER.octets().to_vec()), "asked for or not: {code}");
    }

    let ztp = |url: &str, user: &[u8], vendor: &[u8]| {
        let mut lab = Lab::new();
        url.clone_into(&mut lab.memory.ztp);
        let (_, sent) =
            lab.tell(&Ask::new(DISCOVER, mac(1)).option(77, user).option(60, vendor)).expect("an offer");
        [67, 239].map(|code| option(&sent.bytes, code).map(|data| String::from_utf8(data).expect("text")))
    };
    let (json, script) = ("http://10.77.0.1/ztp.json", "http://10.77.0.1/ztp");
    assert_eq!(ztp(json, b"\x09SONiC-ZTP", b""), [Some(json.to_owned()), None]);
    assert_eq!(ztp(script, b"\x09SONiC-ZTP", b""), [None, Some(script.to_owned())]);
    assert_eq!(ztp(script, b"", b"cumulus-linux  x86_64"), [None, Some(script.to_owned())]);

    let agent = Ask::new(DISCOVER, mac(1)).option(60, b"kiln").option(77, b"kiln").option(93, &[0, 16]);
    let (_, sent) = Lab::new().tell(&agent).expect("an offer");
    assert_eq!(option(&sent.bytes, 67), Some(AGENT.as_bytes().to_vec()));
}

#[test]
fn only_the_relays_that_a_network_names_are_answered() {
    let relay = Ipv4Addr::new(10, 88, 0, 254);
    let mut lab = Lab::new();
    lab.memory.subnets[1].relays = vec![relay];
    assert!(lab.tell(&Ask::new(DISCOVER, mac(2)).giaddr(relay)).is_some());
    let forged = Ask::new(DISCOVER, mac(2)).giaddr(Ipv4Addr::new(10, 88, 0, 9));
    assert!(lab.tell(&forged).is_none());
    assert!(lab.seen.last().expect("seen").detail.contains("10.88.0.9 is not in `relays`"));
}

#[test]
fn a_client_that_writes_a_relays_option_itself_is_not_believed() {
    let ask = Ask::new(DISCOVER, mac(2)).option(82, &[5, 4, 10, 88, 0, 0, 11, 4, 192, 0, 2, 1]);
    let (offer, sent) = Lab::new().tell(&ask).expect("an offer");
    assert_eq!(offer.yiaddr().octets()[..3], [10, 77, 0]);
    assert_eq!(option(&sent.bytes, 54), Some(SERVER.octets().to_vec()));
    assert!(option(&sent.bytes, 82).is_some(), "but echoed, for switches that insert it");
}

#[test]
fn a_class_has_addresses_and_options_of_its_own() {
    let mut lab = Lab::new();
    let at = |last| Ipv4Addr::new(10, 77, 0, last);
    lab.memory.subnets[0].classes = vec![Class {
        name: "phones".to_owned(),
        vendor_class: Some("phone".to_owned()),
        pool: Some(Pool { first: at(200), last: at(207) }),
        options: vec![(6, vec![8, 8, 8, 8]), (42, vec![10, 77, 0, 2]), (54, vec![6, 6, 6, 6])],
        ..Class::default()
    }];
    let (offer, sent) = lab.tell(&Ask::new(DISCOVER, mac(9)).option(60, b"phone-7")).expect("an offer");
    assert!((206..=207).contains(&offer.yiaddr().octets()[3]), "{}", offer.yiaddr());
    assert_eq!(option(&sent.bytes, 6), Some(vec![8, 8, 8, 8]), "instead of the network's");
    assert_eq!(option(&sent.bytes, 42), Some(vec![10, 77, 0, 2]));
    assert_eq!(option(&sent.bytes, 54), Some(SERVER.octets().to_vec()), "what the protocol says stays");
    let thief = Ask::new(REQUEST, mac(10)).address(54, SERVER).address(50, at(200));
    assert_eq!(kind(&lab.tell(&thief).expect("a NAK").0), MessageType::Nak, "others are not of the class");
}

#[test]
fn what_does_not_fit_goes_into_unused_fields() {
    let mut lab = Lab::new();
    lab.memory.subnets[0].classes = vec![Class {
        options: vec![
            (42, vec![1; 120]),
            (119, vec![2; 120]),
            (100, vec![3; 60]),
            (101, vec![4; 50]),
            (102, vec![5; 61]),
        ],
        ..Class::default()
    }];
    let (_, sent) = lab.tell(&Ask::new(DISCOVER, mac(1))).expect("an offer");
    assert!(sent.bytes.len() <= 548, "a client that says nothing takes no more");
    assert_eq!(option(&sent.bytes, 52), Some(vec![3]), "file and sname are used");
    let request = [&[1][..], &sent.bytes[1..]].concat();
    // Our own reader follows option 52; the oracle does not.
    let mut read_back = request.clone();
    let kind_at = read_back.windows(3).position(|w| w == [53, 1, 2]).expect("option 53");
    read_back[kind_at + 2] = 1;
    let read_back = kiln_dhcp::Request::parse(&read_back).expect("as a request");
    let there = [42, 119, 100, 101, 102, 3, 6, 12, 28].map(|code| read_back.option(code).is_some());
    assert_eq!(there, [true; 9]);
}

#[test]
fn an_address_is_looked_for_before_it_is_given_anew_and_no_known_machine_waits() {
    let mut lab = Lab::new();
    lab.memory.subnets[0].probe = true;
    let known = lab.tell(&Ask::new(DISCOVER, mac(2))).expect("an offer").0.yiaddr();
    let stranger = lab.tell(&Ask::new(DISCOVER, mac(9))).expect("an offer").0.yiaddr();
    assert_eq!(lab.probes, [(known, false), (stranger, true)]);
    lab.tell(&Ask::new(DISCOVER, mac(9)));
    lab.tell(&Ask::new(DISCOVER, mac(1)));
    assert_eq!(lab.probes.len(), 2, "not for an offer that is open, nor for a machine's own address");
    lab.boot(mac(2));
    lab.now = lab.now.plus(3_000_000);
    lab.boot(mac(2));
    assert_eq!(lab.probes.len(), 2, "nor for what it has");
    // Somebody was found: the driver quarantines it, and what was offered is refused.
    lab.memory.quarantine.insert(stranger, lab.now.plus(1000));
    let taken = Ask::new(REQUEST, mac(9)).address(54, SERVER).address(50, stranger);
    assert_eq!(kind(&lab.tell(&taken).expect("a NAK").0), MessageType::Nak);
}

#[test]
fn a_machines_own_address_is_tried_again_soon() {
    let mut lab = Lab::new();
    lab.boot(mac(1));
    lab.tell(&Ask::new(DECLINE, mac(1)).address(50, R1).address(54, SERVER));
    assert_eq!(lab.memory.quarantine[&R1], lab.now.plus(300_000));
}

#[test]
fn a_server_whose_offer_is_taken_is_told_of() {
    let mut lab = Lab::new();
    let other = Ipv4Addr::new(10, 77, 0, 66);
    lab.tell(&Ask::new(REQUEST, mac(9)).address(54, other).address(50, R1));
    assert_eq!(lab.foreign, [other]);
}

fn proxied() -> Lab {
    let mut lab = Lab::new();
    lab.memory.subnets[0].proxy = true;
    lab
}

#[test]
fn beside_another_server_firmware_is_told_what_to_boot_and_given_no_address() {
    let bios = Ask::new(DISCOVER, mac(1)).option(60, b"PXEClient:Arch:00000:UNDI:002001").option(93, &[0, 0]);
    let (offer, sent) = proxied().tell(&bios).expect("an offer");
    assert_eq!((kind(&offer), offer.yiaddr()), (MessageType::Offer, Ipv4Addr::UNSPECIFIED));
    assert_eq!(sent.to, Destination::Broadcast);
    assert_eq!((file(&sent.bytes).as_str(), offer.siaddr()), (LOADER, SERVER));
    assert_eq!(option(&sent.bytes, 43), Some(vec![6, 1, 8, 255]));
    assert_eq!((option(&sent.bytes, 51), option(&sent.bytes, 1), option(&sent.bytes, 3)), (None, None, None));

    // UEFI is told only that there is a boot server.
    let (_, sent) = proxied().tell(&Ask::new(DISCOVER, mac(1)).pxe()).expect("an offer");
    assert_eq!(option(&sent.bytes, 60), Some(b"PXEClient".to_vec()));
    assert_eq!(
        (option(&sent.bytes, 43), option(&sent.bytes, 67), file(&sent.bytes)),
        (None, None, String::new())
    );
    assert_eq!(option(&sent.bytes, 97).map(|uuid| uuid.len()), Some(17));

    let ipxe = Ask::new(DISCOVER, mac(1)).pxe().option(77, b"iPXE");
    let (_, sent) = proxied().tell(&ipxe).expect("an offer");
    assert_eq!((option(&sent.bytes, 60), file(&sent.bytes).as_str()), (Some(b"PXEClient".to_vec()), SCRIPT));
    let http = Ask::new(DISCOVER, mac(1)).option(60, b"HTTPClient:Arch:00016").option(93, &[0, 16]);
    let (_, sent) = proxied().tell(&http).expect("an offer");
    assert_eq!(option(&sent.bytes, 60), Some(b"HTTPClient".to_vec()));
}

#[test]
fn beside_another_server_nothing_else_is_answered() {
    let mut lab = proxied();
    for ask in [
        Ask::new(DISCOVER, mac(1)),
        Ask::new(DISCOVER, mac(9)).pxe(),
        Ask::new(REQUEST, mac(1)).pxe().address(54, SERVER).address(50, R1),
        Ask::new(REQUEST, mac(1)).pxe().address(54, Ipv4Addr::new(10, 77, 0, 2)).address(50, R1),
        Ask::new(DECLINE, mac(1)).address(54, SERVER).address(50, R1),
        Ask::new(INFORM, mac(1)).pxe().ciaddr(R1),
    ] {
        assert!(lab.tell(&ask).is_none());
    }
    assert!(lab.memory.by_owner.is_empty() && lab.foreign.is_empty());
}

#[test]
fn the_boot_server_answers_where_it_was_asked_from() {
    let lab = proxied();
    let menu = [&[71, 4, 0, 0, 0, 0][..], &[255]].concat();
    let ask = Ask::new(REQUEST, mac(1)).pxe().ciaddr(R1).option(43, &menu);
    let source = SocketAddrV4::new(R1, 4011);
    let input = kiln_dhcp::Inbound { bytes: &ask.bytes, source, local: SERVER };
    let effects = lab.server.boot_service(&input, lab.now, &lab.memory);
    let [_, kiln_dhcp::Effect::Send(sent), _] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(sent.to, Destination::Unicast(source));
    let ack = support::read(&sent.bytes);
    assert_eq!((kind(&ack), ack.yiaddr(), ack.siaddr()), (MessageType::Ack, Ipv4Addr::UNSPECIFIED, SERVER));
    assert_eq!((file(&sent.bytes).as_str(), option(&sent.bytes, 43)), (LOADER, Some(menu)));
    let stranger = Ask::new(REQUEST, mac(9)).pxe().ciaddr(R1);
    let input = kiln_dhcp::Inbound { bytes: &stranger.bytes, source, local: SERVER };
    assert!(lab.server.boot_service(&input, lab.now, &lab.memory).is_empty());
}

#[derive(Debug, Clone)]
enum Act {
    Boot(u8),
    Discover(u8),
    Take(u8, u8),
    Claim(u8, u8),
    Release(u8),
    Decline(u8, u8),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Act> {
    let client = || 0u8..14;
    let address = || 98u8..112;
    prop_oneof![
        client().prop_map(Act::Boot),
        client().prop_map(Act::Discover),
        (client(), address()).prop_map(|(c, a)| Act::Take(c, a)),
        (client(), address()).prop_map(|(c, a)| Act::Claim(c, a)),
        client().prop_map(Act::Release),
        (client(), address()).prop_map(|(c, a)| Act::Decline(c, a)),
        (0u64..5_000_000).prop_map(Act::Wait),
    ]
}

proptest! {
    /// `Memory::commit` asserts that no address is given to two clients; this gives it every chance.
    #[test]
    fn no_address_is_ever_given_twice(script in prop::collection::vec(acts(), 0..120)) {
        let mut lab = Lab::new();
        let at = |last| Ipv4Addr::new(10, 77, 0, last);
        for act in script {
            match act {
                Act::Boot(c) => drop(lab.boot(mac(c))),
                Act::Discover(c) => drop(lab.tell(&Ask::new(DISCOVER, mac(c)))),
                Act::Take(c, a) => drop(lab.tell(&Ask::new(REQUEST, mac(c)).address(54, SERVER).address(50, at(a)))),
                Act::Claim(c, a) => drop(lab.tell(&Ask::new(REQUEST, mac(c)).ciaddr(at(a)))),
                Act::Release(c) => {
                    let held = lab.memory.by_owner.get(&mac(c)).map_or(at(0), |lease| lease.address);
                    lab.tell(&Ask::new(RELEASE, mac(c)).ciaddr(held).address(54, SERVER));
                }
                Act::Decline(c, a) => drop(lab.tell(&Ask::new(DECLINE, mac(c)).address(54, SERVER).address(50, at(a)))),
                Act::Wait(ms) => lab.now = lab.now.plus(ms),
            }
            let own = lab.memory.by_address.get(&R1).map(|lease| lease.owner);
            prop_assert!(own.is_none() || own == Some(mac(1)), "the address of r1 went to {own:?}");
            let pool = Pool { first: at(100), last: at(107) };
            for (address, lease) in &lab.memory.by_address {
                prop_assert!(*address == R1 || (pool.first..=pool.last).contains(address), "{address}");
                prop_assert_eq!(lab.memory.by_owner.get(&lease.owner), Some(lease));
                let stranger = !lab.memory.machines.contains_key(&lease.owner);
                prop_assert!(!stranger || *address >= at(106), "a stranger on {address}");
            }
        }
        prop_assert!(lab.now >= UnixMillis(1_000_000));
    }
}

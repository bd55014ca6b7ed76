//! The server's answers, state by state (RFC 2131, section 4.3), read with dhcproto's decoder.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;
use kiln_dhcp::{Destination, Pool};
use kiln_model::UnixMillis;
use kiln_model::timeline::Step;
use proptest::prelude::*;

use support::{Ask, LOADER, Lab, SCRIPT, SERVER, file, kind, mac, option, to_relay};

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

//! The guard: nothing that comes from the wire makes it panic, and nothing is read wrongly.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use dhcproto::v4::OptionCode;
use kiln_dhcp::{Inbound, PacketError, Request, Server, ServerConfig};
use kiln_model::{MacAddr, UnixMillis};
use proptest::prelude::*;

use support::{Ask, Memory, SERVER, mac};

#[test]
fn what_is_no_request_of_an_ethernet_client_is_refused() {
    let good = Ask::new(1, mac(1)).bytes;
    let bent = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(Request::parse(&good).is_ok());
    for (bytes, want) in [
        (Vec::new(), PacketError::Short { found: 0 }),
        (good[..239].to_vec(), PacketError::Short { found: 239 }),
        (good[..240].to_vec(), PacketError::Kind(None)),
        (bent(0, 2), PacketError::NotARequest(2)),
        (bent(1, 6), PacketError::Hardware { kind: 6, length: 6 }),
        // These two make dhcproto panic: 28 + 255 is beyond the packet, 17 beyond the field.
        (bent(2, 255), PacketError::Hardware { kind: 1, length: 255 }),
        (bent(2, 17), PacketError::Hardware { kind: 1, length: 17 }),
        (bent(2, 0), PacketError::Hardware { kind: 1, length: 0 }),
        (bent(28, 0x53), PacketError::Address(MacAddr([0x53, 0x54, 0, 0, 0, 1]))),
        (bent(239, 0), PacketError::Magic([99, 130, 83, 0])),
        (bent(242, 2), PacketError::Kind(Some(2))),
        (bent(242, 99), PacketError::Kind(Some(99))),
    ] {
        assert_eq!(Request::parse(&bytes), Err(want));
    }
}

#[test]
fn one_bad_option_hides_no_other() {
    let bytes =
        Ask::new(1, mac(1)).option(50, &[1, 2, 3]).option(81, b"\xff").option(93, &[0, 16, 0, 7]).bytes;
    let request = Request::parse(&bytes).expect("a request");
    assert_eq!(request.address_option(50), None);
    assert_eq!(request.architectures(), [16, 7], "all of them, in order");
}

#[test]
fn an_option_that_is_cut_off_does_not_hide_those_before_it() {
    let mut bytes = Ask::new(1, mac(1)).option(12, b"name").bytes;
    bytes.extend_from_slice(&[60, 200, 1, 2]);
    let request = Request::parse(&bytes).expect("a request");
    assert_eq!((request.option(12), request.option(60)), (Some(&b"name"[..]), None));
}

#[test]
fn parts_of_an_option_are_joined_wherever_they_are() {
    let mut ask = Ask::new(1, mac(1)).option(77, b"i").option(12, b"x").option(77, b"P").option(52, &[3]);
    ask.bytes[108..111].copy_from_slice(&[77, 1, b'X']);
    ask.bytes[44..47].copy_from_slice(&[77, 1, b'E']);
    let request = Request::parse(&ask.bytes).expect("a request");
    assert_eq!(request.option(77), Some(&b"iPXE"[..]), "options, then file, then sname");
}

#[test]
fn a_relay_option_is_read_without_trusting_its_lengths() {
    let read = |data: &[u8], code| {
        let bytes = Ask::new(1, mac(1)).option(82, data).bytes;
        Request::parse(&bytes).expect("a request").relay_suboption(code).map(<[u8]>::to_vec)
    };
    assert_eq!(read(&[1, 1, 9, 2, 0], 2), Some(vec![]));
    assert_eq!(read(&[1, 9, 9], 1), None);
    assert_eq!(read(&[1], 1), None);
    assert_eq!(read(&[], 1), None);
}

#[test]
fn every_option_code_survives_the_parser_underneath() {
    for code in 0..=255 {
        assert_eq!(u8::from(OptionCode::from(code)), code);
    }
}

fn handle(bytes: &[u8]) {
    let memory = Memory::two_networks();
    let mut server = Server::new(ServerConfig::default());
    let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    for effect in server.handle(&Inbound { bytes, source, local: SERVER }, UnixMillis(1), &memory) {
        if let kiln_dhcp::Effect::Send(reply) | kiln_dhcp::Effect::Commit { reply, .. } = effect {
            assert!((300..=1472).contains(&reply.bytes.len()));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_server_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        handle(&bytes);
    }

    #[test]
    fn no_options_make_the_server_panic(
        kind in 0u8..10, head in prop::collection::vec((0usize..240, any::<u8>()), 0..4),
        options in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..255)), 0..9),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut ask = Ask::new(kind, mac(1));
        for (at, byte) in head {
            ask.bytes[at] = byte;
        }
        for (code, data) in options {
            ask = ask.option(code, &data);
        }
        ask.bytes.extend_from_slice(&tail);
        handle(&ask.bytes);
    }
}

/// The long run: mutations of realistic packets for as long as `KILN_FUZZ_SECONDS` says (60).
#[test]
#[ignore = "runs for a minute: cargo test -p kiln-dhcp --test packet -- --ignored"]
fn a_minute_of_mutated_packets() {
    let seconds = std::env::var("KILN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seeds = [
        Ask::new(1, mac(1)).pxe().option(57, &[5, 192]).option(61, &[0; 17]).bytes,
        Ask::new(3, mac(2)).address(54, SERVER).address(50, Ipv4Addr::new(10, 77, 0, 100)).bytes,
        Ask::new(3, mac(2))
            .giaddr(Ipv4Addr::new(10, 88, 0, 254))
            .option(82, &[5, 4, 10, 77, 0, 1, 11, 4, 1, 2, 3, 4])
            .bytes,
        Ask::new(4, mac(2)).option(52, &[3]).option(77, b"iPXE").bytes,
    ];
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut draw = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < end {
        let mut bytes = seeds[draw(seeds.len())].clone();
        for _ in 0..=draw(8) {
            let at = draw(bytes.len());
            match draw(4) {
                0 => bytes[at] = u8::try_from(draw(256)).expect("a byte"),
                1 => bytes[at] ^= 1 << draw(8),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let piece = bytes[at..].to_vec();
                    bytes.extend_from_slice(&piece);
                }
            }
            bytes.truncate(2000);
        }
        handle(&bytes);
        count += 1;
    }
    println!("{count} packets");
}

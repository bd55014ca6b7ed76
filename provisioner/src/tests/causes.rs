//! Each way in which a boot stops, provoked for real, and what the timeline says of it.

use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_boot::diagnose;
use kiln_model::api::Timeline;
use kiln_model::report::Status;
use kiln_model::timeline::Step;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};

use super::agent::Agent;
use super::datagrams::{lease, option, packet, packet_of, tell};
use super::fleet::{Fleet, R1};
use super::wire::request;

const MAC1: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BOX1: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

async fn running() -> Fleet {
    let mut fleet = Fleet::new();
    fleet.publish_with("1", &[("uki.efi", &[5; 9_000])], &[]);
    fleet.start().await;
    fleet
}

/// What is said of a boot when nothing more was heard of it for so many seconds.
async fn said_after(fleet: &Fleet, whose: &str, last: Step, seconds: u64) -> String {
    for _ in 0..100 {
        let path = format!("/v1/machines/{whose}/timeline");
        let Timeline { entries, .. } = fleet.api("GET", &path, "").await.json();
        if entries.last().is_some_and(|entry| entry.step == last) {
            let later = crate::server::now().plus(seconds * 1000);
            return diagnose(&entries, later).unwrap_or_else(|| panic!("nothing is said of {entries:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{last} was never seen");
}

#[tokio::test]
async fn no_request_after_the_offer() {
    let mut fleet = running().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let offer = tell(&socket, fleet.dhcp, &packet(1, MAC1, &[])).await;
    assert_eq!(option(&offer, 53), Some(vec![2]));
    let said = said_after(&fleet, "r1", Step::Offer, 20).await;
    assert!(said.contains("offers were sent and no request came"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn tftp_that_stalls_names_its_block() {
    let mut fleet = running().await;
    let (_, file) = lease(&fleet, MAC1).await;
    let socket = UdpSocket::bind((BOX1, 0)).await.expect("bound");
    let ask = [&[0, 1][..], file.expect("a file").as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&ask, ("127.0.0.1", fleet.tftp)).await.expect("sent");
    // Three blocks of 512 bytes are taken; then the cable is pulled.
    for block in 1..=4 {
        let mut buffer = [0; 600];
        let (_, session) = socket.recv_from(&mut buffer).await.expect("a block");
        assert_eq!(buffer[3], block);
        if block < 4 {
            socket.send_to(&[0, 4, 0, block], session).await.expect("sent");
        }
    }
    drop(socket);
    let said = said_after(&fleet, "r1", Step::TftpFailed, 30).await;
    assert!(said.contains("ipxe.efi at block 4, after 1536 bytes"), "{said}");
    assert!(said.contains("stalled at the block"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn tftp_that_asks_for_what_is_not_there_names_it() {
    let mut fleet = running().await;
    lease(&fleet, MAC1).await;
    let socket = UdpSocket::bind((BOX1, 0)).await.expect("bound");
    socket.send_to(b"\0\x01/pxelinux.0\0octet\0", ("127.0.0.1", fleet.tftp)).await.expect("sent");
    let said = said_after(&fleet, "r1", Step::TftpNotFound, 20).await;
    assert!(said.contains("\"TFTP not found\" (pxelinux.0): "), "{said}");
    assert!(said.contains("another DHCP or ProxyDHCP server"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn http_that_stops_names_how_far_it_came() {
    let mut fleet = Fleet::new();
    fleet.publish_with("1", &[("vmlinuz", &vec![1; 64 << 20])], &[]);
    fleet.start().await;
    let script = Agent::ask(&fleet, R1).await;
    let token = script.split("kiln.token=").nth(1).expect("a token");
    let token: String = token.chars().take_while(char::is_ascii_hexdigit).collect();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("set");
    socket.bind((BOX1, 0).into()).expect("bound");
    let mut stream = socket.connect(fleet.http).await.expect("connected");
    let path = format!("/boot/part/{token}/vmlinuz");
    stream.write_all(&request("GET", &path, &[], b"")).await.expect("sent");
    let mut taken = vec![0; 39 << 20];
    stream.read_exact(&mut taken).await.expect("more than half");
    stream.set_zero_linger().expect("set");
    drop(stream);
    let said = said_after(&fleet, "r1", Step::HttpStopped, 30).await;
    let percent = said.split("vmlinuz at ").nth(1).and_then(|rest| rest.split(' ').next());
    let percent: u32 = percent.and_then(|p| p.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    // 39 of 64 MiB are 60 %; what is in the kernel's buffers counts as sent.
    assert!((60..=75).contains(&percent), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn a_box_that_booted_and_whose_agent_is_silent() {
    let mut fleet = running().await;
    Agent::boot(&fleet, "r1", R1).await;
    let said = said_after(&fleet, "r1", Step::Initrd, 120).await;
    assert!(said.contains("its agent is silent"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn secure_boot_that_refuses_the_uki() {
    let mut fleet = running().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let http = |kind, options: &[(u8, &[u8])]| {
        packet_of(b"HTTPClient:Arch:00016:UNDI:003001", 16, kind, MAC1, options)
    };
    let offer = tell(&socket, fleet.dhcp, &http(1, &[])).await;
    let (address, server) =
        ([offer[16], offer[17], offer[18], offer[19]], option(&offer, 54).expect("a server"));
    let ack = tell(&socket, fleet.dhcp, &http(3, &[(50, &address), (54, &server)])).await;
    let url = String::from_utf8(option(&ack, 67).expect("a file")).expect("text");
    let path =
        url.trim_end_matches('\0').splitn(4, '/').nth(3).map(|rest| format!("/{rest}")).expect("a path");
    assert_eq!(fleet.http_from(BOX1, "GET", &path).await.body.len(), 9_000);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The firmware does not trust it, and begins anew.
    tell(&socket, fleet.dhcp, &http(1, &[])).await;
    let said = said_after(&fleet, "r1", Step::Offer, 1).await;
    assert!(said.contains("Secure Boot does not trust it") && said.contains("uki.efi"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn an_unknown_machine_waits_to_be_accepted() {
    let mut fleet = running().await;
    Agent::ask(&fleet, "02:00:00:00:00:99").await;
    let said = said_after(&fleet, "02:00:00:00:00:99", Step::Script, 1).await;
    assert!(said.contains("kiln machine accept"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn firmware_for_another_processor() {
    let mut fleet = running().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    tell(&socket, fleet.dhcp, &packet_of(b"PXEClient:Arch:00011:UNDI:003016", 11, 1, MAC1, &[])).await;
    let said = said_after(&fleet, "r1", Step::NothingToBoot, 1).await;
    assert!(said.contains("r1 should boot edge 1, which is published for x86_64 only"), "{said}");
    fleet.stop().await;
}

#[tokio::test]
async fn a_refusal_in_stage_0_and_a_failure_keep_the_reason_that_was_named_first() {
    let mut fleet = running().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    agent.tell(&fleet, Status::Failed, &[(Step::Refused, "base: the SHA-256 is wrong")]).await;
    let said = said_after(&fleet, "r1", Step::Refused, 1).await;
    assert!(said.contains("base: the SHA-256 is wrong"), "{said}");
    // Its last report before it reboots says nothing new.
    agent.tell(&fleet, Status::Failed, &[]).await;
    let view = fleet.machine("r1").await;
    assert!(view.trouble.contains("base: the SHA-256 is wrong"), "{}", view.trouble);
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    agent.tell(&fleet, Status::Failed, &[]).await;
    assert!(fleet.machine("r1").await.trouble.contains("did not say why"), "another boot, another reason");
    fleet.stop().await;
}

#[tokio::test]
async fn a_box_that_does_not_become_healthy() {
    let mut fleet = running().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    agent.tell(&fleet, Status::Starting, &[(Step::FunctionReady, "frr")]).await;
    let said = said_after(&fleet, "r1", Step::FunctionReady, 180).await;
    assert!(said.contains("not every function is healthy"), "{said}");
    agent.tell(&fleet, Status::Failed, &[(Step::Failed, "frr: not healthy within 60 s")]).await;
    let said = said_after(&fleet, "r1", Step::Failed, 1).await;
    assert!(said.contains("frr: not healthy within 60 s"), "{said}");
    fleet.stop().await;
}

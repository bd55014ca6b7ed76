//! What somebody on the boot network who means harm can and cannot do.

use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_model::FunctionName;
use kiln_model::api::Timeline;
use kiln_model::report::{FunctionReport, FunctionState, Status};
use kiln_model::timeline::Step;

use super::agent::Agent;
use super::fleet::{Fleet, R1};
use crate::timeline::KEPT;

#[tokio::test]
async fn a_stranger_cannot_spend_the_tries_of_a_machine_nor_take_its_token() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    agent.tell(&fleet, Status::Healthy, &[]).await;
    let before = fleet.machine("r1").await;

    // The other machine's address, one that nobody has, and the server's own.
    for from in [[127, 0, 0, 12], [127, 0, 0, 66], [127, 0, 0, 1]].map(Ipv4Addr::from) {
        let answer = fleet.http_from(from, "GET", &format!("/boot/ipxe?mac={R1}")).await;
        assert_eq!(answer.status, 403, "{from}: {}", answer.text());
        assert!(!answer.text().contains("kiln.token"), "{from}");
    }
    let after = fleet.machine("r1").await;
    assert_eq!((after.tries_left, after.boot), (before.tries_left, before.boot));
    assert_eq!(agent.poll(&fleet, None).await.status, 200, "the machine's own token is still good");
    fleet.stop().await;
}

#[tokio::test]
async fn a_box_that_reports_without_end_does_not_fill_the_store() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    for _ in 0..(2 * KEPT / 60) {
        agent.tell(&fleet, Status::Starting, &[(Step::FunctionReady, "again"); 60]).await;
    }
    let mut entries = usize::MAX;
    for _ in 0..40 {
        let timeline: Timeline = fleet.api("GET", "/v1/machines/r1/timeline", "").await.json();
        entries = timeline.entries.len();
        if entries <= KEPT + 50 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(entries <= KEPT + 50, "{entries} entries");
    fleet.stop().await;
}

#[tokio::test]
async fn what_a_box_says_cannot_steer_an_operators_terminal() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    let mut report = agent.report(Status::Starting, &[(Step::FunctionStarted, "\u{1b}[2J")]);
    let name: FunctionName = "frr".parse().expect("a name");
    let message = format!("\u{1b}]0;owned\u{7}{}", "x".repeat(4000));
    report.functions =
        vec![FunctionReport { name, state: FunctionState::Starting, restarts: 0, message, memory: 0 }];
    assert_eq!(agent.send(&fleet, &report).await.status, 204);
    let machine = fleet.machine("r1").await;
    let message = &machine.functions.first().expect("it was reported").message;
    assert!(!message.chars().any(char::is_control), "{message:?}");
    assert!(message.len() <= 500, "{}", message.len());
    fleet.stop().await;
}

/// Firmware follows no redirect and ONIE runs the body of any 200: whatever is not there is a plain refusal.
#[tokio::test]
async fn odd_paths_and_writing_methods_are_refused_in_words_and_nobody_is_sent_elsewhere() {
    let mut fleet = Fleet::new();
    let manifest = fleet.publish("1");
    fleet.start().await;
    let ipxe = &manifest.parts[&"loader/ipxe.efi".parse().expect("a name")];
    let loader = format!("/boot/loader/{}/ipxe.efi", ipxe.sha256);
    let paths = [
        "//boot/ipxe".to_owned(),
        format!("/{loader}"),
        format!("{loader}/"),
        loader.replace("ipxe.efi", "..%2f..%2fkeys%2ftargets.json"),
        loader.replace("/boot/", "/boot/../boot/"),
        "/boot".to_owned(),
        "/boot/".to_owned(),
        "/ztp/".to_owned(),
        "/ztp/..%2fkiln.toml".to_owned(),
        "/onie-installer/".to_owned(),
        "/onie-installer-..%2f..%2fkeys".to_owned(),
        "/repository".to_owned(),
        "/%2e%2e/%2e%2e/etc/passwd".to_owned(),
    ];
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let answer = fleet.http(method, path, &[], b"").await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
            assert_eq!(answer.header("location"), None, "{path}");
            assert_eq!(answer.header("content-type"), Some("text/plain"), "{path}");
        }
    }
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        for path in [loader.as_str(), "/onie-installer", "/repository/metadata/root.json", "/boot/ipxe"] {
            let answer = fleet.http(method, path, &[], b"x").await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            assert!(!answer.text().contains('<'), "{}", answer.text());
        }
    }
    assert_eq!(fleet.http("GET", &loader, &[], b"").await.body.len(), 5000, "and it is still there");
    fleet.stop().await;
}

/// A name that is not there is answered at once: who waits for a timeout gives the whole server up (ONIE), or the
/// boot (iPXE, which asks for `autoexec.ipxe` first). Nobody can write.
#[tokio::test]
async fn by_tftp_what_is_not_there_is_said_at_once_and_nothing_is_written() {
    let mut fleet = Fleet::new();
    fleet.publish_with("1", &[], &[("onie-installer.bin", b"#!/bin/sh\n")]);
    fleet.start().await;
    let ask = async |from: Ipv4Addr, opcode: u8, name: &str| {
        let socket = tokio::net::UdpSocket::bind((from, 0)).await.expect("bound");
        let request = [&[0, opcode][..], name.as_bytes(), b"\0octet\0"].concat();
        socket.send_to(&request, ("127.0.0.1", fleet.tftp)).await.expect("sent");
        let mut buffer = [0; 600];
        let answer = tokio::time::timeout(Duration::from_millis(500), socket.recv_from(&mut buffer)).await;
        let (length, _) = answer.unwrap_or_else(|_| panic!("{name}: no answer")).expect("received");
        buffer[..length].to_vec()
    };
    let (r1, stranger) = (Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 50));
    for name in [
        "autoexec.ipxe",
        "pxelinux.cfg/default",
        "grub.cfg",
        "http://10.77.0.1/onie-installer",
        "onie-updater-x86_64",
        "onie-installer-arm64",
        "../onie-installer",
        "0A4D/../onie-installer",
        "..%2fkeys%2ftargets.json",
        "",
    ] {
        let answer = ask(r1, 1, name).await;
        assert_eq!(answer[1], 5, "{name}: an error");
    }
    let installer = ask(r1, 1, "02-00-00-00-00-01/onie-installer-x86_64-kvm_x86_64-r0").await;
    assert_eq!(&installer[..], b"\0\x03\0\x01#!/bin/sh\n");
    assert_eq!(ask(stranger, 1, "onie-installer").await[1], 5, "it is for the machine of its address");
    for name in ["onie-installer", "new", "loader/x"] {
        assert_eq!(ask(r1, 2, name).await[1], 5, "{name}: nobody writes");
    }
    fleet.stop().await;
}

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

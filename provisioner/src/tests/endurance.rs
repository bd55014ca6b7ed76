//! What the server does when time has passed or everything happens at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kiln_model::api::RolloutState;
use kiln_model::intent::Purpose;
use kiln_model::report::Status;
use kiln_signing::fleet::load_publish_keys;
use kiln_signing::repository::{self, TIMESTAMP_VALID_S};

use super::agent::Agent;
use super::fleet::{Fleet, R1, R2, fleet_toml};
use crate::server::now;

#[tokio::test]
async fn after_its_metadata_expired_machines_only_fall_back_and_the_reason_is_said() {
    let mut fleet = Fleet::new();
    let first = fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    agent.tell(&fleet, Status::Healthy, &[]).await;
    fleet.stop().await;
    // Signed so long ago that it has expired.
    let keys = load_publish_keys(&fleet.path("keys")).expect("keys");
    let root = std::fs::read(fleet.path("trust/root.json")).expect("a root");
    let past = kiln_model::UnixMillis(now().0 - (TIMESTAMP_VALID_S + 60) * 1000);
    repository::refresh(&fleet.path("repository"), &root, &keys, past).expect("signed");

    fleet.start().await;
    let agent = Agent::boot(&fleet, "r1", R1).await;
    assert!(agent.script.contains("metadata expired"), "{}", agent.script);
    let intent = agent.intent(&fleet).await;
    assert_eq!((intent.purpose, intent.image.id), (Purpose::Fallback, kiln_signing::image_id(&first)));
    assert_eq!(fleet.machine("r1").await.tries_left, 2, "no try was spent on it");
    let manifest = fleet.http("GET", &format!("/boot/part/{}/manifest.json", agent.token), &[], b"").await;
    assert_eq!(manifest.status, 200, "a fallback finds its manifest by its token");
    let never_healthy = Agent::ask(&fleet, R2).await;
    assert!(never_healthy.contains("kiln publish --refresh"), "{never_healthy}");
    let rollout = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@1\"}").await;
    assert_eq!(rollout.status, 409, "{}", rollout.text());
    assert!(rollout.text().contains("expired"), "{}", rollout.text());

    repository::refresh(&fleet.path("repository"), &root, &keys, now()).expect("signed");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let agent = Agent::boot(&fleet, "r1", R1).await;
    assert_eq!(agent.intent(&fleet).await.purpose, Purpose::Run);
    fleet.stop().await;
}

#[tokio::test]
async fn a_rollout_of_what_was_published_a_moment_ago_begins() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    fleet.publish("2");
    let started = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@2\"}").await;
    assert_eq!(started.status, 200, "{}", started.text());
    assert_ne!(fleet.rollout().await.state, RolloutState::Done);
    fleet.stop().await;
}

#[tokio::test]
async fn a_thousand_machines_are_rolled_out_and_found_again_after_a_restart() {
    let mut fleet = Fleet::new();
    let machine = |n: u32| {
        let (high, low) = (n / 256, n % 256);
        format!(
            "[[machine]]\nname = \"m{n}\"\nmac = \"02:00:00:01:{high:02x}:{low:02x}\"\nimage = \"edge\"\n\n"
        )
    };
    let many: String = (0..1000).map(machine).collect();
    std::fs::write(fleet.path("fleet.toml"), format!("{}{many}", fleet_toml(65001))).expect("written");
    fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    agent.tell(&fleet, Status::Healthy, &[]).await;
    fleet.publish("2");
    let started = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@2\"}").await;
    assert_eq!(started.status, 200, "{}", started.text());
    assert_eq!(fleet.rollout().await.machines.len(), 1002);
    let before = fleet.rollout().await;
    fleet.stop().await;
    fleet.start().await;
    let names = |rollout: kiln_model::api::RolloutView| {
        rollout.machines.into_iter().map(|m| m.name).collect::<Vec<_>>()
    };
    assert_eq!(names(fleet.rollout().await), names(before));
    let aborted = fleet.api("POST", "/v1/rollouts/current/abort", "").await;
    assert_eq!(aborted.status, 200, "{}", aborted.text());
    assert_eq!(fleet.rollout().await.state, RolloutState::Aborted);
    fleet.stop().await;
}

#[tokio::test]
async fn a_new_desired_state_is_put_in_force_at_once_and_never_drops_a_request() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let agent = Agent::boot(&fleet, "r1", R1).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let traffic = async {
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(agent.poll(&fleet, None).await.status, 200);
            assert_eq!(fleet.http("GET", "/repository/metadata/timestamp.json", &[], b"").await.status, 200);
            asked.fetch_add(2, Ordering::Relaxed);
        }
    };
    let changes = async {
        for n in 0..30 {
            let good = fleet_toml(65_100 + n);
            let bad = good.replace(R2, R1);
            for (text, status) in [(bad, 400), (good, 200), ("format = ".to_owned(), 400)] {
                let body = serde_json::json!({ "fleet": text, "dry_run": false }).to_string();
                let answer = fleet.api("POST", "/v1/apply", &body).await;
                assert_eq!(answer.status, status, "{}", answer.text());
            }
            // What was refused has changed nothing.
            assert_eq!(agent.intent(&fleet).await.config.vars["asn"], 65_100 + n);
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(traffic, changes);
    assert!(asked.load(Ordering::Relaxed) > 30, "there was traffic");
    fleet.stop().await;
}

#[tokio::test]
async fn a_box_that_reports_without_a_pause_is_told_to_wait() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    let mut refused = None;
    for _ in 0..400 {
        let report = agent.report(Status::Starting, &[]);
        let answer = agent.send(&fleet, &report).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("it was told to wait");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let mut other = Agent::boot(&fleet, "r2", R2).await;
    other.tell(&fleet, Status::Starting, &[]).await;
    fleet.stop().await;
}

//! What operators ask for, and rollouts.

use std::time::Duration;

use kiln_model::api::{Applied, Explanation, Refusal, RolloutMachineState, RolloutState, Why};
use kiln_model::intent::Purpose;
use kiln_model::report::Status;
use kiln_model::timeline::Step;
use kiln_signing::attestation::{TEST_RESULT, TestResult};
use kiln_signing::fleet::load_key;

use super::agent::Agent;
use super::fleet::{Fleet, R1, R2, fleet_toml};

#[tokio::test]
async fn the_desired_state_is_compared_applied_and_kept() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let body = |text: &str, dry_run| serde_json::json!({ "fleet": text, "dry_run": dry_run }).to_string();
    let changed = fleet_toml(65001).replace("name = \"r2\"", "name = \"r3\"");
    let wanted = ["- machine r2".to_owned(), "+ machine r3".to_owned()];

    let dry: Applied = fleet.api("POST", "/v1/apply", &body(&changed, true)).await.json();
    assert_eq!((dry.changes.as_slice(), dry.applied), (&wanted[..], false));
    assert_eq!(fleet.api("GET", "/v1/machines/r3", "").await.status, 404);
    let done: Applied = fleet.api("POST", "/v1/apply", &body(&changed, false)).await.json();
    assert_eq!((done.changes.as_slice(), done.applied), (&wanted[..], true));
    assert!(fleet.machine("r3").await.wanted.is_some(), "a new machine gets the newest image");

    let bad = fleet_toml(65001).replace(R2, R1);
    let answer = fleet.api("POST", "/v1/apply", &body(&bad, false)).await;
    assert_eq!(answer.status, 400);
    let refusal: Refusal = serde_json::from_slice(&answer.body).expect("a refusal");
    assert!(refusal.error.contains("machine[1].mac"), "{}", refusal.error);
    assert!(!refusal.help.is_empty());

    fleet.stop().await;
    fleet.start().await;
    assert_eq!(
        fleet.machine("r3").await.state,
        kiln_model::api::MachineState::Expected,
        "kept over a restart"
    );
    fleet.stop().await;
    // The file is the last word when it was changed.
    std::fs::write(fleet.path("fleet.toml"), fleet_toml(65002)).expect("written");
    fleet.start().await;
    assert_eq!(fleet.api("GET", "/v1/machines/r3", "").await.status, 404);
    fleet.machine("r2").await;
    fleet.stop().await;
}

#[tokio::test]
async fn questions_have_answers_and_mistakes_have_help() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let explained: Explanation = fleet.api("GET", &format!("/v1/explain?mac={R1}&arch=7"), "").await.json();
    assert!(explained.gets.iter().any(|line| line.contains("ipxe.efi")), "{explained:?}");
    assert!(explained.because.iter().any(|line| line.contains("r1")), "{explained:?}");
    for (method, path, body, status, help) in [
        ("GET", "/v1/machines/r11", "", 404, "did you mean `r1`?"),
        ("GET", "/v1/machines/zzzzzz", "", 404, "kiln machine list"),
        ("GET", "/v1/explain?mac=zz", "", 400, "/v1/explain"),
        ("GET", "/v1/rollouts/current", "", 404, "kiln rollout start"),
        ("POST", "/v1/rollouts", "{\"image\":\"edge@7\"}", 404, "kiln publish"),
        ("POST", "/v1/rollouts", "{\"image\":\"Edge\"}", 400, "NAME@VERSION"),
        ("POST", "/v1/rollouts", "{", 400, "version"),
        ("GET", "/v2/machines", "", 404, "match"),
        ("PUT", "/v1/machines", "", 405, "match"),
    ] {
        let answer = fleet.api(method, path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(refusal.help.contains(help), "{path}: {refusal:?}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(fleet.path("state/kiln.sock")).expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    fleet.stop().await;
}

/// Keeps both boxes reporting until the rollout is in one of `states`, rebooting whoever is told to.
async fn roll(
    fleet: &Fleet,
    boxes: &mut [Agent; 2],
    healthy_on: &str,
    states: &[RolloutState],
) -> RolloutState {
    for _ in 0..120 {
        let rollout = fleet.rollout().await;
        if states.contains(&rollout.state) {
            return rollout.state;
        }
        for agent in boxes.iter_mut() {
            let intent = agent.intent(fleet).await;
            if agent.running != Some(intent.image.id) {
                let (name, mac) = (agent.name.clone(), agent.mac.clone());
                agent.tell(fleet, Status::Rebooting, &[]).await;
                *agent = Agent::boot(fleet, &name, &mac).await;
            }
            let intent = agent.intent(fleet).await;
            let good =
                intent.purpose == Purpose::Fallback || healthy_on.contains(&intent.image.version.to_string());
            if good {
                agent.tell(fleet, Status::Healthy, &[]).await;
            } else {
                agent.tell(fleet, Status::Failed, &[(Step::Failed, "frr: never ready")]).await;
                let (name, mac) = (agent.name.clone(), agent.mac.clone());
                *agent = Agent::boot(fleet, &name, &mac).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    panic!("the rollout does not end: {:?}", fleet.rollout().await);
}

#[tokio::test]
async fn a_good_version_goes_everywhere_and_a_bad_one_stops_at_the_canary() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut boxes = [Agent::boot(&fleet, "r1", R1).await, Agent::boot(&fleet, "r2", R2).await];
    for agent in &mut boxes {
        agent.tell(&fleet, Status::Healthy, &[]).await;
    }

    fleet.publish("2");
    fleet.sees_images(2).await;
    let started = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@2\"}").await;
    assert_eq!(started.status, 200, "{}", started.text());
    let second = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@2\"}").await;
    assert_eq!(second.status, 409, "one at a time: {}", second.text());
    assert_eq!(roll(&fleet, &mut boxes, "1 2", &[RolloutState::Done]).await, RolloutState::Done);
    for name in ["r1", "r2"] {
        let view = fleet.machine(name).await;
        assert_eq!(view.running.as_ref().map(|i| i.version.to_string()).as_deref(), Some("2"));
        assert_eq!(view.running, view.last_good);
    }

    fleet.publish("3");
    fleet.sees_images(3).await;
    assert_eq!(fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge\"}").await.status, 200);
    let ended = [RolloutState::Stopped, RolloutState::Done];
    assert_eq!(roll(&fleet, &mut boxes, "1 2", &ended).await, RolloutState::Stopped);
    let rollout = fleet.rollout().await;
    let states: Vec<_> = rollout.machines.iter().map(|m| (m.canary, m.state)).collect();
    assert_eq!(states, [(true, RolloutMachineState::Failed), (false, RolloutMachineState::Waiting)]);
    let why: Why =
        fleet.api("GET", &format!("/v1/rollouts/current/why/{}", rollout.machines[0].name), "").await.json();
    assert!(!why.because.is_empty());

    // The canary goes back, and the digest is not tried again by itself.
    let canary = rollout.machines[0].name.to_string();
    for _ in 0..40 {
        roll_once(&fleet, &mut boxes).await;
        let view = fleet.machine(&canary).await;
        if view.running.is_some_and(|i| i.version.to_string() == "2") {
            break;
        }
    }
    let view = fleet.machine(&canary).await;
    assert_eq!(view.running.map(|i| i.version.to_string()).as_deref(), Some("2"));
    let again = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@3\"}").await;
    assert_eq!(again.status, 409, "{}", again.text());
    assert!(again.text().contains("failed before"), "{}", again.text());
    fleet.stop().await;
}

async fn roll_once(fleet: &Fleet, boxes: &mut [Agent; 2]) {
    for agent in boxes.iter_mut() {
        let intent = agent.intent(fleet).await;
        if agent.running != Some(intent.image.id) {
            let (name, mac) = (agent.name.clone(), agent.mac.clone());
            *agent = Agent::boot(fleet, &name, &mac).await;
        }
        agent.tell(fleet, Status::Healthy, &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
}

#[tokio::test]
async fn where_a_test_is_required_only_a_signed_pass_of_that_image_starts_a_rollout() {
    let mut fleet = Fleet::new();
    let text = fleet_toml(65001).replace("[rollout]", "[rollout]\nrequire_test = true");
    std::fs::write(fleet.path("fleet.toml"), text).expect("written");
    let other = kiln_signing::image_ref(&fleet.publish("1"));
    fleet.start().await;
    let image = kiln_signing::image_ref(&fleet.publish("2"));
    let start = || fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@2\"}");
    let refused = start().await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("kiln test"), "{}", refused.text());

    let key = |role: &str| load_key(&fleet.path(&format!("keys/{role}.json"))).expect("a key");
    let passed = TestResult {
        image: image.id,
        bundle: kiln_model::Sha256::of(b"bundle"),
        passed: true,
        configuration: Vec::new(),
        passed_tests: vec!["r1 boot".to_owned()],
        failed_tests: Vec::new(),
    };
    let failed = TestResult { passed: false, ..passed.clone() };
    let another = TestResult { image: other.id, ..passed.clone() };
    for (result, by) in [(&failed, "targets"), (&another, "targets"), (&passed, "director")] {
        fleet.publish_with("2", &[], &[(TEST_RESULT, &result.sign(&[&key(by)]))]);
        assert_eq!(start().await.status, 409, "{result:?} by {by}");
    }
    fleet.publish_with("2", &[], &[(TEST_RESULT, &passed.sign(&[&key("targets")]))]);
    let started = start().await;
    assert_eq!(started.status, 200, "{}", started.text());
    fleet.stop().await;
}

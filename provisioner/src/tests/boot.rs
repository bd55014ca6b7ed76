//! Machines boot, report, misbehave.

use kiln_model::api::{MachineState, Timeline};
use kiln_model::intent::Purpose;
use kiln_model::report::Status;
use kiln_model::timeline::Step;

use super::agent::Agent;
use super::fleet::{Fleet, R1, R2};
use crate::ServeError;

async fn timeline(fleet: &Fleet, name: &str) -> Vec<Step> {
    // The writer of the boot path's entries runs beside it.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let timeline: Timeline = fleet.api("GET", &format!("/v1/machines/{name}/timeline"), "").await.json();
    timeline.entries.iter().map(|e| e.step).collect()
}

#[tokio::test]
async fn a_machine_boots_and_is_healthy_and_a_restart_of_the_server_keeps_it() {
    let mut fleet = Fleet::new();
    let manifest = fleet.publish("1");
    fleet.start().await;
    assert_eq!(fleet.machine("r1").await.state, MachineState::Expected);
    assert_eq!(fleet.machine("r1").await.wanted.map(|i| i.id), Some(kiln_signing::image_id(&manifest)));

    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    assert!(agent.script.contains("kiln.address=127.0.0.11/24"), "{}", agent.script);
    assert!(agent.script.contains("kiln.gateway=127.0.0.1"), "{}", agent.script);
    assert_eq!(fleet.machine("r1").await.state, MachineState::Loading);
    assert_eq!(fleet.machine("r1").await.tries_left, 1);

    agent.tell(&fleet, Status::Booting, &[(Step::Stage0, ""), (Step::IntentVerified, "")]).await;
    agent.tell(&fleet, Status::Healthy, &[(Step::Healthy, "")]).await;
    let view = fleet.machine("r1").await;
    assert_eq!(view.state, MachineState::Reported(Status::Healthy));
    assert_eq!((view.tries_left, view.last_good), (2, view.wanted));
    assert_eq!(
        timeline(&fleet, "r1").await,
        [Step::Script, Step::Kernel, Step::Initrd, Step::Stage0, Step::IntentVerified, Step::Healthy]
    );

    fleet.stop().await;
    assert!(!fleet.path("state/kiln.sock").exists());
    fleet.start().await;
    assert_eq!(agent.intent(&fleet).await.image.id, kiln_signing::image_id(&manifest));
    agent.tell(&fleet, Status::Healthy, &[]).await;
    assert_eq!(fleet.machine("r1").await.state, MachineState::Reported(Status::Healthy));
    fleet.stop().await;
}

#[tokio::test]
async fn tries_run_out_and_are_given_back() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    for _ in 0..2 {
        let mut agent = Agent::boot(&fleet, "r1", R1).await;
        agent.tell(&fleet, Status::Failed, &[(Step::Refused, "base: the SHA-256 is wrong")]).await;
    }
    let script = Agent::ask(&fleet, R1).await;
    assert!(!script.contains("kiln.token"), "{script}");
    assert!(script.contains("base: the SHA-256 is wrong"), "{script}");
    let view = fleet.machine("r1").await;
    assert_eq!(view.tries_left, 0);
    assert!(view.trouble.contains("base: the SHA-256 is wrong"), "{}", view.trouble);

    let released = fleet.api("POST", "/v1/machines/r1/release", "").await;
    assert_eq!(released.status, 200, "{}", released.text());
    assert_eq!(fleet.machine("r1").await.tries_left, 2);
    Agent::boot(&fleet, "r1", R1).await;
    fleet.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_machine_its_boot_and_its_image() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut first = Agent::boot(&fleet, "r1", R1).await;
    let mut other = Agent::boot(&fleet, "r2", R2).await;

    let answer = fleet.http("GET", "/v1/boot/intent", &[], b"").await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    let answer = fleet.http("GET", "/v1/boot/intent", &[("authorization", "Bearer 00ff")], b"").await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    for part in ["base2", "..%2f..%2fvmlinuz", "fn/../base", "%2e%2e"] {
        let answer = fleet.http("GET", &format!("/boot/part/{}/{part}", first.token), &[], b"").await;
        assert_eq!(answer.status, 404, "{part}");
        assert_eq!(answer.body.iter().filter(|b| **b == b'\n').count(), 1, "one line: {}", answer.text());
    }

    // A report for another machine, and one of another boot.
    let mut report = first.report(Status::Healthy, &[]);
    report.machine = "r2".parse().expect("a name");
    assert_eq!(first.send(&fleet, &report).await.status, 403);
    let stolen = other.report(Status::Healthy, &[]);
    assert_eq!(first.send(&fleet, &stolen).await.status, 403);

    // A newer boot ends the older one's token for everything.
    let second = Agent::boot(&fleet, "r1", R1).await;
    let answer = first.poll(&fleet, None).await;
    assert_eq!(answer.status, 410, "{}", answer.text());
    assert!(answer.text().contains("older boot"), "{}", answer.text());
    let report = first.report(Status::Healthy, &[]);
    assert_eq!(first.send(&fleet, &report).await.status, 410);
    assert_eq!(fleet.http("GET", &format!("/boot/part/{}/initrd", first.token), &[], b"").await.status, 410);
    assert_eq!(second.poll(&fleet, None).await.status, 200);
    assert_eq!(other.poll(&fleet, None).await.status, 200);
    fleet.stop().await;
}

#[tokio::test]
async fn a_report_that_comes_twice_or_late_adds_nothing() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let mut agent = Agent::boot(&fleet, "r1", R1).await;
    let early = agent.report(Status::Starting, &[(Step::Stage0, "")]);
    // The acknowledgement was lost: the next report carries the event again.
    let mut late = agent.report(Status::Healthy, &[(Step::Healthy, "")]);
    late.events.insert(0, early.events[0].clone());
    assert_eq!(agent.send(&fleet, &late).await.status, 204);
    assert_eq!(agent.send(&fleet, &early).await.status, 204);
    assert_eq!(agent.send(&fleet, &late).await.status, 204);
    assert_eq!(fleet.machine("r1").await.state, MachineState::Reported(Status::Healthy));
    let steps = timeline(&fleet, "r1").await;
    for step in [Step::Stage0, Step::Healthy] {
        assert_eq!(steps.iter().filter(|s| **s == step).count(), 1, "{steps:?}");
    }

    let authorization = agent.authorization();
    for (body, status) in [(&b"{}"[..], 400), (b"not json\nat all", 400), (&[b'x'; 60_000], 413)] {
        let answer = fleet.http("POST", "/v1/boot/report", &[("authorization", &authorization)], body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    fleet.stop().await;
}

#[tokio::test]
async fn intents_are_polled_cheaply_and_change_with_the_configuration() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let agent = Agent::boot(&fleet, "r1", R1).await;
    let first = agent.poll(&fleet, None).await;
    let etag = first.header("etag").expect("an etag").to_owned();
    let again = agent.poll(&fleet, Some(&etag)).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(agent.poll(&fleet, None).await.body, first.body, "the signed copy is kept");

    let before = agent.intent(&fleet).await;
    let body = serde_json::json!({ "fleet": super::fleet::fleet_toml(65099), "dry_run": false }).to_string();
    assert_eq!(fleet.api("POST", "/v1/apply", &body).await.status, 200);
    let changed = agent.poll(&fleet, Some(&etag)).await;
    assert_eq!(changed.status, 200);
    let after = agent.intent(&fleet).await;
    assert_eq!(after.generation, before.generation.next());
    assert_eq!(after.config.vars["asn"], 65099);
    fleet.stop().await;
}

#[tokio::test]
async fn a_machine_that_nobody_listed_is_shown_and_gets_nothing() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let script = Agent::ask(&fleet, "02:00:00:00:00:99").await;
    assert!(!script.contains("kernel "), "{script}");
    let machines: Vec<kiln_model::api::MachineView> = fleet.api("GET", "/v1/machines", "").await.json();
    let stranger = machines.iter().find(|m| m.name.is_none()).expect("it is listed");
    assert_eq!(
        (stranger.state, stranger.mac.to_string().as_str()),
        (MachineState::Discovered, "02:00:00:00:00:99")
    );
    assert!(stranger.trouble.contains("S 1"), "its serial number: {}", stranger.trouble);
    for bad in ["/boot/ipxe", "/boot/ipxe?mac=x", "/boot/ipxe?mac=02:00"] {
        let answer = fleet.http("GET", bad, &[], b"").await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    assert_eq!(fleet.http("HEAD", &format!("/boot/ipxe?mac={R1}"), &[], b"").await.status, 405);
    assert_eq!(fleet.machine("r1").await.tries_left, 2, "HEAD spends nothing");
    fleet.stop().await;
}

#[tokio::test]
async fn the_repository_is_served_by_its_names_only() {
    let mut fleet = Fleet::new();
    let manifest = fleet.publish("1");
    fleet.start().await;
    let timestamp = fleet.http("GET", "/repository/metadata/timestamp.json", &[], b"").await;
    assert_eq!(
        timestamp.body,
        std::fs::read(fleet.path("repository/metadata/timestamp.json")).expect("there")
    );
    let base = &manifest.parts[&"base".parse().expect("a name")];
    let path = format!("/repository/targets/edge/1/x86_64/{}.base", base.sha256);
    let part = fleet.http("GET", &path, &[("range", "bytes=10-19")], b"").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &[7; 10][..]));
    assert_eq!(part.header("etag"), Some(format!("\"{}\"", base.sha256).as_str()));
    for hostile in [
        "/repository/metadata/../../keys/targets.json",
        "/repository/metadata/..%2f..%2fkeys%2ftargets.json",
        "/repository/targets/../../keys/director.json",
        "/repository/targets/edge/1/x86_64/..%2f..%2f..%2f..%2f..%2fkeys%2fdirector.json",
        "/repository/targets//etc/passwd",
        "/repository/metadata/root.json%00",
        "/keys/director.json",
        "/",
    ] {
        let answer = fleet.http("GET", hostile, &[], b"").await;
        assert_eq!(answer.status, 404, "{hostile}: {}", answer.text());
        assert!(!answer.text().contains('<'), "never HTML: {}", answer.text());
    }
    let ipxe = &manifest.parts[&"loader/ipxe.efi".parse().expect("a name")];
    let loader = fleet.http("GET", &format!("/boot/loader/{}/ipxe.efi", ipxe.sha256), &[], b"").await;
    assert_eq!((loader.status, loader.body.len()), (200, 5000));
    fleet.stop().await;
}

#[tokio::test]
async fn a_repository_that_does_not_verify_any_more_changes_nothing() {
    let mut fleet = Fleet::new();
    fleet.publish("1");
    fleet.start().await;
    let path = fleet.path("repository/metadata/timestamp.json");
    let good = std::fs::read_to_string(&path).expect("there");
    std::fs::write(&path, good.replace("\"version\": 1", "\"version\": 9")).expect("written");
    assert_ne!(std::fs::read_to_string(&path).expect("there"), good, "the test changes something");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    fleet.sees_images(1).await;
    Agent::boot(&fleet, "r1", R1).await;
    fleet.stop().await;
}

#[tokio::test]
async fn an_image_that_went_missing_spends_its_tries_and_the_machine_falls_back() {
    let mut fleet = Fleet::new();
    let first = fleet.publish("1");
    fleet.start().await;
    // Both have a last good image, whichever of them the canary is to be.
    for (name, mac) in [("r1", R1), ("r2", R2)] {
        let mut agent = Agent::boot(&fleet, name, mac).await;
        agent.tell(&fleet, Status::Healthy, &[]).await;
    }
    fleet.publish("2");
    fleet.sees_images(2).await;
    // Version 2 is wanted, and its manifest is damaged when the server starts again.
    let start = fleet.api("POST", "/v1/rollouts", "{\"image\":\"edge@2\"}").await;
    assert_eq!(start.status, 200, "{}", start.text());
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    fleet.stop().await;
    let folder = fleet.path("repository/targets/edge/2/x86_64");
    let manifest = std::fs::read_dir(&folder).expect("there").map(|e| e.expect("an entry").path());
    let manifest =
        manifest.into_iter().find(|p| p.to_string_lossy().ends_with("manifest.json")).expect("there");
    std::fs::write(manifest, "{}").expect("written");
    fleet.start().await;
    let wants_second = fleet.machine("r1").await.wanted.is_some_and(|i| i.version.to_string() == "2");
    let (name, mac) = if wants_second { ("r1", R1) } else { ("r2", R2) };
    for _ in 0..2 {
        assert!(!Agent::ask(&fleet, mac).await.contains("kiln.token"));
    }
    let agent = Agent::boot(&fleet, name, mac).await;
    let intent = agent.intent(&fleet).await;
    assert_eq!((intent.purpose, intent.image.id), (Purpose::Fallback, kiln_signing::image_id(&first)));
    fleet.stop().await;
}

#[tokio::test]
async fn what_is_in_the_way_at_the_start_is_named() {
    let mut fleet = Fleet::new();
    fleet.start().await;
    let second = crate::serve(fleet.config(), async {}).await;
    assert!(matches!(second, Err(ServeError::AlreadyRunning { .. })), "{second:?}");
    fleet.stop().await;

    // A socket that a crash left behind is no server.
    drop(std::os::unix::net::UnixListener::bind(fleet.path("state/kiln.sock")).expect("bound"));
    fleet.start().await;
    fleet.stop().await;

    let taken = std::net::TcpListener::bind(fleet.http).expect("bound");
    let error = crate::serve(fleet.config(), async {}).await.expect_err("the port is taken");
    assert!(matches!(error, ServeError::PortInUse { service: "http", .. }), "{error}");
    assert!(error.to_string().contains("serve.http_port"), "{error}");
    drop(taken);

    let mut config = fleet.config();
    config.kiln.serve.interface = "no-such-if0".to_owned();
    let error = crate::serve(config, async {}).await.expect_err("no interface");
    assert!(matches!(error, ServeError::NoInterface { .. }), "{error}");

    let mut config = fleet.config();
    config.kiln.serve.address = std::net::Ipv4Addr::new(192, 0, 2, 1);
    let error = crate::serve(config, async {}).await.expect_err("not our address");
    assert!(matches!(error, ServeError::NotOurAddress { .. }), "{error}");
}

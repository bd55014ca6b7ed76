//! Every way to boot that is not iPXE, over real sockets: UKI, the agent's own question, ONIE, first-boot
//! scripts, discovery.

use std::net::Ipv4Addr;

use kiln_model::api::{Applied, Explanation, Hardware, MachineView, Timeline};
use kiln_model::inventory::{Inventory, System};
use kiln_model::report::Status;
use kiln_model::timeline::Step;
use kiln_model::{Arch, Format};

use super::agent::Agent;
use super::fleet::{Fleet, R1, fleet_toml};
use super::wire::Answer;

const BOX1: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const STRANGER: &str = "02:00:00:00:00:99";

async fn steps(fleet: &Fleet, whose: &str) -> Timeline {
    // The writer of the boot path's entries runs beside it.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    fleet.api("GET", &format!("/v1/machines/{whose}/timeline"), "").await.json()
}

async fn explain(fleet: &Fleet, query: &str) -> Explanation {
    fleet.api("GET", &format!("/v1/explain?{query}"), "").await.json()
}

fn apply(text: &str) -> String {
    serde_json::json!({ "fleet": text, "dry_run": false }).to_string()
}

/// A fleet whose file says `more` beside its machines.
async fn running(more: &str) -> Fleet {
    let mut fleet = Fleet::new();
    let text = fleet_toml(65001).replace("retry_s = 7\n", &format!("retry_s = 7\n{more}\n"));
    std::fs::write(fleet.path("fleet.toml"), text).expect("written");
    fleet.publish_with("1", &[("uki.efi", &[5; 9000])], &[("onie-installer.bin", b"#!/bin/sh\n")]);
    fleet.start().await;
    fleet
}

fn word<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[tokio::test]
async fn uefi_http_boot_gets_the_uki_and_its_agent_the_words_of_this_boot() {
    let mut fleet = running("").await;
    let told = explain(&fleet, &format!("mac={R1}&arch=16")).await;
    let url = told.gets.iter().find_map(|line| line.strip_prefix("firmware: http://")).expect("a URL");
    let path = &url[url.find('/').expect("a path")..];
    assert!(path.starts_with("/boot/uki/") && path.ends_with("/uki.efi"), "{path}");
    let head = fleet.http_from(BOX1, "HEAD", path).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("9000")));
    let etag = head.header("etag").expect("an etag").to_owned();
    let headers = [("range", "bytes=8000-"), ("if-match", etag.as_str())];
    let part = fleet.http("GET", path, &headers, b"").await;
    assert_eq!((part.status, part.body.len()), (206, 1000));
    let stale = fleet.http("GET", path, &[("if-match", "\"00\"")], b"").await;
    assert_eq!(stale.status, 412);
    assert_eq!(fleet.http_from(BOX1, "GET", path).await.body, [5; 9000]);

    let ask = format!("/boot/agent?mac={R1}&arch=x86_64&kernel=6.1.0-13-cloud-amd64&via=uki");
    let words = fleet.http_from(BOX1, "GET", &ask).await;
    assert_eq!(words.status, 200, "{}", words.text());
    let line = words.text();
    assert_eq!((word(&line, "kiln.machine"), word(&line, "kiln.address")), ("r1", "127.0.0.11/24"));
    assert_eq!(fleet.machine("r1").await.tries_left, 1, "it spends a try like a script");
    let token = word(&line, "kiln.token").to_owned();
    let manifest = fleet.http("GET", &format!("/boot/part/{token}/manifest.json"), &[], b"").await;
    assert_eq!(manifest.status, 200);
    assert!(manifest.text().contains("kiln-manifest"), "{}", manifest.text());
    assert_eq!(fleet.http("HEAD", &ask, &[], b"").await.status, 405);
    assert_eq!(fleet.http_from(Ipv4Addr::new(127, 0, 0, 12), "GET", &ask).await.status, 403);
    let timeline = steps(&fleet, "r1").await;
    let seen: Vec<Step> = timeline.entries.iter().map(|e| e.step).collect();
    assert_eq!(seen, [Step::Loader, Step::Script]);
    fleet.stop().await;
}

#[tokio::test]
async fn an_agent_without_a_boot_is_told_when_to_ask_again() {
    let mut fleet = running("").await;
    let ask = |mac: &str, arch: &str| format!("/boot/agent?mac={mac}&arch={arch}&via=uki");
    let stranger = fleet.http_from(Ipv4Addr::new(127, 0, 0, 50), "GET", &ask(STRANGER, "x86_64")).await;
    assert_eq!((stranger.status, stranger.header("retry-after")), (404, Some("7")));
    // An image for another processor is not tried.
    let wrong = fleet.http_from(BOX1, "GET", &ask(R1, "arm64")).await;
    assert_eq!((wrong.status, wrong.header("retry-after")), (503, Some("7")), "{}", wrong.text());
    assert!(
        wrong.text().contains("published for x86_64 only, and this machine is arm64"),
        "{}",
        wrong.text()
    );
    assert_eq!(fleet.machine("r1").await.tries_left, 2);
    for _ in 0..2 {
        assert_eq!(fleet.http_from(BOX1, "GET", &ask(R1, "x86_64")).await.status, 200);
    }
    let spent = fleet.http_from(BOX1, "GET", &ask(R1, "x86_64")).await;
    assert_eq!((spent.status, spent.header("retry-after")), (503, Some("7")));
    assert!(spent.text().contains("kiln machine release r1"), "{}", spent.text());
    fleet.stop().await;
}

/// ONIE's wget: the default name and its headers.
async fn onie(fleet: &Fleet, name: &str, headers: &[(&str, &str)]) -> Answer {
    fleet.http_with(BOX1, "GET", name, headers).await
}

#[tokio::test]
async fn onie_finds_its_installer_by_default_names_while_the_install_is_open() {
    let mut fleet = running("").await;
    let says = [
        ("onie-serial-number", "S1"),
        ("onie-eth-addr", R1),
        ("onie-vendor-id", "42623"),
        ("onie-machine", "kvm_x86_64"),
        ("onie-arch", "x86_64"),
        ("onie-operation", "os-install"),
    ];
    for name in ["/onie-installer-x86_64-kvm_x86_64-r0", "/onie-installer-x86_64.bin", "/onie-installer"] {
        let answer = onie(&fleet, name, &says).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "#!/bin/sh\n"), "{name}");
    }
    let update = [("onie-eth-addr", R1), ("onie-operation", "onie-update")];
    let rescue = [("onie-eth-addr", R1), ("onie-operation", "rescue")];
    let arm = [("onie-eth-addr", R1), ("onie-arch", "arm64")];
    for (name, headers) in [
        ("/onie-updater-x86_64", &says[..]),
        ("/onie-installer", &update[..]),
        ("/onie-installer", &rescue[..]),
        ("/onie-installer", &arm[..]),
        ("/onie-installerx", &says[..]),
        ("/index.html", &says[..]),
    ] {
        let answer = onie(&fleet, name, headers).await;
        assert_eq!(answer.status, 404, "{name} {headers:?}: {}", answer.text());
        assert!(!answer.text().contains('<'), "never HTML: {}", answer.text());
    }
    let stranger = fleet.http_with(Ipv4Addr::new(127, 0, 0, 50), "GET", "/onie-installer", &[]).await;
    assert_eq!(stranger.status, 404);
    let thief = fleet.http_with(Ipv4Addr::new(127, 0, 0, 50), "GET", "/onie-installer", &says).await;
    assert_eq!(thief.status, 404, "it only says that it is r1");
    let timeline = steps(&fleet, "r1").await;
    let served = timeline.entries.iter().filter(|e| e.step == Step::Installer).count();
    assert_eq!(served, 3);
    assert!(timeline.entries.iter().any(|e| e.detail.contains("serial S1")), "{timeline:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn an_install_is_closed_by_a_healthy_boot_from_the_disk_and_opened_by_the_operator() {
    let mut fleet = running("").await;
    let asks = |told: &Explanation| told.gets.iter().any(|line| line.starts_with("ONIE: http://"));
    let as_onie = format!("mac={R1}&as=onie");
    assert!(asks(&explain(&fleet, &as_onie).await));
    let boot = |via: &'static str| format!("/boot/agent?mac={R1}&arch=x86_64&via={via}");
    // A boot over the network proves nothing about the disk.
    for (via, open) in [("uki", true), ("disk", false)] {
        let line = fleet.http_from(BOX1, "GET", &boot(via)).await.text();
        let mut agent = Agent::with_token("r1", R1, word(&line, "kiln.token"));
        agent.running = fleet.machine("r1").await.wanted.map(|image| image.id);
        agent.tell(&fleet, Status::Healthy, &[(Step::Healthy, "")]).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(asks(&explain(&fleet, &as_onie).await), open, "{via}");
        let status = if open { 200 } else { 404 };
        assert_eq!(onie(&fleet, "/onie-installer", &[("onie-eth-addr", R1)]).await.status, status);
    }
    let closed = explain(&fleet, &as_onie).await;
    assert!(closed.because.iter().any(|line| line.contains("kiln machine reinstall r1")), "{closed:?}");
    let opened = fleet.api("POST", "/v1/machines/r1/reinstall", "").await;
    assert_eq!(opened.status, 200, "{}", opened.text());
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(onie(&fleet, "/onie-installer", &[("onie-eth-addr", R1)]).await.status, 200);
    // Again and again without success: it is closed.
    for _ in 0..4 {
        onie(&fleet, "/onie-installer", &[("onie-eth-addr", R1)]).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    let looping = onie(&fleet, "/onie-installer", &[("onie-eth-addr", R1)]).await;
    assert_eq!(looping.status, 404);
    assert!(looping.text().contains("served 5 times"), "{}", looping.text());
    fleet.stop().await;
}

#[tokio::test]
async fn a_switchs_own_system_is_set_up_by_its_script() {
    let mut fleet = running("").await;
    let script = "\n[[ztp]]\nsystem = \"cumulus\"\nscript = \"#!/bin/sh\\n# CUMULUS-AUTOPROVISIONING\\n\"\n\n[[ztp]]\nsystem = \"sonic\"\nscript = \"{}\"\n";
    let text = format!("{}{script}", fleet_toml(65001));
    let applied: Applied = fleet.api("POST", "/v1/apply", &apply(&text)).await.json();
    assert_eq!(applied.changes.len(), 2, "{applied:?}");
    let cumulus = explain(&fleet, &format!("mac={R1}&as=cumulus")).await;
    assert!(cumulus.gets.iter().any(|line| line.ends_with("/ztp/cumulus.sh")), "{cumulus:?}");
    let answer = fleet.http_from(BOX1, "GET", "/ztp/cumulus.sh").await;
    assert!(answer.text().contains("CUMULUS-AUTOPROVISIONING"), "{}", answer.text());
    assert_eq!(fleet.http_from(BOX1, "GET", "/ztp/sonic.json").await.text(), "{}");
    for bad in ["/ztp/sonic.sh", "/ztp/cumulus", "/ztp/junos.sh"] {
        assert_eq!(fleet.http_from(BOX1, "GET", bad).await.status, 404, "{bad}");
    }
    let stranger = fleet.http_from(Ipv4Addr::new(127, 0, 0, 50), "GET", "/ztp/cumulus.sh").await;
    assert_eq!(stranger.status, 404);
    let wrong = text.replace("# CUMULUS-AUTOPROVISIONING", "# nothing");
    let refused = fleet.api("POST", "/v1/apply", &apply(&wrong)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("ztp[0].script"), "{}", refused.text());
    fleet.stop().await;
}

fn inventory(mac: &str) -> Inventory {
    let system = System { vendor: "QEMU".to_owned(), serial: "S9".to_owned(), ..System::default() };
    Inventory {
        format: Format,
        mac: mac.parse().expect("a MAC address"),
        arch: Arch::X86_64,
        kernel: String::new(),
        system,
        cpu: Default::default(),
        memory_bytes: 1 << 30,
        disks: Vec::new(),
        interfaces: Vec::new(),
    }
}

#[tokio::test]
async fn an_unknown_machine_tells_what_it_is_made_of_and_is_accepted() {
    let mut fleet = running("discovery = \"edge\"").await;
    let from = Ipv4Addr::new(127, 0, 0, 50);
    let ask = format!("/boot/agent?mac={STRANGER}&arch=x86_64&via=uki");
    let line = fleet.http_from(from, "GET", &ask).await.text();
    assert_eq!(word(&line, "kiln.mode"), "discover");
    let script = fleet.http_from(from, "GET", &format!("/boot/ipxe?mac={STRANGER}&arch=x86_64")).await.text();
    let old = word(&line, "kiln.token").to_owned();
    let token = word(&script, "kiln.token").to_owned();
    assert!(script.contains("kiln.mode=discover"), "{script}");
    for part in ["vmlinuz", "initrd"] {
        let answer = fleet.http("GET", &format!("/boot/part/{token}/{part}"), &[], b"").await;
        assert_eq!(answer.status, 200, "{part}: {}", answer.text());
    }
    let bearer = |token: &str| format!("Bearer {token}");
    let (now, before) = (bearer(&token), bearer(&old));
    let send = async |auth: &str, body: &[u8]| {
        fleet.http("POST", "/v1/boot/inventory", &[("authorization", auth)], body).await
    };
    let told = serde_json::to_vec(&inventory(STRANGER)).expect("JSON");
    assert_eq!(send(&before, &told).await.status, 403, "a token is forgotten when there is a newer one");
    assert_eq!(send(&now, b"{}").await.status, 400);
    let other = serde_json::to_vec(&inventory(R1)).expect("JSON");
    assert_eq!(send(&now, &other).await.status, 403, "it cannot speak for another box");
    assert_eq!(send(&now, &told).await.status, 204);
    assert_eq!(fleet.http("GET", "/v1/boot/inventory", &[("authorization", &now)], b"").await.status, 204);
    assert_eq!(fleet.http("GET", "/v1/boot/intent", &[("authorization", &now)], b"").await.status, 403);

    let hardware: Hardware = fleet.api("GET", &format!("/v1/machines/{STRANGER}/hardware"), "").await.json();
    assert_eq!(hardware.inventory.map(|i| i.system.serial).as_deref(), Some("S9"));
    assert_eq!(hardware.profiles.first().map(|fit| fit.profile.as_str()), Some("generic/vm"));
    let view: MachineView = fleet.api("GET", &format!("/v1/machines/{STRANGER}"), "").await.json();
    assert_eq!(view.name, None);
    let timeline = steps(&fleet, STRANGER).await;
    assert!(timeline.diagnosis.is_some_and(|said| said.contains("kiln machine accept")));

    let text = std::fs::read_to_string(fleet.path("fleet.toml")).expect("there");
    let accepted = format!("{text}\n[[machine]]\nname = \"r9\"\nmac = \"{STRANGER}\"\nimage = \"edge\"\n");
    assert_eq!(fleet.api("POST", "/v1/apply", &apply(&accepted)).await.status, 200);
    let boots = fleet.http("GET", "/v1/boot/inventory", &[("authorization", &now)], b"").await;
    assert_eq!(boots.status, 205, "{}", boots.text());
    // Too many.
    let mut last = 204;
    for _ in 0..8 {
        last = send(&now, &told).await.status;
    }
    assert_eq!(last, 429);
    fleet.stop().await;
}

#[tokio::test]
async fn explain_tells_the_address_and_the_boot_of_every_firmware() {
    let mut fleet = running("discovery = \"edge\"").await;
    for (query, wants) in [
        (
            format!("mac={R1}&arch=7"),
            vec!["DHCP: 127.0.0.11 for 3600 s", "ipxe.efi by TFTP", "boot: runs edge 1"],
        ),
        (
            format!("mac={R1}&arch=16"),
            vec!["DHCP: 127.0.0.11", "/boot/uki/", "agent: http://", "boot: runs edge 1"],
        ),
        (format!("mac={R1}&arch=11"), vec!["DHCP: 127.0.0.11", "nothing to boot"]),
        (format!("mac={R1}&as=onie"), vec!["DHCP: 127.0.0.11", "ONIE: http://"]),
        (format!("mac={R1}&as=agent"), vec!["DHCP: 127.0.0.11", "agent: http://"]),
        (format!("mac={R1}&arch=7&relay=127.0.0.1"), vec!["DHCP: 127.0.0.11"]),
        (format!("mac={R1}&arch=7&relay=10.99.0.1"), vec!["DHCP: no answer"]),
        (format!("mac={STRANGER}&arch=16"), vec!["DHCP: 127.0.0.1", "looks at the machine"]),
    ] {
        let told = explain(&fleet, &query).await;
        for want in wants {
            assert!(told.gets.iter().any(|line| line.contains(want)), "{query}: {want}: {told:#?}");
        }
    }
    let nothing = fleet.api("GET", &format!("/v1/machines/{STRANGER}/timeline"), "").await;
    let timeline: Timeline = nothing.json();
    assert!(timeline.entries.is_empty(), "no packet was sent: {timeline:?}");
    let wrong = fleet.api("GET", &format!("/v1/explain?mac={R1}&as=toaster"), "").await;
    assert_eq!(wrong.status, 400);
    fleet.stop().await;
}

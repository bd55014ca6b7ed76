//! The lab on the real thing: namespaces, firmware, crashes. Needs root, QEMU and OVMF:
//! `cargo test -p kiln-lab -- --ignored --test-threads=1`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use kiln_lab::{Lab, LabError, PowerAction, Server, Status, Topology, Up};

const ONE_MACHINE: &str = "\
format = 1
name = \"one\"
[boot]
bridge = \"br0\"
address = \"10.77.0.1/24\"
[[machine]]
name = \"m1\"
mac = \"52:54:00:77:00:21\"
memory_mib = 256
links = [\"core\"]
";

/// Not a test: the holder's process, which the tests below start from this same program. The lab's
/// folder is its last argument.
#[test]
#[ignore = "started by the other tests"]
fn holder_process() {
    let dir = env::args().next_back().map(PathBuf::from).filter(|dir| dir.join("plan.json").exists());
    if let Some(dir) = dir {
        kiln_lab::holder::run(&dir).expect("the holder holds");
    }
}

fn up(topology: &str, server: Option<Server>) -> Up {
    let this = env::current_exe().expect("a path");
    let words = ["--ignored", "--exact", "--nocapture", "holder_process"].map(PathBuf::from);
    Up {
        topology: Topology::parse("test", topology).expect("valid"),
        holder: [vec![this], words.to_vec()].concat(),
        server,
    }
}

fn wait_for(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < deadline, "waited {seconds} s for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn runs(pid: u32) -> bool {
    // A zombie that waits for its parent does not run.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Packets that `interface` received, in the network that process `pid` sees.
fn received(pid: &str, interface: &str) -> Option<u64> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn qemu(status: &Status) -> u32 {
    status.machines[0].pid.expect("it has power")
}

#[test]
#[ignore = "needs root, QEMU and OVMF"]
fn firmware_speaks_on_the_labs_wire_and_the_host_does_not_see_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let lab = Lab::at(dir.path());
    let status = lab.up(up(ONE_MACHINE, None), |_| {}).expect("up");
    let holder = status.holder.to_string();
    assert_eq!(received("self", "tap0-0"), None, "the host sees the lab's wire");
    wait_for("a packet of the firmware", 120, || {
        received(&holder, "tap0-0").is_some_and(|packets| packets > 0)
    });

    assert!(matches!(lab.up(up(ONE_MACHINE, None), |_| {}), Err(LabError::Running { .. })));
    let off = lab.power("m1", PowerAction::Off).expect("off");
    assert_eq!(off.machines[0].pid, None);
    assert!(!runs(qemu(&status)));
    let on = lab.power("m1", PowerAction::On).expect("on");
    assert!(runs(qemu(&on)));
    lab.power("m1", PowerAction::Reset).expect("reset");
    assert!(runs(qemu(&on)), "a reset keeps the process");
    assert!(lab.power("m9", PowerAction::On).expect_err("no such machine").to_string().contains("m1"));

    lab.down().expect("down");
    wait_for("the holder's end", 10, || !runs(status.holder) && !runs(qemu(&on)));
    assert!(matches!(lab.status(), Err(LabError::NotRunning { .. })));
    assert!(lab.console("m1").expect("consoles stay").exists());
}

#[test]
#[ignore = "needs root, QEMU and OVMF"]
fn a_crash_leaves_nothing_that_runs_and_the_next_start_cleans_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let lab = Lab::at(dir.path());
    let first = lab.up(up(ONE_MACHINE, None), |_| {}).expect("up");
    let killed = Command::new("kill").args(["-9", &first.holder.to_string()]).status().expect("kill");
    assert!(killed.success());
    wait_for("the kernel to end the machine", 10, || !runs(qemu(&first)));
    assert!(dir.path().join("lab.sock").exists(), "a crash leaves files");

    let second = lab.up(up(ONE_MACHINE, None), |_| {}).expect("up again");
    assert_ne!(second.holder, first.holder);
    lab.down().expect("down");
}

#[test]
#[ignore = "needs root, QEMU and OVMF"]
fn a_server_that_does_not_start_is_told_and_the_lab_is_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    let lab = Lab::at(dir.path());
    let command = ["sh", "-c", "echo the port is taken >&2; exit 1"].map(PathBuf::from).to_vec();
    let server = Server { command, ready: dir.path().join("never.sock") };
    let error = lab.up(up(ONE_MACHINE, Some(server)), |_| {}).expect_err("no server").to_string();
    assert!(error.contains("the port is taken"), "{error}");
    assert!(matches!(lab.status(), Err(LabError::NotRunning { .. })));
}

#[test]
fn what_is_not_up_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let lab = Lab::at(dir.path());
    for error in [lab.status().map(drop), lab.down(), lab.console("m1").map(drop)] {
        let error = error.expect_err("not up").to_string();
        assert!(error.contains("kiln lab up"), "{error}");
    }
    assert!(!Path::new(dir.path()).join("lab.sock").exists());
}

//! The walls of a process, on the kernel that runs this test. In a mount and process namespace of its own,
//! so that nothing of the machine is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const AGENT: &str = env!("CARGO_BIN_EXE_kiln-agent");

/// Builds a function's root out of the machine's own programs, read-only, and runs `script` in the sandbox.
/// What it writes comes back as standard output, and its end as the sandbox's.
fn sandboxed(capabilities: &str, network: &str, script: &str) -> Output {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("root");
    for name in ["usr", "proc", "dev", "run", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("folder");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("link");
    }
    // Stands for the control group: what is written there is the process that enters it.
    fs::create_dir(folder.path().join("cgroup")).expect("folder");
    let slot = serde_json::json!({
        "format": 1,
        "function": "walls",
        "command": ["/bin/sh", "-c", script],
        "root": root,
        "cgroup": folder.path().join("cgroup"),
        "output": folder.path().join("out"),
        "capabilities": serde_json::from_str::<serde_json::Value>(capabilities).expect("JSON"),
        "network": network,
        "network_namespace": "/run/kiln/net/walls",
        "seccomp": "service",
        "writable": ["/tmp"],
    });
    fs::write(folder.path().join("slot.json"), slot.to_string()).expect("slot");
    in_namespaces(folder.path(), &root)
}

/// The setting that process 1 and the daemon make on a box, made by a script here.
fn in_namespaces(folder: &Path, root: &Path) -> Output {
    let setting = format!(
        "set -e
        mount -t tmpfs tmpfs /run && mkdir -p /run/kiln/slots /run/kiln/net
        mount -t tmpfs -o mode=0755 tmpfs {root}/tmp
        mount -t tmpfs -o mode=0777 tmpfs {root}/run
        cp /bin/true {root}/run/program
        mount --bind /usr {root}/usr && mount -o remount,bind,ro {root}/usr
        cp {folder}/slot.json /run/kiln/slots/walls.test.json
        mkfifo {folder}/out && (timeout 20 cat {folder}/out 1>&3 & sleep 0.2)
        exec 3>&-
        exec unshare --pid --fork --kill-child {AGENT} sandbox walls.test",
        root = root.display(),
        folder = folder.display(),
    );
    Command::new("unshare")
        .args(["--mount", "--fork", "sh", "-c", &format!("exec 3>&1; {setting}")])
        .output()
        .expect("unshare of util-linux is installed")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
#[ignore = "needs root: makes namespaces and mounts"]
fn a_process_sees_and_may_only_what_its_function_states() {
    let script = r#"
        echo host=$(cat /proc/sys/kernel/hostname)
        echo processes=$(ls /proc | grep -c '^[0-9]')
        echo interfaces=$(grep -c : /proc/net/dev)
        grep -E '^(CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\t '
        echo devices=$(ls /dev | tr '\n' ' ')
        try() { name=$1; shift; if sh -c "$*" >/dev/null 2>&1; then echo $name=yes; else echo $name=no; fi; }
        try write_tmp 'echo x > /tmp/x'
        try write_root 'echo x > /usr/x'
        try write_sysctl 'echo 0 > /proc/sys/kernel/printk'
        try mount 'mount -t tmpfs none /tmp'
        try unshare 'unshare --mount true'
        try old_root 'ls -d /home || ls -d /root || ls /etc/passwd'
        try threads 'sleep 0 & wait'
    "#;
    let output = sandboxed(r#"["net_admin"]"#, "none", script);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for wanted in [
        "host=walls",
        "interfaces=1",
        "CapEff:0000000000001000",
        "CapBnd:0000000000001000",
        "CapAmb:0000000000001000",
        "NoNewPrivs:1",
        "Seccomp:2",
        "write_tmp=yes",
        "write_root=no",
        "write_sysctl=no",
        "mount=no",
        "unshare=no",
        "old_root=no",
        "threads=yes",
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} is not in:\n{text}");
    }
    let devices = text.lines().find_map(|l| l.strip_prefix("devices=")).expect("devices");
    assert_eq!(devices.trim(), "fd full null random stderr stdin stdout tty urandom zero");
    let processes = text.lines().find_map(|l| l.strip_prefix("processes=")).expect("processes");
    assert!(processes.parse::<u32>().expect("a number") <= 6, "it sees other people's processes: {text}");
}

/// `/run` is mounted writable and executable here, as by a mistake, and no folder of the function's: what is
/// refused there is refused by Landlock.
#[test]
#[ignore = "needs root and a kernel with Landlock: makes namespaces and mounts"]
fn a_mount_that_is_wrong_opens_no_file() {
    let script = r#"
        try() { name=$1; shift; if sh -c "$*" >/dev/null 2>&1; then echo $name=yes; else echo $name=no; fi; }
        try create 'echo x > /run/x'
        try append 'echo x >> /run/program'
        try remove 'rm /run/program'
        try folder 'mkdir /run/folder'
        try link 'ln -s x /run/link'
        try read 'head -c 1 /run/program'
        try tmp_all 'mkdir /tmp/a && echo x > /tmp/a/b && mv /tmp/a/b /tmp/c && rm /tmp/c'
        try tmp_program 'cp /run/program /tmp/program && chmod +x /tmp/program'
        try device 'echo x > /dev/null'
        try own_name 'echo x > /proc/self/comm'
        echo output=yes > /dev/stdout
    "#;
    let output = sandboxed(r#"["dac_override"]"#, "none", script);
    let text = text(&output);
    for refused in ["create", "append", "remove", "folder", "link"] {
        assert!(text.lines().any(|line| line == format!("{refused}=no")), "{refused} in:\n{text}");
    }
    for allowed in ["read", "tmp_all", "tmp_program", "device", "own_name", "output"] {
        assert!(text.lines().any(|line| line == format!("{allowed}=yes")), "{allowed} in:\n{text}");
    }
}

#[test]
#[ignore = "needs root: makes namespaces and mounts"]
fn it_ends_as_its_program_ends() {
    assert_eq!(sandboxed("[]", "none", "exit 7").status.code(), Some(7));
    assert_eq!(sandboxed("[]", "none", "kill -9 $$").status.code(), Some(128 + 9));
    let orphans = sandboxed("[]", "none", "(sleep 300 &) ; (true &) ; echo left; exit 0");
    assert_eq!((orphans.status.code(), text(&orphans).trim()), (Some(0), "left"));
    let missing = sandboxed("[]", "none", "exec /bin/not-there");
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing));
}

#[test]
fn what_is_no_slot_is_refused() {
    for name in ["../../etc/passwd", "", "A", "not.there"] {
        let output = Command::new(AGENT).args(["sandbox", name]).output().expect("runs");
        assert_eq!(output.status.code(), Some(126), "{name}");
    }
    let usage = Command::new(AGENT).arg("frobnicate").output().expect("runs");
    assert_eq!(usage.status.code(), Some(2));
}

//! What is typed wrongly, and what is missing: one clear message, the right exit code, nothing left over.

use std::fs;
use std::path::Path;

use assert_cmd::Command;

fn kiln(dir: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kiln"));
    command.current_dir(dir).env("NO_COLOR", "1").env_remove("KILN_AGENT");
    command
}

/// Runs it and compares exit code and message.
fn refused(dir: &Path, args: &[&str], code: i32, wanted: &[&str]) {
    let output = kiln(dir).args(args).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "{args:?}: no `{wanted}` in: {said}");
    }
    assert!(!said.contains('\u{1b}'), "colours with NO_COLOR: {said:?}");
}

fn a_fleet() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    kiln(dir.path()).args(["init", "fleet", "--lab"]).assert().success();
    dir
}

#[test]
fn wrong_usage_is_2_and_says_what_would_be_right() {
    let dir = tempfile::tempdir().expect("a folder");
    refused(dir.path(), &["frobnicate"], 2, &["frobnicate", "Usage"]);
    refused(dir.path(), &["machine", "show", "R1"], 2, &["`R1` is not a machine's name", "lower-case"]);
    refused(dir.path(), &["machine", "list"], 2, &["no kiln.toml", "-C DIR", "kiln init"]);
    refused(dir.path(), &["-C", "none", "lab", "up"], 2, &["none/kiln.toml", "kiln init"]);
    refused(
        dir.path(),
        &["init", "x", "--image", "toaster"],
        2,
        &["no example image `toaster`", "edge-router"],
    );
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "something was left over");
}

#[test]
fn a_new_fleet_has_its_files_and_its_keys_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = a_fleet();
    let fleet = dir.path().join("fleet");
    for file in
        ["kiln.toml", "fleet.toml", "trust/root.json", "trust/director.json", "images/edge-router/image.toml"]
    {
        assert!(fleet.join(file).is_file(), "{file}");
    }
    for role in ["root", "targets", "snapshot", "timestamp", "director"] {
        let mode = fs::metadata(fleet.join(format!("keys/{role}.json"))).expect(role).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{role}");
    }
    let listed = kiln(&fleet).args(["key", "list", "--output", "json"]).output().expect("it runs");
    let keys: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(keys.len(), 5);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("private"));
}

#[test]
fn init_overwrites_nothing() {
    let dir = a_fleet();
    let before = fs::read(dir.path().join("fleet/keys/root.json")).expect("a key");
    refused(dir.path(), &["init", "fleet"], 1, &["fleet", "not empty"]);
    assert_eq!(fs::read(dir.path().join("fleet/keys/root.json")).expect("a key"), before);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "something was left over");
    refused(&dir.path().join("fleet"), &["key", "new", "root"], 1, &["root.json", "exists"]);
}

#[test]
fn what_is_not_there_is_named_with_how_to_get_it() {
    let dir = a_fleet();
    let fleet = dir.path().join("fleet");
    refused(&fleet, &["machine", "list"], 1, &["kiln serve does not run here", "kiln serve", "kiln lab up"]);
    refused(&fleet, &["rollout", "status"], 1, &["kiln serve does not run here"]);
    refused(&fleet, &["alarm", "list"], 1, &["kiln serve does not run here"]);
    refused(
        &fleet,
        &["alarm", "clear", "../machines"],
        2,
        &["cannot be the name of an alarm", "kiln alarm list"],
    );
    refused(&fleet, &["lab", "status"], 1, &["no lab runs", "kiln lab up"]);
    refused(&fleet, &["lab", "down"], 1, &["no lab runs"]);
    refused(&fleet, &["lab", "console", "r1"], 1, &["no lab runs"]);
    refused(&fleet, &["bake", "toaster"], 2, &["no spec toaster", "images"]);
    refused(
        &fleet,
        &["bake", "edge-router", "--agent", "/none"],
        1,
        &["no kiln-agent at /none", "make agent"],
    );
    refused(&fleet, &["verify", "none.kiln"], 1, &["none.kiln", "No such file"]);
    fs::write(fleet.join("bad.kiln"), "this is no bundle").expect("written");
    refused(&fleet, &["verify", "bad.kiln"], 3, &["bad.kiln"]);
    refused(&fleet, &["publish", "bad.kiln"], 1, &["bad.kiln"]);
    fs::write(fleet.join("kiln.toml"), "format = 1\nrepositry = \"x\"\n").expect("written");
    refused(&fleet, &["machine", "list"], 1, &["kiln.toml", "repositry", "line 2"]);
}

#[test]
fn a_fleet_for_elsewhere_does_not_start_a_lab() {
    let dir = tempfile::tempdir().expect("a folder");
    kiln(dir.path()).args(["init", "fleet"]).assert().success();
    refused(&dir.path().join("fleet"), &["lab", "up"], 1, &["eth0", "br0", "--lab"]);
}

#[test]
fn help_of_every_verb() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut all = String::new();
    for verb in [
        "",
        "init",
        "key",
        "key new",
        "key list",
        "bake",
        "verify",
        "inspect",
        "diff",
        "why",
        "archive",
        "archive export",
        "archive import",
        "export",
        "test",
        "publish",
        "serve",
        "explain",
        "machine",
        "machine list",
        "machine show",
        "machine timeline",
        "machine accept",
        "machine reinstall",
        "machine release",
        "alarm",
        "alarm list",
        "alarm clear",
        "apply",
        "rollout",
        "rollout start",
        "rollout status",
        "rollout watch",
        "rollout why",
        "rollout pause",
        "rollout resume",
        "rollout abort",
        "rollout history",
        "lab",
        "lab up",
        "lab status",
        "lab exec",
        "lab console",
        "lab power",
        "lab down",
        "completions",
    ] {
        let output = kiln(dir.path()).args(verb.split_whitespace()).arg("--help").output().expect("it runs");
        assert!(output.status.success(), "{verb}");
        let text = String::from_utf8_lossy(&output.stdout);
        let family = text.contains("Commands:") && !verb.is_empty();
        assert!(family || text.contains("Example:"), "{verb}: no example");
        all += &format!("$ kiln {verb} --help\n{text}\n");
    }
    insta::assert_snapshot!("help", all);
    for shell in ["bash", "zsh", "fish"] {
        let output = kiln(dir.path()).args(["completions", shell]).output().expect("it runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("kiln"), "{shell}");
    }
}

#[test]
fn a_bundle_that_is_not_whole_is_not_looked_into() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("cut.kiln"), [0x6d; 300]).expect("written");
    for verb in
        [&["why", "cut.kiln", "/init"][..], &["diff", "cut.kiln", "cut.kiln"], &["inspect", "cut.kiln"]]
    {
        refused(dir.path(), verb, 1, &["cut.kiln", "cut off"]);
    }
    refused(dir.path(), &["diff", "away.kiln", "away.kiln", "--exit-code"], 1, &["away.kiln"]);
}

//! Whether KVM really works here, found out by a guest that really starts.
//!
//! A `/dev/kvm` that exists proves nothing: inside virtual machines it often hangs a guest before or
//! soon after its firmware's first instruction. So a small guest is started on it, and only when
//! SeaBIOS has gone all the way to "No bootable device" within [`PATIENCE`] is KVM believed. The answer
//! is remembered for this boot of the host and this version of QEMU.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use serde::{Deserialize, Serialize};

use crate::machine::Accel;

/// How long the probe guest may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The last thing that SeaBIOS says when a machine has nothing to boot from.
const LAST_WORDS: &str = "No bootable device";

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    host_boot: String,
    qemu: String,
    accel: Accel,
}

/// The accelerator to use, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The accelerator to use.
    pub accel: Accel,
    /// Why, in words.
    pub why: String,
}

/// Finds out, or remembers.
pub fn accel(qemu: &Path) -> Verdict {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Verdict { accel: Accel::Tcg, why: format!("/dev/kvm cannot be opened: {error}") };
    }
    let now = Remembered { host_boot: host_boot(), qemu: version(qemu), accel: Accel::Tcg };
    let memory = memory_file();
    if let Some(known) = memory.as_deref().and_then(|path| recall(path, &now)) {
        return Verdict { accel: known, why: "remembered from a probe in this boot of the host".to_owned() };
    }
    let verdict = try_guest(qemu, &kvm_guest(), PATIENCE);
    if let Some(path) = memory {
        remember(&path, &Remembered { accel: verdict.accel, ..now });
    }
    verdict
}

fn kvm_guest() -> Vec<&'static str> {
    let machine = ["-machine", "q35,accel=kvm", "-cpu", "max", "-m", "64", "-display", "none", "-nodefaults"];
    let output = ["-device", "isa-debugcon,iobase=0x402,chardev=out", "-chardev", "stdio,id=out"];
    machine.into_iter().chain(output).collect()
}

fn try_guest(qemu: &Path, args: &[&str], patience: Duration) -> Verdict {
    let started = Instant::now();
    let child = Command::new(qemu)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let why = match child {
        Err(error) => format!("the probe guest did not start: {error}"),
        Ok(mut child) => {
            let spoke = wait_for_last_words(&mut child, patience);
            // It waits for ever in its firmware, or hangs: both are ended here. It may be gone by itself.
            drop(child.kill());
            drop(child.wait());
            let took = started.elapsed().as_millis();
            if spoke {
                return Verdict { accel: Accel::Kvm, why: format!("a probe guest ran in {took} ms") };
            }
            format!("/dev/kvm is here, and a probe guest on it ended or hung ({took} ms)")
        }
    };
    Verdict { accel: Accel::Tcg, why }
}

fn wait_for_last_words(child: &mut Child, patience: Duration) -> bool {
    let Some(stdout) = child.stdout.take() else { return false };
    let (done, heard) = mpsc::channel();
    // Ends at the end of the guest's output, which comes at the latest when it is killed.
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        let spoke = lines.any(|line| String::from_utf8_lossy(&line).contains(LAST_WORDS));
        // Nobody listens any more when the patience was over.
        let _ = done.send(spoke);
    });
    heard.recv_timeout(patience).unwrap_or(false)
}

fn host_boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn version(qemu: &Path) -> String {
    let output = Command::new(qemu).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

fn memory_file() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(cache.join("kiln").join("kvm.json"))
}

fn recall(path: &Path, now: &Remembered) -> Option<Accel> {
    let known: Remembered = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (known.host_boot == now.host_boot && known.qemu == now.qemu).then_some(known.accel)
}

/// Forgetting is allowed: the next lab probes again.
fn remember(path: &Path, known: &Remembered) {
    let written = (|| {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, serde_json::to_vec(known)?)
    })();
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "the answer of the KVM probe is not remembered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_software_emulation_and_ends_in_time() {
        let started = Instant::now();
        let verdict = try_guest(Path::new("sleep"), &["60"], Duration::from_millis(200));
        assert_eq!(verdict.accel, Accel::Tcg);
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(try_guest(Path::new("/nonexistent"), &[], PATIENCE).accel, Accel::Tcg);
    }

    #[test]
    fn only_the_last_words_are_believed() {
        let says = |text| try_guest(Path::new("echo"), &[text], PATIENCE).accel;
        assert_eq!(says("SeaBIOS (version rel-1.16.2)"), Accel::Tcg);
        assert_eq!(says("No bootable device.  Retrying in 60 seconds."), Accel::Kvm);
    }

    #[test]
    fn an_answer_counts_for_one_boot_of_the_host_and_one_qemu() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/kvm.json");
        let known = Remembered { host_boot: "b1".into(), qemu: "7.2".into(), accel: Accel::Kvm };
        remember(&path, &known);
        assert_eq!(recall(&path, &Remembered { accel: Accel::Tcg, ..known.clone() }), Some(Accel::Kvm));
        assert_eq!(recall(&path, &Remembered { host_boot: "b2".into(), ..known.clone() }), None);
        assert_eq!(recall(&path, &Remembered { qemu: "9.0".into(), ..known }), None);
        fs::write(&path, "torn").expect("written");
        assert_eq!(
            recall(&path, &Remembered { host_boot: "b1".into(), qemu: "7.2".into(), accel: Accel::Tcg }),
            None
        );
    }
}

//! Whether KVM really works here, found out by a guest that really starts.
//!
//! A `/dev/kvm` that exists proves nothing: inside virtual machines it often hangs a guest before or
//! soon after its firmware's first instruction, and one kind of firmware may run where another does not. So small
//! guests are started on it, and only when both BIOS and UEFI have gone all the way to what they say last before they
//! boot something is KVM believed. The answer is remembered for this boot of the host and this version of QEMU.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use serde::{Deserialize, Serialize};

use crate::machine::Accel;
use crate::tools;

/// The number of what is asked below: an answer to another question is not remembered.
const QUESTION: u32 = 2;

/// A guest that is started to see whether it runs.
struct Guest {
    firmware: &'static str,
    args: Vec<String>,
    /// What it says when all of its firmware has run.
    last_words: &'static str,
    patience: Duration,
}

const MACHINE: [&str; 9] =
    ["-machine", "q35,accel=kvm", "-cpu", "max", "-m", "256", "-display", "none", "-nodefaults"];

/// Both kinds of firmware; only the one that QEMU brings along where the other is not installed.
fn guests() -> Vec<Guest> {
    let drive = format!("if=pflash,format=raw,readonly=on,file={}", tools::OVMF.code);
    let bios = Guest {
        firmware: "SeaBIOS",
        args: ["-device", "isa-debugcon,iobase=0x402,chardev=out", "-chardev", "stdio,id=out"]
            .map(str::to_owned)
            .to_vec(),
        last_words: "No bootable device",
        patience: Duration::from_secs(5),
    };
    let uefi = Guest {
        firmware: "OVMF",
        args: ["-drive", &drive, "-serial", "stdio"].map(str::to_owned).to_vec(),
        last_words: "BdsDxe: ",
        patience: Duration::from_secs(10),
    };
    let is_installed = Path::new(tools::OVMF.code).exists();
    [Some(bios), is_installed.then_some(uefi)].into_iter().flatten().collect()
}

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    question: u32,
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
    let now =
        Remembered { question: QUESTION, host_boot: host_boot(), qemu: version(qemu), accel: Accel::Tcg };
    let memory = memory_file();
    if let Some(known) = memory.as_deref().and_then(|path| recall(path, &now)) {
        return Verdict { accel: known, why: "remembered from a probe in this boot of the host".to_owned() };
    }
    let verdict = try_guests(qemu, &guests());
    if let Some(path) = memory {
        remember(&path, &Remembered { accel: verdict.accel, ..now });
    }
    verdict
}

/// KVM, when each of them runs on it.
fn try_guests(qemu: &Path, guests: &[Guest]) -> Verdict {
    let mut ran = Vec::new();
    for guest in guests {
        let started = Instant::now();
        let why = match try_guest(qemu, guest) {
            Ok(true) => {
                ran.push(format!("{} in {} ms", guest.firmware, started.elapsed().as_millis()));
                continue;
            }
            Ok(false) => "ended or hung",
            Err(error) => &format!("did not start: {error}"),
        };
        let took = started.elapsed().as_millis();
        let why =
            format!("/dev/kvm is here, and a probe guest with {} on it {why} ({took} ms)", guest.firmware);
        return Verdict { accel: Accel::Tcg, why };
    }
    Verdict { accel: Accel::Kvm, why: format!("probe guests ran: {}", ran.join(", ")) }
}

/// Whether a guest says its last words in time.
fn try_guest(qemu: &Path, guest: &Guest) -> io::Result<bool> {
    let mut child = Command::new(qemu)
        .args(MACHINE)
        .args(&guest.args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let spoke = wait_for_last_words(&mut child, guest);
    // It waits for ever in its firmware, or hangs: both are ended here. It may be gone by itself.
    drop(child.kill());
    drop(child.wait());
    Ok(spoke)
}

fn wait_for_last_words(child: &mut Child, guest: &Guest) -> bool {
    let Some(stdout) = child.stdout.take() else { return false };
    let (done, heard) = mpsc::channel();
    let last_words = guest.last_words;
    // Ends at the end of the guest's output, which comes at the latest when it is killed.
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        let spoke = lines.any(|line| String::from_utf8_lossy(&line).contains(last_words));
        // Nobody listens any more when the patience was over.
        let _ = done.send(spoke);
    });
    heard.recv_timeout(guest.patience).unwrap_or(false)
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
    // All but the answer.
    (known == Remembered { accel: known.accel, ..now.clone() }).then_some(known.accel)
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

    /// A program that takes whatever options there are and does `script`.
    ///
    /// Another process writes it: a test beside this one that starts something would inherit it open for writing,
    /// and a program that somebody may still write cannot be started ("Text file busy").
    fn qemu(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("qemu");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let written = Command::new("/bin/sh").args(["-c", write]).arg(&path).arg(script).status();
        assert!(written.expect("a shell").success());
        path
    }

    #[test]
    fn silence_is_software_emulation_and_ends_in_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let started = Instant::now();
        let hasty = guests().into_iter().map(|guest| Guest { patience: Duration::from_millis(200), ..guest });
        let verdict = try_guests(&qemu(dir.path(), "exec sleep 60"), &hasty.collect::<Vec<_>>());
        assert_eq!(verdict.accel, Accel::Tcg);
        assert!(verdict.why.contains("SeaBIOS on it ended or hung"), "{}", verdict.why);
        assert!(started.elapsed() < Duration::from_secs(5));
        let verdict = try_guests(Path::new("/nonexistent"), &guests());
        assert_eq!(verdict.accel, Accel::Tcg);
        assert!(verdict.why.contains("did not start"), "{}", verdict.why);
    }

    #[test]
    fn only_the_last_words_of_every_firmware_are_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let says = |script| try_guests(&qemu(dir.path(), script), &guests()).accel;
        assert_eq!(says("echo 'SeaBIOS (version rel-1.16.2)'"), Accel::Tcg);
        assert_eq!(says("echo 'No bootable device.  Retrying in 60 seconds.'"), Accel::Tcg, "OVMF hangs");
        assert_eq!(says("echo 'No bootable device.'; echo 'BdsDxe: loading Boot0001'"), Accel::Kvm);
    }

    #[test]
    fn an_answer_counts_for_one_boot_of_the_host_and_one_qemu() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/kvm.json");
        let known =
            Remembered { question: QUESTION, host_boot: "b1".into(), qemu: "7.2".into(), accel: Accel::Kvm };
        remember(&path, &known);
        assert_eq!(recall(&path, &Remembered { accel: Accel::Tcg, ..known.clone() }), Some(Accel::Kvm));
        assert_eq!(recall(&path, &Remembered { host_boot: "b2".into(), ..known.clone() }), None);
        assert_eq!(recall(&path, &Remembered { qemu: "9.0".into(), ..known.clone() }), None);
        assert_eq!(recall(&path, &Remembered { question: QUESTION - 1, ..known.clone() }), None);
        fs::write(&path, "torn").expect("written");
        assert_eq!(recall(&path, &known), None);
    }
}

//! Where a boot stopped, and the likeliest reason.

use kiln_model::UnixMillis;
use kiln_model::timeline::{Step, TimelineEntry};

/// Where the newest boot stopped and the likeliest cause; none when it is healthy or under way.
///
/// `entries` are in order of time. The newest one says where the boot is; when nothing follows it for
/// longer than that step should take, the table below says why that usually is.
pub fn diagnose(entries: &[TimelineEntry], now: UnixMillis) -> Option<String> {
    let last = entries.last()?;
    if let Some(told) = stranger(last).or_else(|| secure_boot(entries)) {
        return Some(told);
    }
    let cause = cause(last.step, loader_runs(entries))?;
    let age_s = now.since(last.at) / 1000;
    if age_s < cause.patience_s {
        return None;
    }
    let detail = match last.detail.as_str() {
        "" => String::new(),
        detail => format!(" ({detail})"),
    };
    Some(format!("stopped {age_s} s ago after \"{}\"{detail}: {}", last.step, cause.text))
}

/// Within so many seconds a firmware that does not trust what it fetched asks for an address again.
const ASKS_AGAIN_S: u64 = 30;

/// A box that nobody has accepted waits for that, whatever else it does.
fn stranger(last: &TimelineEntry) -> Option<String> {
    let waits = last.boot.is_none() && last.step == Step::Script && last.detail.starts_with(STRANGER);
    (waits || last.step == Step::Inventory).then(|| {
        "nobody has accepted this machine: `kiln machine accept` with its address gives it a name and an image"
            .to_owned()
    })
}

/// A loader or UKI that was fetched whole, and firmware that asks for an address again within seconds: it did
/// not start what it has. A loader that runs would ask as iPXE or as Kiln's agent, or fetch something.
fn secure_boot(entries: &[TimelineEntry]) -> Option<String> {
    let fetched = entries.iter().rposition(|e| matches!(e.step, Step::TftpDone | Step::Loader))?;
    let (loader, after) = entries.get(fetched..)?.split_first()?;
    let asks = |entry: &&TimelineEntry| entry.step == Step::Discover;
    let firmware = |entry: &TimelineEntry| UEFI.iter().any(|name| entry.detail.starts_with(name));
    let again = after.iter().find(asks)?;
    let wire = [Step::Discover, Step::Offer, Step::Request, Step::Ack, Step::NothingToBoot];
    let only_firmware =
        after.iter().all(|e| wire.contains(&e.step)) && after.iter().filter(asks).all(firmware);
    let took_s = again.at.since(loader.at) / 1000;
    (only_firmware && !again.detail.contains(BIOS) && took_s <= ASKS_AGAIN_S).then(|| {
        format!(
            "stopped after \"{}\" ({}): the firmware fetched all of it, did not start it, and asked for an address again {took_s} s later. Most likely Secure Boot does not trust it: enrol the certificate that signed it, or switch Secure Boot off",
            loader.step, loader.detail
        )
    })
}

/// How the server's entry for a box that nobody has accepted begins.
pub const STRANGER: &str = "not in fleet.toml";
/// How the DHCP core's words for UEFI firmware begin, and what they say of a BIOS.
const UEFI: [&str; 2] = ["PXE firmware", "UEFI HTTP boot"];
const BIOS: &str = "architecture 0";

/// What it means that nothing follows a step.
struct Cause {
    /// Seconds that the next step may take.
    patience_s: u64,
    text: &'static str,
}

/// Whether it is the boot loader that asks, and not the firmware: the newest boot has fetched one.
fn loader_runs(entries: &[TimelineEntry]) -> bool {
    let firmware = entries.iter().rev().take_while(|entry| entry.step < Step::Script);
    firmware.map(|entry| entry.step).any(|step| step == Step::TftpDone)
}

/// The table. None for steps that nothing needs to follow.
fn cause(step: Step, loader_runs: bool) -> Option<Cause> {
    let (patience_s, text) = match step {
        Step::Discover => (
            10,
            "no offer was sent. The machine's network is not in fleet.toml, or its pool has no free address",
        ),
        Step::Offer => (
            15,
            "offers were sent and no request came. Look for a cable or a VLAN that carries one direction only, and for another DHCP server whose offer it took",
        ),
        Step::Request => (
            10,
            "the request was not acknowledged. It was meant for another DHCP server, or the lease could not be stored: see the server's log",
        ),
        Step::Nak => (
            15,
            "the machine wanted an address that is not its own here and did not ask for another one. Power-cycle it; it may have moved between networks",
        ),
        Step::Decline => (
            15,
            "the machine found its address in use by another one and took no other. Find what else uses it on this network",
        ),
        Step::Ack if loader_runs => (
            20,
            "iPXE has its address and did not fetch its script. Look for a firewall between the machine and the server's HTTP port",
        ),
        Step::Ack => (
            20,
            "the firmware has its address and fetched no boot loader. Look for a firewall on UDP port 69 and for network boot switched off in the firmware's settings",
        ),
        Step::TftpStart => (
            60,
            "the transfer stalled before its first block was acknowledged, or goes on very slowly. Look for lost packets: a bad cable, a duplex mismatch, or an MTU that is smaller than the block size",
        ),
        Step::TftpFailed => (
            10,
            "the transfer stalled at the block that is named. Look for lost packets: a bad cable, a duplex mismatch, an MTU that is smaller than the block size, or a firewall that drops the transfer's port",
        ),
        Step::TftpNotFound => (
            15,
            "it asked for a file that is not here. Look for another DHCP or ProxyDHCP server that names that file, and for a file name in the firmware's settings; `kiln explain` says which one it should fetch",
        ),
        Step::TftpDone => (
            30,
            "the boot loader was fetched and did not start. Switch Secure Boot off, and check that the firmware boots in the mode (UEFI or BIOS) that it asked in",
        ),
        Step::Loader => (
            60,
            "the firmware fetched all of it by HTTP and nothing of it was heard since. Most likely Secure Boot does not trust it: enrol the certificate that signed it, or switch Secure Boot off. Else look whether the firmware boots what is for its processor",
        ),
        Step::NothingToBoot => {
            (0, "the firmware asked and there is nothing for it, for the reason that is named")
        }
        Step::HttpStopped => (
            20,
            "the transfer ended before its last byte and was not taken up again. Look for lost packets: a bad cable, a duplex mismatch, or an MTU that differs along the way",
        ),
        Step::Installer => (
            900,
            "the installer was fetched and nothing was heard of the machine since. Look at its console: the installer names what it refused, and it must boot from its disk afterwards",
        ),
        Step::Ztp => return None,
        Step::Inventory => return None,
        Step::Script => (
            30,
            "the script was served and no kernel was fetched. The machine's screen says why; most often the connection broke",
        ),
        Step::Kernel => {
            (60, "the initrd was not fetched. The machine's screen says why; most often the connection broke")
        }
        Step::Initrd => (
            90,
            "it booted and its agent is silent: kernel and initrd were fetched. Look at the console: Secure Boot refused the kernel, the kernel stopped, or the image has no driver for this network card",
        ),
        Step::Stage0 => (
            30,
            "the initrd found no network. The image lacks the driver of this network card, or the link is down",
        ),
        Step::NetworkUp => (
            60,
            "it got no intent that it may obey. Look at its clock, and whether the fleet's director key is the one in the image",
        ),
        Step::IntentVerified | Step::MetadataVerified => {
            (60, "the image's signed documents did not arrive. Look at the repository that the server reads")
        }
        Step::ManifestVerified | Step::PartVerified => {
            (120, "the image's parts arrive too slowly or not at all. Look for lost packets and a slow link")
        }
        Step::PartMounted => (
            60,
            "a part could not be mounted. The kernel lacks dm-verity or squashfs, or the machine has too little memory",
        ),
        Step::BaseStarted => (60, "no function was started. Look at the console"),
        Step::FunctionStarted => {
            (120, "the function does not become ready. Look at its log and its configuration")
        }
        Step::FunctionReady => (120, "not every function is healthy. Look at the functions' messages"),
        Step::Refused => (
            0,
            "the machine refuses to run this. The part that is named was changed or damaged after it was signed: publish it again",
        ),
        Step::Failed => (0, "the machine gave this boot up for the reason that it names"),
        Step::FellBack => {
            (30, "it was given its last good image and does not fetch it. Look at the machine's screen")
        }
        Step::Draining => (300, "the traffic does not go away. Look at its neighbours"),
        Step::Drained => (60, "it was drained and did not reboot. Look at the console"),
        Step::Rebooting => (
            240,
            "it went down and did not come back. Look at its power and at the boot order in the firmware's settings: the network must come first",
        ),
        Step::Healthy => return None,
    };
    Some(Cause { patience_s, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: Step, at_s: u64) -> TimelineEntry {
        TimelineEntry { at: UnixMillis(at_s * 1000), boot: None, step, detail: String::new() }
    }

    fn said(steps: &[Step], now_s: u64) -> Option<String> {
        let entries: Vec<_> = steps.iter().map(|step| entry(*step, 100)).collect();
        diagnose(&entries, UnixMillis(now_s * 1000))
    }

    #[test]
    fn every_step_but_healthy_has_a_cause_that_is_said_when_its_time_is_over() {
        let last = [Step::Healthy, Step::Ztp, Step::Inventory];
        for step in Step::ALL.iter().copied().filter(|step| !last.contains(step)) {
            for loader_runs in [false, true] {
                let row = cause(step, loader_runs).unwrap();
                let steps: &[Step] = if loader_runs { &[Step::TftpDone, step] } else { &[step] };
                let late = said(steps, 100 + row.patience_s).unwrap();
                let expected = cause(step, super::loader_runs(&[entry(steps[0], 100), entry(step, 100)]));
                assert!(late.contains(step.as_str()) && late.contains(expected.unwrap().text), "{late}");
                if row.patience_s > 0 {
                    assert_eq!(said(steps, 99 + row.patience_s), None, "{step} is still under way");
                }
            }
        }
    }

    #[test]
    fn a_healthy_machine_and_an_unseen_one_need_no_diagnosis() {
        assert_eq!(said(&[Step::Failed, Step::Script, Step::Healthy], 100_000), None);
        assert_eq!(said(&[], 100_000), None);
    }

    #[test]
    fn the_firmware_and_the_loader_are_told_apart() {
        let firmware = said(&[Step::Discover, Step::Ack], 200).unwrap();
        let loader = said(&[Step::Ack, Step::TftpDone, Step::Discover, Step::Ack], 200).unwrap();
        assert!(firmware.contains("port 69") && loader.contains("HTTP"), "{firmware}\n{loader}");
        // The loader of the boot before this one does not count.
        let next_boot = said(&[Step::TftpDone, Step::Script, Step::Healthy, Step::Discover, Step::Ack], 200);
        assert_eq!(next_boot, Some(firmware));
    }

    fn told(step: Step, at_s: u64, detail: &str) -> TimelineEntry {
        TimelineEntry { detail: detail.to_owned(), ..entry(step, at_s) }
    }

    #[test]
    fn firmware_that_asks_again_at_once_did_not_start_what_it_fetched() {
        let again = |asks: &str, at_s| {
            let entries = [
                told(Step::Ack, 100, "10.77.0.11"),
                told(Step::Loader, 101, "uki.efi by HTTP"),
                told(Step::Discover, at_s, asks),
            ];
            diagnose(&entries, UnixMillis((at_s + 1) * 1000))
        };
        let refused = again("UEFI HTTP boot, architecture 16", 105).unwrap();
        assert!(refused.contains("Secure Boot") && refused.contains("4 s later"), "{refused}");
        assert!(again("PXE firmware, architecture 7", 105).is_some());
        assert_eq!(again("iPXE, architecture 7", 105), None, "the loader runs");
        assert_eq!(again("kiln stage 0, architecture 16", 105), None, "the UKI runs");
        assert_eq!(again("PXE firmware, architecture 0", 105), None, "a BIOS knows no Secure Boot");
        assert_eq!(again("PXE firmware, architecture 7", 300), None, "somebody has switched it off and on");
    }

    #[test]
    fn a_box_that_nobody_has_accepted_is_told_apart() {
        for step in
            [told(Step::Script, 100, "not in fleet.toml: told to wait"), told(Step::Inventory, 100, "")]
        {
            let said = diagnose(&[step], UnixMillis(100_000)).unwrap();
            assert!(said.contains("kiln machine accept"), "{said}");
        }
    }

    #[test]
    fn what_the_machine_named_is_said() {
        let refused =
            TimelineEntry { detail: "base: root hash differs".to_owned(), ..entry(Step::Refused, 100) };
        let said = diagnose(&[refused], UnixMillis(101_000)).unwrap();
        assert!(said.starts_with("stopped 1 s ago after \"refused\" (base: root hash differs): "), "{said}");
    }

    #[test]
    fn a_clock_that_went_backwards_is_no_diagnosis() {
        assert_eq!(said(&[Step::Offer], 1), None);
    }
}

//! Boots over the network, by each kind of firmware.
//!
//! A UKI's stage 0 asks for its script as iPXE does; what no UKI fetches is a kernel.

use kiln_model::api::Timeline;
use kiln_model::timeline::Step;

use super::{IMAGE, healthy, lab_up, lab_up_on, machine, policy, prepare, went};
use crate::demo::{Demo, Failed};

pub fn bios(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("")))?;
    lab_up(demo, "firmware = \"bios\"")?;
    let timeline = healthy(demo)?;
    // The lab's network card has iPXE in its ROM: it asks for the script at once.
    went(demo, &timeline, &[Step::Discover, Step::Script, Step::Kernel, Step::Initrd], &[])
}

pub fn uefi_pxe(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("loader = \"ipxe\"")))?;
    lab_up(demo, "firmware = \"uefi-pxe\"")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::TftpDone, Step::Script, Step::Kernel], &[])
}

pub fn http_ipxe(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("loader = \"ipxe\"")))?;
    lab_up(demo, "firmware = \"uefi-http\"")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::Loader, Step::Script, Step::Kernel], &[Step::TftpStart])
}

pub fn http_uki(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("loader = \"uki\"")))?;
    lab_up(demo, "firmware = \"uefi-http\"")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::Loader, Step::Stage0], &[Step::TftpStart, Step::Kernel])
}

pub fn pxe_uki(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, IMAGE, "x86_64", &(policy("") + &machine("loader = \"uki\"")))?;
    lab_up(demo, "firmware = \"uefi-pxe\"")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::TftpDone, Step::Stage0], &[Step::Kernel])
}

pub fn http6(demo: &mut Demo) -> Result<(), Failed> {
    let timeline = over_ipv6(demo, "ipxe", "uefi-http6")?;
    went(demo, &timeline, &[Step::Loader, Step::Script, Step::Kernel], &[Step::TftpStart])
}

pub fn pxe6(demo: &mut Demo) -> Result<(), Failed> {
    let timeline = over_ipv6(demo, "uki", "uefi-pxe6")?;
    went(demo, &timeline, &[Step::TftpDone, Step::Stage0], &[Step::Loader, Step::Kernel])
}

/// A firmware that knows no IPv4. What it starts goes on over IPv4, which stage 0 sets up.
fn over_ipv6(demo: &mut Demo, loader: &str, firmware: &str) -> Result<Timeline, Failed> {
    let network = "subnet6 = \"fd77::/64\"\npool6 = [\"fd77::1000\", \"fd77::1fff\"]\n";
    let machine = machine(&format!("loader = \"{loader}\"\naddress6 = \"fd77::31\""));
    prepare(demo, IMAGE, "x86_64", &(policy("") + network + &machine))?;
    let address = "address   = \"10.77.0.1\"";
    demo.fleet.edit("kiln.toml", address, &format!("{address}\naddress6 = \"fd77::1\""))?;
    lab_up_on(demo, "address6 = \"fd77::1/64\"", &format!("firmware = \"{firmware}\""))?;
    let timeline = healthy(demo)?;
    let is_loader = |step| matches!(step, Step::Loader | Step::TftpDone);
    let before: Vec<_> = timeline.entries.iter().take_while(|entry| !is_loader(entry.step)).collect();
    let leased = |address: &str| before.iter().any(|e| e.step == Step::Ack && e.detail.contains(address));
    demo.check("its firmware has a lease over IPv6", leased("fd77::31"), || format!("{before:?}"))?;
    demo.check("and had none over IPv4", !leased("10.77.0.31"), || format!("{before:?}"))?;
    Ok(timeline)
}

//! Boots over the network, by each kind of firmware.
//!
//! A UKI's stage 0 asks for its script as iPXE does; what no UKI fetches is a kernel.

use kiln_model::timeline::Step;

use super::{IMAGE, healthy, lab_up, machine, policy, prepare, went};
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

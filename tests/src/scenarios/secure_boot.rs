//! Secure Boot: two machines of one fleet, whose firmware trusts the fleet's keys here and a stranger's there.

use std::fs;

use kiln_model::timeline::Step;

use super::{DEADLINE_S, IMAGE, MAC, MACHINE, console, healthy, init, machine, policy, publish, says, went};
use crate::demo::{Demo, Failed};
use crate::fleet::FlipAt;
use crate::wait;

/// The machine that knows other keys.
const STRANGER: &str = "m2";
const STRANGER_MAC: &str = "52:54:00:77:00:32";
/// What EDK II says of a program that no key of `db` has signed.
const DENIED: &str = "Access Denied";

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    let stranger = format!(
        "[[machine]]\nname = \"{STRANGER}\"\nmac = \"{STRANGER_MAC}\"\naddress = \"10.77.0.32\"\nimage = \"{IMAGE}\"\n"
    );
    init(demo, &(policy("") + &machine("") + &stranger))?;
    keys(demo)?;
    publish(demo, IMAGE, "1", "x86_64")?;
    let topology = format!(
        "format = 1\nname = \"secure\"\n[boot]\nbridge = \"br0\"\naddress = \"10.77.0.1/24\"\n\
         [[machine]]\nname = \"{MACHINE}\"\nmac = \"{MAC}\"\nfirmware = \"uefi-http\"\nsecure_boot = \"keys/secure-boot\"\n\
         [[machine]]\nname = \"{STRANGER}\"\nmac = \"{STRANGER_MAC}\"\nfirmware = \"uefi-http\"\nsecure_boot = \"strangers-keys\"\n"
    );
    let file = demo.fleet.write("topology.toml", &topology)?.display().to_string();
    demo.kiln.run(&["lab", "up", "--topology", &file])?;

    refused(demo, STRANGER, 0, "a UKI that somebody else's key would have had to sign")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::Loader, Step::Stage0], &[Step::Kernel])?;

    // Signed by the right key, and one bit of what was signed is another one.
    let flipped = demo.fleet.flip(&format!("targets/{IMAGE}/1/x86_64"), ".uki.efi", FlipAt::Middle)?;
    let before = console(demo, MACHINE, 0)?.len();
    demo.kiln.run(&["lab", "power", MACHINE, "reset"])?;
    refused(demo, MACHINE, before, "a UKI with a flipped bit")?;
    drop(flipped);
    let before = console(demo, MACHINE, 0)?.len();
    demo.kiln.run(&["lab", "power", MACHINE, "reset"])?;
    let said = says(demo, MACHINE, before, "kiln: healthy")?;
    demo.check("and starts it again when the bit is put right", true, || said)
}

/// Makes both sets of keys, and has images signed with the fleet's.
fn keys(demo: &Demo) -> Result<(), Failed> {
    let dir = demo.fleet.dir();
    demo.kiln.run(&["key", "new", "secure-boot"])?;
    fs::rename(dir.join("keys/secure-boot"), dir.join("strangers-keys"))?;
    demo.kiln.run(&["key", "new", "secure-boot"])?;
    let mut kiln = fs::read_to_string(dir.join("kiln.toml"))?;
    kiln.push_str(
        "\n[secure_boot]\nkey = \"keys/secure-boot/db.key\"\ncertificate = \"keys/secure-boot/db.crt\"\n",
    );
    demo.fleet.write("kiln.toml", &kiln).map(drop)
}

/// Waits until the firmware has refused to start something, and the timeline says so.
fn refused(demo: &mut Demo, name: &str, before: usize, what: &str) -> Result<(), Failed> {
    let said = says(demo, name, before, DENIED)?;
    demo.check(&format!("{name}'s firmware refuses {what}"), true, || said)?;
    let diagnosis = wait::until("the timeline to say why", DEADLINE_S, || {
        let timeline = demo.kiln.timeline(name)?;
        Ok(timeline
            .diagnosis
            .clone()
            .filter(|why| why.contains("Secure Boot"))
            .ok_or_else(|| format!("{timeline:?}")))
    })?;
    println!("     {diagnosis}");
    demo.check(&format!("and {name}'s timeline says that it was Secure Boot"), true, || diagnosis)
}

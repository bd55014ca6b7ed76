//! Parts that firmware starts: the unified kernel image and systemd-boot, signed when there is a key; and whether
//! everything fits into the machine.

use std::collections::BTreeMap;

use kiln_hw_profiles::Limits as ProfileLimits;
use kiln_model::{Arch, ImageVersion, Manifest, PartName, Sha256};
use kiln_outputs::budget::{Limits, Weights, budgets};
use kiln_outputs::pe::Pe;
use kiln_outputs::secure_boot::SecureBootKey;
use kiln_outputs::uki::{self, UkiInputs};
use kiln_outputs::{INSTALLER_PART, LOADER_PART, UKI_PART};

use super::parts::{Built, Job, Key, Laps, Lazy, Raw, Workshop, kernel_error, one_file, run};
use super::{BakeError, Progress, Tell, trees};
use crate::store::ContentStore;

/// The lock's root of systemd's boot programs.
const ROOT: &str = "boot";

/// What programs for firmware say, and who signs them.
pub struct Firmware<'a> {
    pub version: &'a ImageVersion,
    pub cmdline: &'a str,
    pub key: Option<&'a SecureBootKey>,
}

impl Workshop<'_> {
    /// The parts that the spec's outputs need besides those that every set has.
    pub fn boot_parts(
        &self,
        firmware: &Firmware<'_>,
        built: &[Built],
        store: &ContentStore,
        tell: Tell<'_>,
        laps: &Laps,
    ) -> Result<Vec<Built>, BakeError> {
        let image = &self.spec.image;
        let wants = |part| image.outputs.iter().any(|output| output.needs().contains(&part));
        let certificate = firmware.key.map(SecureBootKey::certificate_der).transpose()?.unwrap_or_default();
        let key = |part: &str| {
            let key = Key::new(part).add(self.key(ROOT).finish().as_bytes()).add(&certificate);
            key.add(image.arch.as_str().as_bytes())
        };
        let packages = Lazy::new(|| trees::unpacked(ROOT, self.lock, self.fetched, None));
        let packages = &packages;
        let mut jobs = Vec::new();
        if wants(UKI_PART) {
            let [kernel, initrd] = ["vmlinuz", "initrd"].map(|name| part(built, name));
            let (kernel, initrd) = (kernel?, initrd?);
            let made_of = format!("{} {} {}", image.name, firmware.version, firmware.cmdline);
            let key = key(UKI_PART).add(made_of.as_bytes());
            let key = key.add(kernel.part.sha256.as_bytes()).add(initrd.part.sha256.as_bytes());
            jobs.push(Job::new(UKI_PART, key, move || {
                let stub = trees::file(ROOT, &packages.get()?.tree, uki::stub_file(image.arch))?;
                let vmlinuz = crate::kernel::bare(&kernel.bytes).map_err(|e| kernel_error(&e))?;
                let inputs = UkiInputs {
                    arch: image.arch,
                    stub,
                    name: &image.name,
                    version: firmware.version,
                    kernel_release: kernel_release(kernel),
                    cmdline: firmware.cmdline,
                    vmlinuz: &vmlinuz,
                    initrd: &initrd.bytes,
                };
                Ok(Raw::plain(uki::assemble(&inputs, firmware.key)?))
            }));
        }
        if wants(LOADER_PART) {
            jobs.push(Job::new(LOADER_PART, key(LOADER_PART), || {
                let raw = one_file(ROOT, packages.get()?, uki::loader_file(image.arch))?;
                let bytes = uki::sign("systemd-boot", &raw.bytes, image.arch, firmware.key)?;
                Ok(Raw { bytes, ..raw })
            }));
        }
        if wants(INSTALLER_PART) {
            let agent = &self.inputs.agent;
            jobs.push(Job::new(INSTALLER_PART, Key::new(INSTALLER_PART).add(agent), || {
                Ok(Raw::plain(agent.clone()))
            }));
        }
        run(&jobs, store, tell, laps)
    }
}

/// Programs for firmware with their Secure Boot signatures, out of a bundle that is built again.
pub type Signed = BTreeMap<PartName, Vec<u8>>;

/// Puts the signed program in the place of the one that was built where both are the same without signatures
/// (compared by the digest that such a signature is made over). Who builds again has no key, and what the
/// evidence says of these parts it says of the signed ones.
pub fn take_signatures(built: &mut [Built], signed: &Signed, arch: Arch) {
    for built in built {
        let Some(bytes) = signed.get(&built.name) else { continue };
        let digest = |bytes: &[u8]| Pe::parse(bytes, arch).map(|program| program.digest());
        if digest(&built.bytes).is_ok_and(|ours| digest(bytes) == Ok(ours)) {
            built.part.size = bytes.len() as u64;
            built.part.sha256 = Sha256::of(bytes);
            built.bytes.clone_from(bytes);
        }
    }
}

/// Refuses a set that does not fit into the machines of its profile, and tells what some of them may not take.
pub fn check_budgets(
    limits: &ProfileLimits,
    manifest: &Manifest,
    built: &[Built],
    tell: Tell<'_>,
) -> Result<(), BakeError> {
    let initrd = part(built, "initrd")?;
    let content =
        |e: std::io::Error| BakeError::Content { root: "initrd".to_owned(), problem: e.to_string() };
    let weights = Weights::of(manifest, &initrd.bytes).map_err(content)?;
    for budget in budgets(&weights, &limits_of(limits)).into_iter().filter(|budget| !budget.fits()) {
        let kiln_outputs::budget::Budget { name, used, limit, hard, remedy } = budget;
        if hard {
            let profile = format!("profile {}", manifest.profile);
            return Err(BakeError::Budget { name, used, limit, profile, remedy });
        }
        tell(Progress::Note(format!("{name}: {used} bytes, and {limit} go: {remedy}")));
    }
    Ok(())
}

/// A profile's limits as the budgets take them.
pub const fn limits_of(limits: &ProfileLimits) -> Limits {
    Limits { initrd_ram: limits.initrd_ram, esp: limits.esp, pe: limits.pe, onie_tmpfs: limits.onie_tmpfs }
}

fn part<'a>(built: &'a [Built], name: &str) -> Result<&'a Built, BakeError> {
    built.iter().find(|built| built.name.as_str() == name).ok_or_else(|| BakeError::Content {
        root: UKI_PART.to_owned(),
        problem: format!("the set has no part `{name}`"),
    })
}

/// `6.1.0-42-cloud-amd64`, out of the name that the kernel has in its package.
fn kernel_release(kernel: &Built) -> &str {
    let path = kernel.files.first().map(|file| file.path.as_str());
    path.and_then(|path| path.strip_prefix("/boot/vmlinuz-")).unwrap_or_default()
}

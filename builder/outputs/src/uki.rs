//! A unified kernel image: one program that firmware starts, made of systemd's stub, kernel, initrd and command
//! line (UAPI group's specification UKI, version 1).

use kiln_model::{Arch, ImageName, ImageVersion};

use crate::pe::{Pe, PeError};
use crate::secure_boot::{SecureBootError, SecureBootKey};

/// The word of the command line by which stage 0 knows that it must ask for the rest of it.
pub const DISCOVER: &str = "kiln.discover";

/// Where Debian's `systemd-boot-efi` has the stub.
pub const fn stub_file(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        Arch::Arm64 => "/usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
    }
}

/// Where Debian's `systemd-boot-efi` has the boot menu.
pub const fn loader_file(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        Arch::Arm64 => "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
    }
}

/// What a UKI is made of.
#[derive(Debug, Clone, Copy)]
pub struct UkiInputs<'a> {
    /// What it runs on.
    pub arch: Arch,
    /// systemd's stub.
    pub stub: &'a [u8],
    /// The image's name.
    pub name: &'a ImageName,
    /// The image's version.
    pub version: &'a ImageVersion,
    /// The kernel's release, as `uname -r` says it.
    pub kernel_release: &'a str,
    /// The image's command line; [`DISCOVER`] is added.
    pub cmdline: &'a str,
    /// The kernel.
    pub vmlinuz: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
}

/// Why there is no signed program.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// A program is not what it should be.
    #[error("{file}: {source}")]
    Pe {
        /// Which one.
        file: &'static str,
        /// Why.
        source: PeError,
    },
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] SecureBootError),
}

/// Assembles a UKI, signed when there is a key.
pub fn assemble(inputs: &UkiInputs<'_>, key: Option<&SecureBootKey>) -> Result<Vec<u8>, UkiError> {
    let wrong = |source| UkiError::Pe { file: "systemd's stub", source };
    let release = os_release(inputs.name, inputs.version);
    let cmdline = format!("{} {DISCOVER}", inputs.cmdline);
    let mut pe = Pe::parse(inputs.stub, inputs.arch).map_err(wrong)?;
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", release.as_bytes()),
        (".cmdline", cmdline.as_bytes()),
        (".uname", inputs.kernel_release.as_bytes()),
        (".linux", inputs.vmlinuz),
        (".initrd", inputs.initrd),
    ];
    for (name, content) in sections {
        pe.append(name, content).map_err(wrong)?;
    }
    Ok(finish(pe, key)?)
}

/// Signs a program as it is when there is a key, and gives it unchanged when there is none.
pub fn sign(
    file: &'static str,
    program: &[u8],
    arch: Arch,
    key: Option<&SecureBootKey>,
) -> Result<Vec<u8>, UkiError> {
    let mut pe = Pe::parse(program, arch).map_err(|source| UkiError::Pe { file, source })?;
    if key.is_none() {
        return Ok(program.to_vec());
    }
    pe.unsign();
    Ok(finish(pe, key)?)
}

fn finish(mut pe: Pe, key: Option<&SecureBootKey>) -> Result<Vec<u8>, SecureBootError> {
    if let Some(key) = key {
        let signature = key.authenticode(pe.digest())?;
        pe.attach(&signature);
    }
    Ok(pe.finish())
}

/// What systemd-boot shows and orders entries by (os-release(5)).
fn os_release(name: &ImageName, version: &ImageVersion) -> String {
    format!(
        "ID=kiln\nNAME=Kiln\nPRETTY_NAME=\"{name} {version}\"\nIMAGE_ID={name}\nVERSION_ID={version}\nIMAGE_VERSION={version}\n"
    )
}

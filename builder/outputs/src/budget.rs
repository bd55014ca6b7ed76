//! What must fit into a machine, compared with what there is: pure.

use kiln_model::Manifest;
use serde::Serialize;

use crate::{INSTALLER_PART, LOADER_PART, UKI_PART};

/// Bytes that fit into a machine; `None` is not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The initrd, unpacked, in memory.
    pub initrd_ram: Option<u64>,
    /// Everything on the EFI system partition.
    pub esp: Option<u64>,
    /// One program that the firmware loads.
    pub pe: Option<u64>,
    /// An installer and what it unpacks, in ONIE's memory.
    pub onie_tmpfs: Option<u64>,
}

/// What a set weighs. `None` means that it does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weights {
    /// The initrd as it is sent.
    pub initrd: u64,
    /// The initrd when it is unpacked.
    pub initrd_unpacked: u64,
    /// The unified kernel image.
    pub uki: Option<u64>,
    /// systemd-boot.
    pub loader: Option<u64>,
    /// The agent as a part of its own.
    pub installer: Option<u64>,
    /// The largest boot loader that is sent by TFTP; 0 when the set has none.
    pub tftp_loader: u64,
    /// The whole bundle.
    pub bundle: u64,
}

/// One thing that must fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// What.
    pub name: &'static str,
    /// Bytes it takes.
    pub used: u64,
    /// Bytes there are.
    pub limit: u64,
    /// Whether an image that does not fit is refused; otherwise it is only told.
    pub hard: bool,
    /// What to do when it does not fit.
    pub remedy: &'static str,
}

impl Budget {
    /// Whether it fits.
    pub const fn fits(&self) -> bool {
        self.used <= self.limit
    }
}

/// Nothing that firmware loads may be larger: at 2 GiB it fails to load (seen on several makers' firmware).
const PE_LIMIT: u64 = (2 << 30) - 1;
/// Blocks that a TFTP client can count which does not begin again at 0 (RFC 1350: 16 bits).
const TFTP_BLOCKS: u64 = 65_535;
/// Bytes in a block when a client asks for none (RFC 1350), and when it asks for what fits into a frame.
const TFTP_BLOCK_SMALL: u64 = 512;
const TFTP_BLOCK_FRAME: u64 = 1468;

/// Everything that must fit, in the order in which a machine meets it.
pub fn budgets(weights: &Weights, limits: &Limits) -> Vec<Budget> {
    let mut all = Vec::new();
    let mut add = |name, used, limit, hard, remedy| {
        if let (Some(used), Some(limit)) = (used, limit) {
            all.push(Budget { name, used, limit, hard, remedy });
        }
    };
    add(
        "boot loader by TFTP, blocks of 512",
        Some(weights.tftp_loader).filter(|size| *size > 0),
        Some(TFTP_BLOCKS * TFTP_BLOCK_SMALL),
        true,
        "take a smaller loader package in `[loader]`",
    );
    add(
        "uki.efi by TFTP, blocks of 1468",
        weights.uki,
        Some(TFTP_BLOCKS * TFTP_BLOCK_FRAME),
        false,
        "clients that cannot count past block 65535 stop there: boot by UEFI HTTP or iPXE, or take modules out of the profile's `initrd_modules`",
    );
    add(
        "initrd in memory (packed and unpacked)",
        Some(weights.initrd + weights.initrd_unpacked),
        limits.initrd_ram,
        true,
        "take modules out of the profile's `initrd_modules`, or raise `limits.initrd_ram` if the machines have the memory",
    );
    add(
        "uki.efi as one program",
        weights.uki,
        Some(limits.pe.unwrap_or(PE_LIMIT).min(PE_LIMIT)),
        true,
        "take a smaller kernel package in `[kernel]`, or modules out of the profile's `initrd_modules`",
    );
    // Old and new at once for each slot: that is what an upgrade needs.
    let esp = weights.uki.zip(weights.loader).map(|(uki, loader)| 3 * uki + loader);
    add(
        "EFI system partition (three uki.efi and the loader)",
        esp,
        limits.esp,
        true,
        "take a smaller kernel package in `[kernel]`, or raise `limits.esp` if the machines' partition is larger",
    );
    // The file itself, and what it unpacks beside itself.
    let onie = weights.installer.map(|agent| 2 * (weights.bundle + agent));
    add(
        "ONIE installer in memory (packed and unpacked)",
        onie,
        limits.onie_tmpfs,
        true,
        "take functions out of the image, or take \"onie\" out of `outputs`",
    );
    all
}

impl Weights {
    /// What a set weighs, by its manifest and the bytes of its initrd.
    ///
    /// # Errors
    /// The initrd is not zstd.
    pub fn of(manifest: &Manifest, initrd: &[u8]) -> std::io::Result<Self> {
        let size = |name: &str| manifest.parts.iter().find(|(n, _)| n.as_str() == name).map(|(_, p)| p.size);
        let by_tftp = ["loader/ipxe.efi", "loader/undionly.kpxe"];
        Ok(Self {
            initrd: initrd.len() as u64,
            initrd_unpacked: unpacked(initrd)?,
            uki: size(UKI_PART),
            loader: size(LOADER_PART),
            installer: size(INSTALLER_PART),
            tftp_loader: by_tftp.into_iter().filter_map(size).max().unwrap_or(0),
            bundle: manifest.parts.values().map(|part| part.size.next_multiple_of(512) + 512).sum(),
        })
    }
}

/// How many bytes a zstd frame unpacks to, counted and not kept.
fn unpacked(bytes: &[u8]) -> std::io::Result<u64> {
    std::io::copy(&mut zstd::Decoder::new(bytes)?, &mut std::io::sink())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: Weights = Weights {
        initrd: 10,
        initrd_unpacked: 30,
        uki: Some(100),
        loader: Some(7),
        installer: Some(5),
        tftp_loader: 1,
        bundle: 1000,
    };

    #[test]
    fn each_budget_is_kept_at_its_limit_and_broken_one_byte_above() {
        let exact = Limits { initrd_ram: Some(40), esp: Some(307), pe: Some(100), onie_tmpfs: Some(2010) };
        assert!(budgets(&WEIGHTS, &exact).iter().all(Budget::fits));
        let less = |n: Option<u64>| n.map(|n| n - 1);
        let tight = Limits {
            initrd_ram: less(exact.initrd_ram),
            esp: less(exact.esp),
            pe: less(exact.pe),
            onie_tmpfs: less(exact.onie_tmpfs),
        };
        let broken: Vec<_> = budgets(&WEIGHTS, &tight).into_iter().filter(|b| !b.fits()).collect();
        assert_eq!(broken.len(), 4);
        assert!(broken.iter().all(|b| b.hard && !b.remedy.is_empty()));
    }

    #[test]
    fn what_a_client_that_cannot_wrap_would_never_get_is_told() {
        let at = |uki, loader| {
            let weights = Weights { uki: Some(uki), tftp_loader: loader, ..WEIGHTS };
            budgets(&weights, &Limits::default()).into_iter().filter(|b| !b.fits()).collect::<Vec<_>>()
        };
        assert!(at(65_535 * 1468, 65_535 * 512).is_empty());
        assert!(matches!(at(65_535 * 1468 + 1, 0)[..], [Budget { hard: false, .. }]));
        assert!(matches!(at(0, 65_535 * 512 + 1)[..], [Budget { hard: true, .. }]));
        assert!(at(2 << 30, 0).iter().any(|b| b.hard && b.name.starts_with("uki.efi as one")));
    }

    #[test]
    fn what_a_set_does_not_have_has_no_budget() {
        let weights = Weights { uki: None, loader: None, installer: None, ..WEIGHTS };
        assert_eq!(budgets(&weights, &Limits::default()).len(), 1);
        assert!(budgets(&Weights { tftp_loader: 0, ..weights }, &Limits::default()).is_empty());
    }
}

//! One machine: its files and QEMU's arguments.

use std::fs;
use std::path::Path;

use kiln_model::Arch;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::files::Files;
use crate::network;
use crate::nvram;
use crate::tools;
use crate::topology::{Firmware, MachineTopology};

/// Who executes the machines' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    /// The name that QEMU and people use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The variables' file within a machine's folder.
const VARS: &str = "vars.fd";
/// The monitor's socket within a machine's folder.
pub const MONITOR: &str = "qmp.sock";
/// The serial console's log within a machine's folder.
const CONSOLE: &str = "console.log";

/// How long firmware waits before it boots, so that it is sure of its link-local address: OVMF does not wait for
/// that by itself, and gives HTTP boot over IPv6 up at once. Other boot methods, tried before, hide that.
const LINK_LOCAL_MS: u32 = 5000;

/// The disk within a machine's folder.
const DISK: &str = "disk.raw";

/// Makes the machine's folder. The firmware's variables and the disk are kept for as long as the lab is up,
/// like those of a real box.
pub fn prepare(files: &Files, machine: &MachineTopology) -> Result<(), LabError> {
    let dir = files.machine(machine.name.as_str());
    fs::create_dir_all(&dir).map_err(LabError::file("create", &dir))?;
    if machine.firmware.is_uefi() {
        prepare_variables(machine, &dir.join(VARS))?;
    }
    let Some(disk) = &machine.disk else { return Ok(()) };
    let file = dir.join(DISK);
    if let Some(image) = &disk.image {
        return copy(image, &file);
    }
    let bytes = u64::from(disk.size_mib.unwrap_or_default()) << 20;
    let blank = fs::File::create(&file).and_then(|file| file.set_len(bytes));
    blank.map_err(LabError::file("make the disk", &file))
}

fn prepare_variables(machine: &MachineTopology, to: &Path) -> Result<(), LabError> {
    let empty = Path::new(tools::uefi(machine).vars);
    match &machine.secure_boot {
        Some(keys) if keys.is_dir() => {
            let variables = fs::read(empty).map_err(LabError::file("read", empty))?;
            let enrolled = nvram::enroll(&variables, keys);
            let enrolled = enrolled.map_err(LabError::file("make Secure Boot trust the keys in", keys))?;
            fs::write(to, enrolled).map_err(LabError::file("write", to))
        }
        Some(variables) => copy(variables, to),
        None => copy(machine.nvram.as_deref().unwrap_or(empty), to),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    fs::copy(from, to).map(drop).map_err(LabError::file("copy", from))
}

/// QEMU's arguments for machine number `number`. Paths are relative to the machine's folder, where it
/// is started: a socket's path must be short (unix(7)).
pub fn arguments(accel: Accel, number: usize, machine: &MachineTopology) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    add("-name", machine.name.to_string());
    for (flag, value) in board(accel, machine) {
        add(flag, value);
    }
    add("-m", machine.memory_mib.to_string());
    add("-display", "none".to_owned());
    add("-nodefaults", String::new());
    add("-chardev", format!("file,id=console,path={CONSOLE},append=on"));
    add("-serial", "chardev:console".to_owned());
    add("-qmp", format!("unix:{MONITOR},server=on,wait=off"));
    add("-object", "rng-builtin,id=rng".to_owned());
    add("-device", "virtio-rng-pci,rng=rng,romfile=".to_owned());
    let smbios: String = machine.smbios().map(|(name, text)| format!(",{name}={}", escaped(text))).collect();
    if !smbios.is_empty() {
        add("-smbios", format!("type=1{smbios}"));
    }
    if machine.firmware.is_uefi() {
        add("-drive", pflash(0, tools::uefi(machine).code, ",readonly=on"));
        add("-drive", pflash(1, VARS, ""));
    }
    if let Some(linux) = &machine.linux {
        add("-kernel", linux.kernel.display().to_string());
        add("-initrd", linux.initrd.display().to_string());
        add("-append", linux.cmdline.clone());
    }
    if machine.disk.is_some() {
        // Nothing is flushed: what a host's crash loses of a lab is lost with the lab.
        add("-drive", format!("if=none,id=disk,format=raw,file={DISK},cache=unsafe,discard=unmap"));
        let first = u8::from(machine.firmware != Firmware::Disk || machine.linux.is_some());
        add("-device", format!("virtio-blk-pci,drive=disk,serial={}-disk,bootindex={first}", machine.name));
    }
    for nic in 0..=machine.links.len() {
        add(
            "-netdev",
            format!("tap,id=net{nic},ifname={},script=no,downscript=no", network::tap(number, nic)),
        );
        add("-device", nic_device(machine, nic));
    }
    args.retain(|arg| !arg.is_empty());
    args
}

/// Main board, processor, and what its firmware is told.
fn board(accel: Accel, machine: &MachineTopology) -> Vec<(&'static str, String)> {
    let mut board = match machine.arch {
        Arch::X86_64 => {
            // Secure variables are written in system management mode only.
            let smm = if machine.secure_boot.is_some() { ",smm=on" } else { "" };
            vec![("-machine", format!("q35,accel={}{smm}", accel.as_str())), ("-cpu", "max".to_owned())]
        }
        // `max` spends most of its time on pointer authentication.
        Arch::Arm64 => {
            vec![("-machine", "virt,accel=tcg".to_owned()), ("-cpu", "cortex-a72".to_owned())]
        }
    };
    if machine.secure_boot.is_some() {
        board.push(("-global", "driver=cfi.pflash01,property=secure,value=on".to_owned()));
        board.push(("-global", "ICH9-LPC.disable_s3=1".to_owned()));
    }
    // Else it tries PXE over IPv4 and IPv6 first, for minutes; and IPv4 before IPv6.
    let http = machine.firmware.is_http().then_some(["IPv4PXESupport", "IPv6PXESupport"]);
    let only_ipv6 = machine.firmware.is_only_ipv6().then_some("IPv4Support");
    for driver in http.into_iter().flatten().chain(only_ipv6) {
        board.push(("-fw_cfg", format!("name=opt/org.tianocore/{driver},string=no")));
    }
    if machine.firmware.is_only_ipv6() {
        board.push(("-boot", format!("menu=on,splash-time={LINK_LOCAL_MS}")));
    }
    board
}

/// QEMU splits options at commas, and takes two for one.
fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

fn pflash(unit: u8, file: &str, more: &str) -> String {
    format!("if=pflash,format=raw,unit={unit},file={file}{more}")
}

/// UEFI has a driver for the card; SeaBIOS boots through the ROM that the card brings by default. A kernel given to
/// QEMU is the first in the firmware's order, which no card may be then.
fn nic_device(machine: &MachineTopology, nic: usize) -> String {
    let rom = if machine.firmware == Firmware::Bios && nic == 0 { "" } else { ",romfile=" };
    let first = nic == 0 && machine.firmware != Firmware::Disk && machine.linux.is_none();
    let boot = if first { ",bootindex=0" } else { "" };
    format!("virtio-net-pci,netdev=net{nic},mac={}{rom}{boot}", machine.nic_mac(nic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    /// The arguments of r2 of the edge pair, when its topology has another line.
    fn with(line: &str) -> String {
        let text = Topology::EDGE_PAIR.replace("links =", &format!("{line}\nlinks ="));
        let topology = Topology::parse("t", &text).expect("valid");
        arguments(Accel::Kvm, 1, &topology.machines[1]).join(" ")
    }

    #[test]
    fn a_machine_boots_from_its_first_card_and_may_reboot() {
        let args = with("");
        assert!(args.contains("q35,accel=kvm -cpu max"), "{args}");
        assert!(args.contains("netdev=net0,mac=52:54:00:77:00:12,romfile=,bootindex=0"), "{args}");
        assert!(args.contains("ifname=tap1-1"), "{args}");
        assert!(args.contains("unit=0,file=/usr/share/OVMF/OVMF_CODE_4M.fd,readonly=on"), "{args}");
        assert!(!args.contains("-no-reboot") && !args.contains("PXESupport"), "{args}");
    }

    #[test]
    fn a_bios_machine_has_a_boot_rom_and_no_flash() {
        let args = with("firmware = \"bios\"");
        assert!(!args.contains("pflash"), "{args}");
        assert!(args.contains("mac=52:54:00:77:00:12,bootindex=0"), "{args}");
        assert!(args.contains("mac=52:54:00:77:01:12,romfile="), "{args}");
    }

    #[test]
    fn http_boot_does_not_wait_for_pxe() {
        let args = with("firmware = \"uefi-http\"");
        assert!(args.contains("opt/org.tianocore/IPv4PXESupport,string=no"), "{args}");
        assert!(args.contains("opt/org.tianocore/IPv6PXESupport,string=no"), "{args}");
        assert!(!args.contains("IPv4Support"), "{args}");
    }

    #[test]
    fn firmware_that_boots_over_ipv6_knows_no_ipv4() {
        let args = with("firmware = \"uefi-http6\"");
        assert!(args.contains("IPv6PXESupport") && args.contains("IPv4Support,string=no"), "{args}");
        let args = with("firmware = \"uefi-pxe6\"");
        assert!(!args.contains("PXESupport") && args.contains("IPv4Support,string=no"), "{args}");
        assert!(args.contains("-boot menu=on,splash-time=5000"), "{args}");
    }

    #[test]
    fn a_disk_machine_asks_no_network_and_others_boot_their_disk_last() {
        let args = with("firmware = \"disk\"\ndisk = { size_mib = 64 }");
        assert!(args.contains("virtio-blk-pci,drive=disk,serial=r2-disk,bootindex=0"), "{args}");
        assert!(args.contains("mac=52:54:00:77:00:12,romfile= "), "{args}");
        let args = with("disk = { size_mib = 64 }");
        assert!(args.contains("drive=disk,serial=r2-disk,bootindex=1"), "{args}");
    }

    #[test]
    fn an_arm_machine_is_translated_and_has_its_own_firmware() {
        let args = with("arch = \"arm64\"");
        assert!(args.contains("virt,accel=tcg -cpu cortex-a72"), "{args}");
        assert!(args.contains("/usr/share/AAVMF/AAVMF_CODE.fd"), "{args}");
    }

    #[test]
    fn secure_boot_has_its_own_firmware_and_guards_its_variables() {
        let args = with("secure_boot = \"keys.fd\"");
        assert!(args.contains("smm=on") && args.contains("OVMF_CODE_4M.secboot.fd"), "{args}");
        assert!(args.contains("property=secure,value=on"), "{args}");
    }

    #[test]
    fn a_kernel_in_flash_is_started_with_files_beside_the_topology() {
        let text = "linux = { kernel = \"k\", initrd = \"i\", cmdline = \"a b\" }\nlinks =";
        let topology =
            Topology::parse("/lab/t.toml", &Topology::EDGE_PAIR.replace("links =", text)).expect("valid");
        let args = arguments(Accel::Tcg, 0, &topology.machines[0]);
        let words = ["-kernel", "/lab/k", "-initrd", "/lab/i", "-append", "a b"];
        assert!(args.windows(6).any(|window| window == words), "{args:?}");
        // QEMU gives the kernel the first place itself, and ends when a card asks for it, too.
        assert!(!args.iter().any(|word| word.contains("bootindex=0")), "{args:?}");
    }

    #[test]
    fn a_comma_in_a_text_adds_no_option() {
        let args = with("vendor = \"Dell Inc.\"\nproduct = \"R,uuid=1\"\nserial = \"S1\"");
        assert!(args.contains("-smbios type=1,manufacturer=Dell Inc.,product=R,,uuid=1,serial=S1"), "{args}");
    }

    #[test]
    fn a_blank_disk_has_its_size_and_an_image_is_copied() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("image.raw"), "bytes").expect("written");
        for (disk, length) in [("size_mib = 16", 16 << 20), ("image = \"image.raw\"", 5)] {
            let text = Topology::EDGE_PAIR.replacen("links =", &format!("disk = {{ {disk} }}\nlinks ="), 1);
            let file = dir.path().join("t.toml").display().to_string();
            let topology = Topology::parse(&file, &text).expect("valid");
            let files = Files::of(&dir.path().join("lab"));
            prepare(&files, &topology.machines[0]).expect("prepared");
            let made = fs::metadata(files.machine("r1").join(DISK)).expect("a disk");
            assert_eq!(made.len(), length, "{disk}");
        }
    }
}

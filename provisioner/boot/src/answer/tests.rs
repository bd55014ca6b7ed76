//! Which firmware gets what.
use kiln_model::{Arch, ImageId, Sha256};

use super::*;

const PXE: Program = Program::Pxe;
const HTTP: Program = Program::HttpBoot;

fn client(program: Program, architectures: &[u16]) -> Client {
    Client { mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]), program, architectures: architectures.to_vec() }
}

fn loader(folder: &str, name: &str) -> Option<Loader> {
    Some(Loader { file: format!("{folder}/00/{name}"), path: format!("boot/{folder}/00/{name}") })
}

fn loaders() -> Loaders {
    let ipxe = |name| loader("loader", name);
    Loaders { bios: ipxe("undionly.kpxe"), efi_x64: ipxe("x64.efi"), efi_arm64: ipxe("arm64.efi") }
}

fn bootable(arch: Arch, uki: bool) -> Bootable {
    let id = ImageId(Sha256::of(b"2"));
    let image = ImageRef { name: "edge".parse().unwrap(), version: "2".parse().unwrap(), arch, id };
    Bootable { image, uki: loader("uki", &format!("{arch}.efi")).filter(|_| uki), installer: uki }
}

/// A machine of the fleet, and what there is for it.
struct Given {
    loaders: Loaders,
    images: Vec<Bootable>,
    choice: LoaderChoice,
    closed: Option<&'static str>,
    known: bool,
    ztp: Vec<ZtpOffer>,
}

fn given(uki: bool, choice: LoaderChoice) -> Given {
    Given {
        loaders: loaders(),
        images: vec![bootable(Arch::X86_64, uki), bootable(Arch::Arm64, uki)],
        choice,
        closed: None,
        known: true,
        ztp: Vec::new(),
    }
}

fn shown(client: &Client, given: &Given) -> String {
    let name: MachineName = "r1".parse().unwrap();
    let standing = Standing { name: &name, loader: given.choice, install_closed: given.closed };
    let menu = Menu {
        server: "http://s",
        loaders: &given.loaders,
        images: &given.images,
        machine: given.known.then_some(standing),
        ztp: &given.ztp,
    };
    match answer(client, &menu) {
        BootAnswer::Loader { file, .. } => format!("tftp {file}"),
        BootAnswer::Http { url, .. } => format!("http {url}"),
        BootAnswer::Script { url, .. } => format!("script {url}"),
        BootAnswer::Agent { url, .. } => format!("agent {url}"),
        BootAnswer::Installer { url, .. } => format!("installer {url}"),
        BootAnswer::Ztp { url, .. } => format!("ztp {url}"),
        BootAnswer::Nothing { because, .. } => format!("nothing: {because}"),
    }
}

#[test]
fn each_firmware_gets_what_it_can_run() {
    for (program, architectures, ipxe, with_uki) in [
        (PXE, &[0][..], "tftp loader/00/undionly.kpxe", ""),
        (PXE, &[], "tftp loader/00/undionly.kpxe", ""),
        (PXE, &[7], "tftp loader/00/x64.efi", ""),
        (PXE, &[9], "tftp loader/00/x64.efi", ""),
        (PXE, &[11], "tftp loader/00/arm64.efi", ""),
        (PXE, &[6, 7], "tftp loader/00/x64.efi", ""),
        (HTTP, &[16], "http http://s/boot/loader/00/x64.efi", "http http://s/boot/uki/00/x86_64.efi"),
        (HTTP, &[17], "http http://s/boot/loader/00/x64.efi", "http http://s/boot/uki/00/x86_64.efi"),
        (HTTP, &[19], "http http://s/boot/loader/00/arm64.efi", "http http://s/boot/uki/00/arm64.efi"),
        (HTTP, &[15, 16], "http http://s/boot/loader/00/x64.efi", "http http://s/boot/uki/00/x86_64.efi"),
    ] {
        let client = client(program, architectures);
        assert_eq!(shown(&client, &given(false, LoaderChoice::Auto)), ipxe, "{program:?} {architectures:?}");
        let with_uki = if with_uki.is_empty() { ipxe } else { with_uki };
        assert_eq!(
            shown(&client, &given(true, LoaderChoice::Auto)),
            with_uki,
            "{program:?} {architectures:?}"
        );
    }
}

#[test]
fn fleet_toml_chooses_between_ipxe_and_uki() {
    let (pxe, http) = (client(PXE, &[7]), client(HTTP, &[16]));
    let by = |client, choice, uki| shown(client, &given(uki, choice));
    assert_eq!(by(&http, LoaderChoice::Ipxe, true), "http http://s/boot/loader/00/x64.efi");
    assert_eq!(by(&pxe, LoaderChoice::Uki, true), "tftp uki/00/x86_64.efi");
    assert!(by(&pxe, LoaderChoice::Uki, false).contains("its image has no UKI"));
    let bios = by(&client(PXE, &[0]), LoaderChoice::Uki, true);
    assert!(bios.contains("it cannot start a UKI"), "{bios}");
    // Without iPXE the UKI goes by TFTP.
    let without = Given { loaders: Loaders::default(), ..given(true, LoaderChoice::Auto) };
    assert_eq!(shown(&pxe, &without), "tftp uki/00/x86_64.efi");
}

#[test]
fn a_machine_whose_image_is_for_another_processor_is_told_so() {
    let x86_only = Given { images: vec![bootable(Arch::X86_64, true)], ..given(true, LoaderChoice::Auto) };
    for (program, code) in [(PXE, 11), (HTTP, 19)] {
        let answer = shown(&client(program, &[code]), &x86_only);
        assert!(answer.contains("r1 should boot edge 2, which is published for x86_64 only"), "{answer}");
    }
    // A stranger gets iPXE, which says on the screen that it is one; so does a machine without an image.
    let stranger = Given { known: false, ..x86_only };
    assert_eq!(shown(&client(PXE, &[11]), &stranger), "tftp loader/00/arm64.efi");
    let nothing = Given { images: Vec::new(), ..given(false, LoaderChoice::Auto) };
    assert_eq!(shown(&client(PXE, &[11]), &nothing), "tftp loader/00/arm64.efi");
}

#[test]
fn ipxe_gets_its_script_whatever_else_it_says_and_the_agent_its_url() {
    let url = "script http://s/boot/ipxe?mac=52:54:00:00:00:01&arch=${buildarch}";
    for architectures in [&[][..], &[0], &[7], &[999]] {
        let answer = shown(&client(Program::Ipxe, architectures), &given(true, LoaderChoice::Uki));
        assert!(answer.starts_with(url), "{answer}");
    }
    let agent = client(Program::Agent, &[16]);
    assert_eq!(shown(&agent, &given(true, LoaderChoice::Auto)), "agent http://s/boot/agent");
}

#[test]
fn onie_is_installed_while_that_is_open_and_never_by_accident() {
    let onie = client(Program::Onie, &[]);
    let open = given(true, LoaderChoice::Auto);
    assert_eq!(shown(&onie, &open), "installer http://s/onie-installer");
    let closed = Given { closed: Some("it runs edge 2 from its disk"), ..given(true, LoaderChoice::Auto) };
    assert!(shown(&onie, &closed).contains("the install of r1 is not open: it runs edge 2 from its disk"));
    let stranger = Given { known: false, ..given(true, LoaderChoice::Auto) };
    assert!(shown(&onie, &stranger).contains("nobody has accepted this machine"));
    assert!(shown(&onie, &given(false, LoaderChoice::Auto)).contains("kiln publish BUNDLE --with onie"));
}

#[test]
fn a_switchs_own_system_gets_its_script() {
    let offer = |system, json| ZtpOffer { system, json };
    let ztp = vec![offer(ZtpSystem::Sonic, true), offer(ZtpSystem::Cumulus, false)];
    let scripts = Given { ztp, ..given(false, LoaderChoice::Auto) };
    let (sonic, cumulus) =
        (client(Program::Ztp(ZtpSystem::Sonic), &[]), client(Program::Ztp(ZtpSystem::Cumulus), &[]));
    assert_eq!(shown(&sonic, &scripts), "ztp http://s/ztp/sonic.json");
    assert_eq!(shown(&cumulus, &scripts), "ztp http://s/ztp/cumulus.sh");
    assert!(shown(&cumulus, &given(false, LoaderChoice::Auto)).contains("no [[ztp]] script"));
}

#[test]
fn who_cannot_be_booted_is_told_why() {
    for (program, architectures, why) in [
        (Program::Other, &[7][..], "no firmware asks"),
        (Program::Other, &[], "no firmware asks"),
        (PXE, &[6], "which Kiln does not boot"),
        (HTTP, &[15], "which Kiln does not boot"),
        (HTTP, &[18], "which Kiln does not boot"),
        (PXE, &[999], "architecture 999 (option 93) is not known"),
        (PXE, &[16], "does not fit its vendor class"),
        (HTTP, &[7], "does not fit its vendor class"),
    ] {
        let answer = shown(&client(program, architectures), &given(true, LoaderChoice::Auto));
        assert!(answer.starts_with("nothing: ") && answer.contains(why), "{answer}");
    }
    let none = Given { loaders: Loaders::default(), ..given(false, LoaderChoice::Auto) };
    let none = shown(&client(PXE, &[11]), &none);
    assert!(none.contains("no published image has iPXE for UEFI arm64"), "{none}");
}

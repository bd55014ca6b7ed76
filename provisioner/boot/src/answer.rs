//! What a DHCP client is told to boot: one pure function for every firmware, [`answer()`].

use kiln_model::fleet::{LoaderChoice, ZtpSystem};
use kiln_model::manifest::ImageRef;
use kiln_model::{MacAddr, MachineName};

use crate::client::{Client, Program};
use crate::firmware::{Boots, Firmware, LoaderKind};
use crate::onie;

/// A file that firmware can start: a part of a verified image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// Its name in TFTP: `loader/<sha256>/ipxe.efi`.
    pub file: String,
    /// Its path in HTTP, without a leading `/`; it ends with `.efi`, by which UEFI knows what it is.
    pub path: String,
}

/// The boot loaders that there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaders {
    /// For BIOS.
    pub bios: Option<Loader>,
    /// For UEFI on x86-64.
    pub efi_x64: Option<Loader>,
    /// For UEFI on arm64.
    pub efi_arm64: Option<Loader>,
}

impl Loaders {
    /// The loader of a kind.
    pub fn get(&self, kind: LoaderKind) -> Option<&Loader> {
        match kind {
            LoaderKind::Bios => self.bios.as_ref(),
            LoaderKind::EfiX64 => self.efi_x64.as_ref(),
            LoaderKind::EfiArm64 => self.efi_arm64.as_ref(),
        }
    }
}

/// An image that could be booted, as firmware sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootable {
    /// Which.
    pub image: ImageRef,
    /// Kernel, initrd and command line in one file, when the image has that.
    pub uki: Option<Loader>,
    /// Whether an ONIE installer of it is published.
    pub installer: bool,
}

/// Everything that a client's answer is chosen from.
#[derive(Debug, Clone, Copy)]
pub struct Menu<'a> {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: &'a str,
    /// iPXE, for every firmware that there is one for.
    pub loaders: &'a Loaders,
    /// The image that the machine should boot now, once for each architecture that it is published for.
    /// For a machine that is not in the fleet: the discovery image. Empty when there is none.
    pub images: &'a [Bootable],
    /// What `fleet.toml` says of the machine; none when it is not in it.
    pub machine: Option<Standing<'a>>,
    /// The operating systems that there is a first-boot script for, for this machine.
    pub ztp: &'a [ZtpOffer],
}

/// What bears on the answer of a machine of the fleet.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its name.
    pub name: &'a MachineName,
    /// What its firmware starts.
    pub loader: LoaderChoice,
    /// Why it must not be installed; none while its install is open.
    pub install_closed: Option<&'a str>,
}

/// A first-boot script that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZtpOffer {
    /// For which operating system.
    pub system: ZtpSystem,
    /// Whether it is a JSON document, which only SONiC takes.
    pub json: bool,
}

/// What a client is told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootAnswer {
    /// A boot loader by TFTP.
    Loader {
        /// Its name.
        file: String,
        /// Why this one.
        because: String,
    },
    /// A boot loader by HTTP.
    Http {
        /// Its URL.
        url: String,
        /// Why this one.
        because: String,
    },
    /// iPXE runs already: its boot script.
    Script {
        /// Its URL. iPXE expands the `${…}` in it.
        url: String,
        /// Why.
        because: String,
    },
    /// Our stage 0 runs already: where it asks for its words.
    Agent {
        /// The URL.
        url: String,
        /// Why.
        because: String,
    },
    /// An installer for ONIE.
    Installer {
        /// Its URL.
        url: String,
        /// Why.
        because: String,
    },
    /// A first-boot script for an operating system that is not ours.
    Ztp {
        /// Its URL; that of a JSON document ends with `.json`.
        url: String,
        /// Why.
        because: String,
    },
    /// An address and nothing to boot.
    Nothing {
        /// Why.
        because: String,
        /// Whether the client asked for something to boot: then a person should know.
        asked: bool,
    },
}

impl BootAnswer {
    /// Why this answer.
    pub fn because(&self) -> &str {
        match self {
            Self::Loader { because, .. }
            | Self::Http { because, .. }
            | Self::Script { because, .. }
            | Self::Agent { because, .. }
            | Self::Installer { because, .. }
            | Self::Ztp { because, .. }
            | Self::Nothing { because, .. } => because,
        }
    }

    /// The file's name or URL; none to send none. In which options it goes to which client is `kiln-dhcp`'s
    /// business.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Loader { file, .. } => Some(file),
            Self::Http { url, .. }
            | Self::Script { url, .. }
            | Self::Agent { url, .. }
            | Self::Installer { url, .. }
            | Self::Ztp { url, .. } => Some(url),
            Self::Nothing { .. } => None,
        }
    }
}

/// What `client` is told to boot.
///
/// A machine that is not in the fleet gets as far as iPXE and a script that says on its screen that it is
/// unknown, or boots the discovery image.
pub fn answer(client: &Client, menu: &Menu<'_>) -> BootAnswer {
    match client.program {
        Program::Ipxe => BootAnswer::Script {
            url: script_url(menu.server, client.mac),
            because: "iPXE asks (user class, option 77): it gets the script".to_owned(),
        },
        Program::Agent => BootAnswer::Agent {
            url: format!("{}/boot/agent", menu.server),
            because: "Kiln's agent asks (vendor class, option 60): it is told where to ask for its boot"
                .to_owned(),
        },
        Program::Onie => installer(menu),
        Program::Ztp(system) => ztp(system, menu),
        Program::Pxe => firmware(client, false, menu),
        Program::HttpBoot => firmware(client, true, menu),
        Program::Other => BootAnswer::Nothing {
            because: "no firmware asks: the vendor class (option 60) is of nothing that boots".to_owned(),
            asked: false,
        },
    }
}

/// The URL of a machine's boot script; iPXE fills in what it knows of the box.
pub fn script_url(server: &str, mac: MacAddr) -> String {
    format!(
        "{server}/boot/ipxe?mac={mac}&arch=${{buildarch}}&uuid=${{uuid}}&serial=${{serial:uristring}}&asset=${{asset:uristring}}"
    )
}

/// A firmware that boots more than one way lists the best first.
fn firmware(client: &Client, http: bool, menu: &Menu<'_>) -> BootAnswer {
    let mut refusals = Vec::new();
    // PXE 2.1 wants option 93; a BIOS that leaves it out is older than UEFI.
    let codes = if client.architectures.is_empty() { &[0][..] } else { &client.architectures };
    for code in codes {
        match loader_for(*code, http, menu) {
            Ok(answer) => return answer,
            Err(refusal) => refusals.push(refusal),
        }
    }
    BootAnswer::Nothing { because: refusals.join("; "), asked: true }
}

fn loader_for(code: u16, http: bool, menu: &Menu<'_>) -> Result<BootAnswer, String> {
    let firmware =
        Firmware::of(code).ok_or_else(|| format!("architecture {code} (option 93) is not known to Kiln"))?;
    let of = format!("architecture {code} (option 93) is {}", firmware.name);
    let (kind, by_http) = match firmware.boots {
        Boots::Tftp(kind) => (kind, false),
        Boots::Http(kind) => (kind, true),
        Boots::Not => return Err(format!("{of}, which Kiln does not boot")),
    };
    if by_http != http {
        return Err(format!("{of}, which does not fit its vendor class (option 60)"));
    }
    let image = image_for(kind, menu).map_err(|why| format!("{of}, and {why}"))?;
    let (loader, what) = choose(kind, http, image, menu).map_err(|why| format!("{of}, and {why}"))?;
    let because = format!("{of}: it gets {what}");
    Ok(if http {
        BootAnswer::Http { url: format!("{}/{}", menu.server, loader.path), because }
    } else {
        BootAnswer::Loader { file: loader.file.clone(), because }
    })
}

/// The image for this processor. A machine without any image still gets iPXE, which shows why on the screen.
fn image_for<'a>(kind: LoaderKind, menu: &Menu<'a>) -> Result<Option<&'a Bootable>, String> {
    let fits = menu.images.iter().find(|bootable| bootable.image.arch == kind.arch());
    match (fits, menu.images.first(), menu.machine) {
        (None, Some(other), Some(machine)) => Err(format!(
            "{} should boot {}, which is published for {} only",
            machine.name, other.image, other.image.arch
        )),
        _ => Ok(fits),
    }
}

fn choose<'a>(
    kind: LoaderKind,
    http: bool,
    image: Option<&'a Bootable>,
    menu: &Menu<'a>,
) -> Result<(&'a Loader, String), String> {
    let ipxe = menu.loaders.get(kind).map(|loader| (loader, kind.as_str().to_owned()));
    let uki = image.filter(|_| kind != LoaderKind::Bios).and_then(|bootable| {
        let uki = bootable.uki.as_ref()?;
        Some((uki, format!("the UKI of {}", bootable.image)))
    });
    let choice = menu.machine.map(|machine| machine.loader).unwrap_or_default();
    let chosen = match choice {
        LoaderChoice::Auto if http => uki.or(ipxe),
        LoaderChoice::Auto => ipxe.or(uki),
        LoaderChoice::Ipxe => ipxe,
        LoaderChoice::Uki => uki,
    };
    chosen.ok_or_else(|| match choice {
        LoaderChoice::Uki if kind == LoaderKind::Bios => {
            "it cannot start a UKI, which `loader = \"uki\"` in fleet.toml wants".to_owned()
        }
        LoaderChoice::Uki => "its image has no UKI, which `loader = \"uki\"` in fleet.toml wants".to_owned(),
        _ => format!("no published image has {}", kind.as_str()),
    })
}

fn installer(menu: &Menu<'_>) -> BootAnswer {
    let nothing = |because: String| BootAnswer::Nothing { because, asked: true };
    let Some(machine) = menu.machine else {
        return nothing(
            "ONIE asks, and nobody has accepted this machine: it is installed with nothing".to_owned(),
        );
    };
    if let Some(why) = machine.install_closed {
        return nothing(format!("ONIE asks, and the install of {} is not open: {why}", machine.name));
    }
    match menu.images.iter().find(|bootable| bootable.installer) {
        Some(bootable) => BootAnswer::Installer {
            url: onie::url(menu.server),
            because: format!("ONIE asks, and the install of {} is open: {}", machine.name, bootable.image),
        },
        None => nothing(match menu.images.first() {
            Some(bootable) => format!(
                "ONIE asks, and {} has no ONIE installer: publish it with `kiln publish BUNDLE --with onie`",
                bootable.image
            ),
            None => format!("ONIE asks, and no image is wanted on {}", machine.name),
        }),
    }
}

fn ztp(system: ZtpSystem, menu: &Menu<'_>) -> BootAnswer {
    let name = system.as_str();
    match menu.ztp.iter().find(|offer| offer.system == system) {
        Some(offer) => BootAnswer::Ztp {
            url: format!("{}/ztp/{name}{}", menu.server, if offer.json { ".json" } else { ".sh" }),
            because: format!("{name} comes up for the first time: it gets its script"),
        },
        None => BootAnswer::Nothing {
            because: format!(
                "{name} comes up for the first time, and fleet.toml has no [[ztp]] script for it"
            ),
            asked: true,
        },
    }
}

#[cfg(test)]
#[path = "answer/tests.rs"]
mod tests;

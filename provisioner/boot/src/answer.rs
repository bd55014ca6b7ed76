//! What a DHCP client is told to boot.

use kiln_model::MacAddr;

use crate::firmware::{Boots, Firmware, LoaderKind};

/// What a client's DHCP packet says about its firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Who asks (`chaddr`).
    pub mac: MacAddr,
    /// Option 93, every architecture in its order; empty when the option is not there.
    pub architectures: Vec<u16>,
    /// Option 77, as sent. iPXE sends the bare text `iPXE` (not RFC 3004).
    pub user_class: Vec<u8>,
    /// Option 60, as sent, such as `PXEClient:Arch:00007:UNDI:003016`.
    pub vendor_class: Vec<u8>,
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

/// One boot loader, a verified part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// Its name in TFTP: `loader/<sha256>/ipxe.efi`.
    pub file: String,
    /// Its path in HTTP, without a leading `/`; it ends with `.efi`, by which UEFI knows what it is.
    pub path: String,
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

/// What a client is told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootAnswer {
    /// A boot loader by TFTP: option 67 and the `file` field.
    Loader {
        /// Its name.
        file: String,
        /// Why this one.
        because: String,
    },
    /// A boot loader by HTTP: the same fields, with option 60 = `HTTPClient` in the answer.
    Http {
        /// Its URL.
        url: String,
        /// Why this one.
        because: String,
    },
    /// iPXE runs already: its boot script.
    Script {
        /// Its URL. iPXE expands the `${…}` in it. Too long for the `file` field: option 67 only.
        url: String,
        /// Why.
        because: String,
    },
    /// An address and nothing to boot.
    Nothing {
        /// Why.
        because: String,
    },
}

impl BootAnswer {
    /// Why this answer.
    pub fn because(&self) -> &str {
        match self {
            Self::Loader { because, .. }
            | Self::Http { because, .. }
            | Self::Script { because, .. }
            | Self::Nothing { because } => because,
        }
    }
}

/// What `client` is told to boot. `server` is the URL of the boot HTTP server without a trailing `/`.
///
/// It does not depend on the machine: an unknown one gets as far as a script that says on its screen
/// that it is unknown.
pub fn answer(client: &Client, loaders: &Loaders, server: &str) -> BootAnswer {
    if client.user_class == b"iPXE" {
        return BootAnswer::Script {
            url: script_url(server, client.mac),
            because: "iPXE asks (user class, option 77): it gets the script".to_owned(),
        };
    }
    if !client.vendor_class.starts_with(b"PXEClient") && !client.vendor_class.starts_with(b"HTTPClient") {
        return BootAnswer::Nothing {
            because: "no firmware asks: the vendor class (option 60) is neither PXEClient nor HTTPClient"
                .to_owned(),
        };
    }
    let http = client.vendor_class.starts_with(b"HTTPClient");
    // A firmware that boots more than one way lists the best first.
    let mut refusals = Vec::new();
    for code in &client.architectures {
        match loader_for(*code, http, loaders, server) {
            Ok(answer) => return answer,
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() {
        // PXE 2.1 wants option 93; a BIOS that leaves it out is older than UEFI.
        return loader_for(0, http, loaders, server)
            .unwrap_or_else(|because| BootAnswer::Nothing { because });
    }
    BootAnswer::Nothing { because: refusals.join("; ") }
}

/// The URL of a machine's boot script; iPXE fills in what it knows of the box.
pub fn script_url(server: &str, mac: MacAddr) -> String {
    format!(
        "{server}/boot/ipxe?mac={mac}&arch=${{buildarch}}&uuid=${{uuid}}&serial=${{serial:uristring}}&asset=${{asset:uristring}}"
    )
}

fn loader_for(code: u16, http: bool, loaders: &Loaders, server: &str) -> Result<BootAnswer, String> {
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
    let Some(loader) = loaders.get(kind) else {
        return Err(format!("{of}, and no published image has {}", kind.as_str()));
    };
    let because = format!("{of}: it gets {}", kind.as_str());
    Ok(if http {
        BootAnswer::Http { url: format!("{server}/{}", loader.path), because }
    } else {
        BootAnswer::Loader { file: loader.file.clone(), because }
    })
}

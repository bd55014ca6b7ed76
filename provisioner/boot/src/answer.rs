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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firmware::TABLE;

    fn client(vendor: &str, user: &str, architectures: &[u16]) -> Client {
        Client {
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            architectures: architectures.to_vec(),
            user_class: user.into(),
            vendor_class: vendor.into(),
        }
    }

    fn loader(name: &str) -> Option<Loader> {
        Some(Loader { file: format!("loader/00/{name}"), path: format!("repository/{name}") })
    }

    fn loaders() -> Loaders {
        Loaders { bios: loader("undionly.kpxe"), efi_x64: loader("x64.efi"), efi_arm64: loader("arm64.efi") }
    }

    fn shown(client: &Client) -> String {
        match answer(client, &loaders(), "http://s") {
            BootAnswer::Loader { file, .. } => format!("tftp {file}"),
            BootAnswer::Http { url, .. } => format!("http {url}"),
            BootAnswer::Script { url, .. } => format!("script {url}"),
            BootAnswer::Nothing { because } => format!("nothing: {because}"),
        }
    }

    #[test]
    fn each_firmware_gets_what_it_can_run() {
        for (vendor, architectures, expected) in [
            ("PXEClient:Arch:00000:UNDI:002001", &[0][..], "tftp loader/00/undionly.kpxe"),
            ("PXEClient", &[], "tftp loader/00/undionly.kpxe"),
            ("PXEClient:Arch:00007:UNDI:003016", &[7], "tftp loader/00/x64.efi"),
            ("PXEClient", &[9], "tftp loader/00/x64.efi"),
            ("PXEClient", &[11], "tftp loader/00/arm64.efi"),
            ("PXEClient", &[6, 7], "tftp loader/00/x64.efi"),
            ("HTTPClient:Arch:00016", &[16], "http http://s/repository/x64.efi"),
            ("HTTPClient", &[19], "http http://s/repository/arm64.efi"),
        ] {
            assert_eq!(shown(&client(vendor, "", architectures)), expected, "{vendor} {architectures:?}");
        }
    }

    #[test]
    fn ipxe_gets_its_script_whatever_else_it_says() {
        let url = "script http://s/boot/ipxe?mac=52:54:00:00:00:01&arch=${buildarch}";
        for architectures in [&[][..], &[0], &[7], &[999]] {
            let answer = shown(&client("PXEClient", "iPXE", architectures));
            assert!(answer.starts_with(url), "{answer}");
        }
    }

    #[test]
    fn who_cannot_be_booted_is_told_why() {
        for (vendor, architectures, why) in [
            ("", &[7][..], "no firmware asks"),
            ("anaconda", &[], "no firmware asks"),
            ("PXEClient", &[6], "which Kiln does not boot"),
            ("PXEClient", &[999], "architecture 999 (option 93) is not known"),
            ("PXEClient", &[16], "does not fit its vendor class"),
            ("HTTPClient", &[7], "does not fit its vendor class"),
        ] {
            let answer = shown(&client(vendor, "", architectures));
            assert!(answer.starts_with("nothing: ") && answer.contains(why), "{answer}");
        }
        let none = answer(&client("PXEClient", "", &[11]), &Loaders::default(), "http://s");
        assert!(none.because().contains("no published image has iPXE for UEFI arm64"), "{none:?}");
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_is_repeated(
            vendor in any::<Vec<u8>>(), user in any::<Vec<u8>>(), codes in prop::collection::vec(0..50u16, 0..5)
        ) {
            let client = Client { vendor_class: vendor, user_class: user, ..client("", "", &codes) };
            let answer = shown(&client);
            let from_table = TABLE.iter().any(|row| answer.contains(row.name));
            let fixed = ["no firmware asks", "is not known", "tftp loader/00/", "http http://s/", "script http://s/"];
            prop_assert!(from_table || fixed.iter().any(|text| answer.contains(text)), "{}", answer);
        }
    }
}

//! What the boot script tells the box, on the kernel's command line (ARCHITECTURE.md, "Booting").

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_model::intent::Ipv4Cidr;
use kiln_model::{BootId, MacAddr, MachineName};
use serde::{Deserialize, Serialize};

/// The kernel's command line, as it is shown in `/proc`.
pub const PATH: &str = "/proc/cmdline";

/// What the boot script tells the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootParameters {
    /// Where the provisioner answers HTTP.
    pub server: SocketAddrV4,
    /// This boot's token.
    pub token: String,
    /// Who this machine is. It is believed only when a signed intent says the same.
    pub machine: MachineName,
    /// The interface the machine boots from.
    pub mac: MacAddr,
    /// Its address.
    pub address: Ipv4Cidr,
    /// The way to other networks.
    pub gateway: Option<Ipv4Addr>,
}

/// A command line that no boot script of ours has written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// A word is not there.
    #[error("the kernel command line has no `{0}=…`; this machine must be booted by `kiln serve`")]
    Missing(&'static str),
    /// A word is there twice with different values.
    #[error("the kernel command line has `{0}=…` twice")]
    Twice(&'static str),
    /// A word's value cannot be read.
    #[error("the kernel command line has `{key}={found}`: {why}")]
    Value {
        /// The word.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is wrong with it.
        why: String,
    },
}

/// How to speak to the provisioner in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Where it answers HTTP.
    pub server: SocketAddrV4,
    /// This boot's token.
    pub token: String,
    /// The interface the machine boots from.
    pub mac: MacAddr,
    /// Its address.
    pub address: Ipv4Cidr,
    /// The way to other networks.
    pub gateway: Option<Ipv4Addr>,
}

/// What a command line asks of stage 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// To find the provisioner and ask it: `kiln.discover`.
    Ask,
    /// To say what machine this is and wait until somebody accepts it: `kiln.mode=discover`.
    Introduce(Contact),
    /// To run an image.
    Run(BootParameters),
}

impl Task {
    /// Reads the `kiln.*` words; others are the kernel's.
    ///
    /// # Errors
    /// Names the word that is missing or wrong.
    pub fn parse(cmdline: &str) -> Result<Self, CmdlineError> {
        let alone = cmdline.split_ascii_whitespace().any(|word| word == "kiln.discover");
        if alone && optional(cmdline, "kiln.token")?.is_none() {
            return Ok(Self::Ask);
        }
        match optional(cmdline, "kiln.mode")? {
            None => BootParameters::parse(cmdline).map(Self::Run),
            Some("discover") => Contact::parse(cmdline).map(Self::Introduce),
            Some(found) => Err(CmdlineError::Value {
                key: "kiln.mode",
                found: found.chars().take(80).collect(),
                why: "`discover` is the only mode; without the word the machine runs an image".to_owned(),
            }),
        }
    }
}

impl Contact {
    fn parse(cmdline: &str) -> Result<Self, CmdlineError> {
        let token = required(cmdline, "kiln.token")?;
        if token.len() != 32 || !token.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            // Not quoted: a console is read by many.
            let why = "32 lower-case hex digits are wanted".to_owned();
            return Err(CmdlineError::Value { key: "kiln.token", found: "…".to_owned(), why });
        }
        Ok(Self {
            server: parse("kiln.server", required(cmdline, "kiln.server")?, server_of_url)?,
            token: token.to_owned(),
            mac: parse("kiln.mac", required(cmdline, "kiln.mac")?, from_str)?,
            address: parse("kiln.address", required(cmdline, "kiln.address")?, from_str)?,
            gateway: match optional(cmdline, "kiln.gateway")? {
                Some(text) => Some(parse("kiln.gateway", text, from_str)?),
                None => None,
            },
        })
    }
}

impl BootParameters {
    /// Reads the `kiln.*` words; others are the kernel's.
    ///
    /// # Errors
    /// Names the word that is missing or wrong.
    pub fn parse(cmdline: &str) -> Result<Self, CmdlineError> {
        let Contact { server, token, mac, address, gateway } = Contact::parse(cmdline)?;
        let machine = parse("kiln.machine", required(cmdline, "kiln.machine")?, from_str)?;
        Ok(Self { server, token, machine, mac, address, gateway })
    }

    /// How to speak to the provisioner.
    pub fn contact(&self) -> Contact {
        let Self { server, token, machine: _, mac, address, gateway } = self.clone();
        Contact { server, token, mac, address, gateway }
    }

    /// The public half of the token.
    pub fn boot(&self) -> BootId {
        BootId::of_token(&self.token)
    }
}

fn optional<'a>(cmdline: &'a str, key: &'static str) -> Result<Option<&'a str>, CmdlineError> {
    let mut values = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, value)| (name == key).then_some(value));
    let first = values.next();
    if values.any(|other| Some(other) != first) { Err(CmdlineError::Twice(key)) } else { Ok(first) }
}

fn required<'a>(cmdline: &'a str, key: &'static str) -> Result<&'a str, CmdlineError> {
    optional(cmdline, key)?.filter(|value| !value.is_empty()).ok_or(CmdlineError::Missing(key))
}

fn parse<T>(key: &'static str, text: &str, read: fn(&str) -> Result<T, String>) -> Result<T, CmdlineError> {
    read(text).map_err(|why| {
        let found = text.chars().take(80).collect();
        CmdlineError::Value { key, found, why }
    })
}

fn from_str<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

/// The server of a URL without a path: `http://IP[:PORT]`.
///
/// # Errors
/// Says what is wanted.
pub fn server_of_url(text: &str) -> Result<SocketAddrV4, String> {
    let wanted = || "`http://ADDRESS[:PORT]` is wanted".to_owned();
    let address = text.strip_prefix("http://").ok_or_else(wanted)?.trim_end_matches('/');
    let with_port = address.parse().ok();
    with_port.or_else(|| Some(SocketAddrV4::new(address.parse().ok()?, 80))).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "console=ttyS0 panic=10 kiln.server=http://10.77.0.1:8080 \
        kiln.token=00112233445566778899aabbccddeeff kiln.machine=r1 kiln.mac=52:54:00:00:00:01 \
        kiln.address=10.77.0.11/24 initrd=initrd";

    #[test]
    fn the_boot_scripts_words_are_read() {
        let read = BootParameters::parse(GOOD).expect("good");
        assert_eq!(read.server, "10.77.0.1:8080".parse().expect("address"));
        assert_eq!(read.address.to_string(), "10.77.0.11/24");
        assert_eq!(read.gateway, None);
        let default_port = GOOD.replace(":8080", "");
        assert_eq!(BootParameters::parse(&default_port).expect("good").server.port(), 80);
        let routed = format!("{GOOD} kiln.gateway=10.77.0.254");
        assert_eq!(
            BootParameters::parse(&routed).expect("good").gateway,
            Some(Ipv4Addr::new(10, 77, 0, 254))
        );
    }

    #[test]
    fn each_missing_word_is_named() {
        for key in ["kiln.server", "kiln.token", "kiln.machine", "kiln.mac", "kiln.address"] {
            let without: Vec<&str> =
                GOOD.split(' ').filter(|word| !word.starts_with(&format!("{key}="))).collect();
            assert_eq!(BootParameters::parse(&without.join(" ")), Err(CmdlineError::Missing(key)));
        }
    }

    #[test]
    fn a_box_is_told_to_ask_to_introduce_itself_or_to_run() {
        assert_eq!(Task::parse("console=ttyS0 kiln.discover quiet"), Ok(Task::Ask));
        let stranger = GOOD.replace("kiln.machine=r1", "kiln.mode=discover");
        let Ok(Task::Introduce(contact)) = Task::parse(&stranger) else { panic!("{stranger}") };
        assert_eq!(contact.address.to_string(), "10.77.0.11/24");
        let run = BootParameters::parse(GOOD).expect("good");
        assert_eq!(Task::parse(GOOD), Ok(Task::Run(run.clone())));
        assert_eq!(Task::parse(&format!("{GOOD} kiln.discover")), Ok(Task::Run(run)), "it was asked already");
        let bad = Task::parse("kiln.mode=installer").expect_err("no such mode");
        assert!(bad.to_string().contains("`discover` is the only mode"), "{bad}");
        assert_eq!(Task::parse("quiet"), Err(CmdlineError::Missing("kiln.token")));
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for bad in [
            format!("{GOOD} kiln.machine=r2"),
            GOOD.replace("http://", "https://"),
            GOOD.replace("/24", "/33"),
            GOOD.replace("00112233", "zz112233"),
            GOOD.replace("52:54", "52-"),
        ] {
            assert!(BootParameters::parse(&bad).is_err(), "{bad}");
        }
        assert!(
            BootParameters::parse(&format!("{GOOD} kiln.machine=r1")).is_ok(),
            "the same twice is no harm"
        );
    }

    #[test]
    fn a_wrong_token_is_not_shown() {
        let bad = GOOD.replace("00112233445566778899aabbccddeeff", "secret");
        assert!(!BootParameters::parse(&bad).expect_err("bad").to_string().contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}") {
            let _ = Task::parse(&text);
        }
    }
}

//! What a person wrote: `kiln.toml` and `fleet.toml`, read, checked and made absolute.
//!
//! Contract: a [`ServerConfig`] that exists can be served. Every refusal names file, line and key and
//! says how to mend it.

mod dhcp;
mod document;
mod fleet;

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use kiln_model::fleet::KilnToml;

pub use fleet::FleetState;

use document::{Document, Segment};

/// One thing in a file that cannot be, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; {help}", self.without_help())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; none when it is about the whole file.
    pub line: Option<usize>,
    /// The key, such as `machine[1].mac`; may be empty.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub help: String,
}

impl ConfigError {
    /// Where and what, for readers who show the help on a line of its own.
    pub fn without_help(&self) -> String {
        let line = self.line.map(|n| format!(":{n}")).unwrap_or_default();
        format!("{}{line}: {}{}", self.file.display(), key_prefix(&self.key), self.problem)
    }
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

/// Everything the server is told by files: where things are, what to listen on, what should be true.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `kiln.toml`, with every path made absolute.
    pub kiln: KilnToml,
    /// `fleet.toml`, checked.
    pub fleet: FleetState,
}

impl ServerConfig {
    /// Reads `kiln.toml` at `path`, and the `fleet.toml` that it names.
    ///
    /// # Errors
    ///
    /// The first thing in either file that cannot be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let kiln = load_kiln_toml(path)?;
        let text = read(&kiln.fleet)?;
        let fleet = FleetState::parse(&kiln.fleet, &text)?;
        fleet.check_server_address(&kiln.serve)?;
        Ok(Self { kiln, fleet })
    }

    /// The operator API's socket.
    pub fn socket(&self) -> PathBuf {
        self.kiln.state.join("kiln.sock")
    }
}

fn load_kiln_toml(path: &Path) -> Result<KilnToml, ConfigError> {
    let text = read(path)?;
    let document = Document::new(path, &text);
    let mut kiln: KilnToml = document.parse()?;
    check_serve(&document, &kiln)?;

    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    for path in [&mut kiln.fleet, &mut kiln.trust, &mut kiln.keys, &mut kiln.repository, &mut kiln.state] {
        *path = folder.join(&*path);
    }
    Ok(kiln)
}

fn check_serve(document: &Document<'_>, kiln: &KilnToml) -> Result<(), ConfigError> {
    let serve = &kiln.serve;
    let at = |key: &'static str| [Segment::Key("serve"), Segment::Key(key)];
    // IFNAMSIZ of the kernel: 16 bytes with the final zero.
    let interface_ok = (1..16).contains(&serve.interface.len())
        && serve.interface.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if !interface_ok {
        return Err(document.refuse(
            &at("interface"),
            format!("`{}` cannot be the name of an interface", serve.interface),
            "write one of the names that `ip link` lists",
        ));
    }
    if serve.address.is_unspecified() || serve.address.is_broadcast() || serve.address.is_multicast() {
        return Err(document.refuse(
            &at("address"),
            format!("the server needs an address of its own on `{}`", serve.interface),
            "write one of the IPv4 addresses that `ip address` lists for this interface",
        ));
    }
    if let Some(address) = serve.address6.filter(|address| !is_usable6(*address)) {
        return Err(document.refuse(
            &at("address6"),
            format!("{address} is none that machines could reach the server at"),
            "write one of the global or unique local IPv6 addresses that `ip -6 address` lists for this interface",
        ));
    }
    let ports =
        [("http_port", serve.http_port), ("dhcp_port", serve.dhcp_port), ("tftp_port", serve.tftp_port)];
    if let Some((key, _)) = ports.into_iter().find(|(_, port)| *port == 0) {
        return Err(document.refuse(&at(key), "0 is not a port", "write a number from 1 to 65535"));
    }
    if serve.dhcp_port == serve.tftp_port {
        return Err(document.refuse(
            &at("tftp_port"),
            "DHCP and TFTP cannot share a UDP port",
            "leave dhcp_port and tftp_port out: they are 67 and 69",
        ));
    }
    Ok(())
}

/// A link-local address means nothing in a URL: firmware cannot say on which of its links that is.
fn is_usable6(address: Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_unicast_link_local()
        && address.to_ipv4_mapped().is_none()
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| ConfigError {
        file: path.to_owned(),
        line: None,
        key: String::new(),
        problem: format!("cannot be read: {error}"),
        help: "`kiln init DIR` makes a fleet's files; name its kiln.toml with --config".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(kiln: &str, fleet: &str) -> Result<ServerConfig, ConfigError> {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("kiln.toml"), kiln).expect("written");
        fs::write(dir.path().join("fleet.toml"), fleet).expect("written");
        ServerConfig::load(&dir.path().join("kiln.toml"))
    }

    const FLEET: &str = "format = 1\n[[network]]\nsubnet = \"10.77.0.0/24\"\n";

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = load("format = 1\n[serve]\naddress = \"10.77.0.1\"\n", FLEET).expect("loads");
        assert!(config.kiln.repository.is_absolute());
        assert!(config.kiln.repository.ends_with("repository"));
        assert!(config.socket().ends_with("state/kiln.sock"));
    }

    #[test]
    fn every_refusal_names_file_line_and_key() {
        for (text, line, key) in [
            ("format = 1\n[serve]\ninterface = \"eth0\"\n", 2, "serve.address"),
            ("format = 1\n[serve]\naddress = \"10.0.0.1\"\nhttp_port = 0\n", 4, "serve.http_port"),
            ("format = 1\n[serve]\naddress = \"10.0.0.1\"\ninterface = \"a/b\"\n", 4, "serve.interface"),
            ("format = 1\n[serve]\naddress = \"10.0.0.1\"\ntftp_port = 67\n", 4, "serve.tftp_port"),
            ("format = 1\n[serve]\naddress = \"10.0.0.1\"\naddress6 = \"fe80::1\"\n", 4, "serve.address6"),
            ("format = 1\n[serve]\naddress = \"10.0.0.1\"\naddress6 = \"::\"\n", 4, "serve.address6"),
        ] {
            let error = load(text, FLEET).expect_err(text);
            assert_eq!((error.line, error.key.as_str()), (Some(line), key), "{error}");
            assert!(!error.help.is_empty());
        }
    }

    #[test]
    fn bad_toml_and_unknown_keys_name_their_line() {
        for (text, line) in [
            ("format = 1\n[serve\n", 2),
            ("format = 1\nrepositry = \"x\"\n", 2),
            ("format = 2\n", 1),
            ("format = 1\n[serve]\naddress = \"10.0.0.256\"\n", 3),
        ] {
            let error = load(text, FLEET).expect_err(text);
            assert_eq!(error.line, Some(line), "{error}");
        }
    }

    #[test]
    fn a_missing_file_says_how_to_make_one() {
        let error = ServerConfig::load(Path::new("/nonexistent/kiln.toml")).expect_err("missing");
        assert!(error.to_string().contains("kiln init"), "{error}");
    }
}

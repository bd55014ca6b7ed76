//! What a client would get, and why: the very cores that answer packets, asked without one on the wire.

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_boot::{Client, Program};
use kiln_dhcp::{Effect, Inbound, Seen, ServerConfig};
use kiln_model::UnixMillis;
use kiln_model::api::Explanation;
use kiln_model::fleet::ZtpSystem;
use kiln_model::timeline::Step;

use crate::dhcp::View;
use crate::dhcp::leases::Leases;
use crate::server::Server;

/// DHCP's magic cookie (RFC 2131, section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];

impl Server {
    /// The address and the boot that `client` would get, through `relay` or on our own wire.
    pub fn explain(
        &self,
        leases: &Leases,
        client: &Client,
        relay: Option<Ipv4Addr>,
        now: UnixMillis,
    ) -> Explanation {
        let boot = self.explain_boot(client, now);
        let bytes = discover(client, relay);
        let input = Inbound {
            bytes: &bytes,
            source: SocketAddrV4::new(relay.unwrap_or(Ipv4Addr::UNSPECIFIED), 67),
            local: self.serve.address,
        };
        let effects = {
            kiln_dhcp::Server::new(ServerConfig::default()).handle(&input, now, &View::at(self, leases, now))
        };
        let (gets, because) = address(&effects);
        Explanation {
            gets: [gets].into_iter().chain(boot.gets).collect(),
            because: because.into_iter().chain(boot.because).collect(),
        }
    }
}

/// What the DHCP core would answer, in its own words.
fn address(effects: &[Effect]) -> (String, Option<String>) {
    let seen = |step: Step| {
        effects.iter().find_map(|effect| match effect {
            Effect::Seen(seen) if seen.step == step => Some(seen),
            Effect::Probe(probe) => {
                probe.then.as_ref().map(|(_, seen)| seen).filter(|seen| seen.step == step)
            }
            _ => None,
        })
    };
    let words = |seen: &Seen| seen.detail.split(", boots ").next().unwrap_or_default().to_owned();
    if let Some(offer) = seen(Step::Offer) {
        let probed =
            effects.iter().any(|effect| matches!(effect, Effect::Probe(probe) if probe.then.is_some()));
        let because = probed
            .then(|| "nobody has had this address lately: it is looked for on the wire first".to_owned());
        return (format!("DHCP: {}", words(offer)), because);
    }
    let silence = seen(Step::Discover).and_then(|seen| seen.detail.split("not answered: ").nth(1));
    ("DHCP: no answer".to_owned(), Some(silence.unwrap_or("it is no client of this server").to_owned()))
}

/// A DHCPDISCOVER as this client would send it.
fn discover(client: &Client, relay: Option<Ipv4Addr>) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    let mut put = |at: usize, data: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(data) {
            *to = *from;
        }
    };
    // op, htype, hlen, hops; xid; giaddr; chaddr.
    put(0, &[1, 1, 6, u8::from(relay.is_some())]);
    put(4, &[0x6b, 0x69, 0x6c, 0x6e]);
    put(24, &relay.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    put(28, &client.mac.0);
    let (vendor, user) = classes(client);
    let architectures: Vec<u8> = client.architectures.iter().flat_map(|code| code.to_be_bytes()).collect();
    bytes.extend(COOKIE);
    for (code, data) in [(53, &[1][..]), (60, vendor.as_bytes()), (77, user), (93, &architectures)] {
        if let (false, Ok(length)) = (data.is_empty(), u8::try_from(data.len())) {
            bytes.extend([code, length]);
            bytes.extend(data);
        }
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Options 60 and 77 of each program.
fn classes(client: &Client) -> (String, &'static [u8]) {
    let arch = client.architectures.first().copied().unwrap_or(0);
    match client.program {
        Program::Pxe => (format!("PXEClient:Arch:{arch:05}:UNDI:003016"), b""),
        Program::HttpBoot => (format!("HTTPClient:Arch:{arch:05}:UNDI:003016"), b""),
        Program::Ipxe => (format!("PXEClient:Arch:{arch:05}:UNDI:003010"), b"iPXE"),
        Program::Agent => ("kiln".to_owned(), b"kiln"),
        Program::Onie => ("onie_vendor:x86_64-kvm_x86_64-r0".to_owned(), b""),
        Program::Ztp(ZtpSystem::Sonic) => (String::new(), b"\x09SONiC-ZTP"),
        Program::Ztp(ZtpSystem::Cumulus) => ("cumulus-linux  x86_64".to_owned(), b""),
        Program::Other => (String::new(), b""),
    }
}

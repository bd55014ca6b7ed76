//! The words that tell our stage 0 which boot this is: on the kernel's command line, or as the answer to
//! `GET /boot/agent`. Both are read by the same parser of the agent.

use std::net::Ipv4Addr;

use kiln_model::intent::Ipv4Cidr;
use kiln_model::{MacAddr, MachineName};

/// Which boot this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: String,
    /// The fresh boot token, hex.
    pub token: String,
    /// Who boots; none for a machine that nobody has accepted, which only looks at itself.
    pub machine: Option<MachineName>,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub address: Ipv4Cidr,
    /// Its router.
    pub gateway: Option<Ipv4Addr>,
}

impl Words {
    /// The words, one by one. None of them has a space in it.
    pub fn list(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.machine.is_none() {
            words.push("kiln.mode=discover".to_owned());
        }
        words.push(format!("kiln.server={}", self.server));
        words.push(format!("kiln.token={}", self.token));
        words.extend(self.machine.iter().map(|machine| format!("kiln.machine={machine}")));
        words.push(format!("kiln.mac={}", self.mac));
        words.push(format!("kiln.address={}", self.address));
        words.extend(self.gateway.map(|gateway| format!("kiln.gateway={gateway}")));
        words
    }

    /// The words as one line.
    pub fn line(&self) -> String {
        self.list().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_as_the_agent_reads_them() {
        let words = Words {
            server: "http://10.77.0.1".to_owned(),
            token: "00ff".to_owned(),
            machine: Some("r1".parse().unwrap()),
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            address: "10.77.0.11/24".parse().unwrap(),
            gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
        };
        assert_eq!(
            words.line(),
            "kiln.server=http://10.77.0.1 kiln.token=00ff kiln.machine=r1 kiln.mac=52:54:00:00:00:01 kiln.address=10.77.0.11/24 kiln.gateway=10.77.0.1"
        );
        let stranger = Words { machine: None, gateway: None, ..words };
        assert_eq!(
            stranger.line(),
            "kiln.mode=discover kiln.server=http://10.77.0.1 kiln.token=00ff kiln.mac=52:54:00:00:00:01 kiln.address=10.77.0.11/24"
        );
    }
}

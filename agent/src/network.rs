//! Interfaces, addresses and routes, through rtnetlink(7).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use kiln_model::MacAddr;
use kiln_model::intent::Ipv4Cidr;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::cmdline::BootParameters;

/// How long a network card's driver may take to show its interface.
const APPEARS: Duration = Duration::from_secs(20);
/// How long a link may take to come up: spanning tree takes half a minute.
const CARRIER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Why the box has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No interface has the address that the machine boots from.
    #[error(
        "no interface has the address {wanted}; there are {found}. Is the driver of its card in the hardware profile?"
    )]
    NoInterface {
        /// The address.
        wanted: MacAddr,
        /// What there is.
        found: String,
    },
    /// An interface is configured that is not there.
    #[error("the intent configures the interface `{0}`, which this machine does not have")]
    Unknown(String),
    /// Nothing is plugged in, or the other side is off.
    #[error("{0} has no carrier; check the cable and the port of the switch")]
    NoCarrier(String),
    /// The kernel refused.
    #[error("{what}: {why}")]
    Kernel {
        /// What was to be done.
        what: String,
        /// What the kernel said.
        why: String,
    },
}

/// An interface, as far as a box needs it.
#[derive(Debug, Clone)]
struct Interface {
    index: u32,
    name: String,
    mac: Option<MacAddr>,
    carrier: bool,
}

/// A connection to the kernel's network configuration.
#[derive(Debug, Clone)]
pub struct Network(Handle);

impl Network {
    /// Opens it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(kernel("opening netlink"))?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Sets up the interface that the machine boots from, waits for its carrier, and says its name.
    ///
    /// # Errors
    /// Says what is missing, down to the cable.
    pub async fn boot_interface(&self, parameters: &BootParameters) -> Result<String, NetworkError> {
        let interface = self.find(parameters.mac).await?;
        self.up(1).await?;
        self.up(interface.index).await?;
        self.wait_for_carrier(&interface).await?;
        self.add(&interface, parameters.address).await?;
        if let Some(gateway) = parameters.gateway {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
            let added = self.0.route().add(route).replace().execute().await;
            added.map_err(kernel("adding the default route"))?;
        }
        Ok(interface.name)
    }

    /// Brings up the interfaces of the intent and gives them their addresses. Addresses that are there
    /// already stay.
    ///
    /// # Errors
    /// Names the interface that is not there.
    pub async fn configure(&self, wanted: &BTreeMap<String, Vec<Ipv4Cidr>>) -> Result<(), NetworkError> {
        let all = self.interfaces().await?;
        for (name, addresses) in wanted {
            let interface =
                all.iter().find(|i| i.name == *name).ok_or_else(|| NetworkError::Unknown(name.clone()))?;
            self.up(interface.index).await?;
            for address in addresses {
                self.add(interface, *address).await?;
            }
        }
        Ok(())
    }

    async fn find(&self, mac: MacAddr) -> Result<Interface, NetworkError> {
        let deadline = tokio::time::Instant::now() + APPEARS;
        loop {
            let all = self.interfaces().await?;
            if let Some(found) = all.iter().find(|i| i.mac == Some(mac)) {
                return Ok(found.clone());
            }
            if tokio::time::Instant::now() >= deadline {
                let shown = all.iter().map(|i| match i.mac {
                    Some(mac) => format!("{} ({mac})", i.name),
                    None => i.name.clone(),
                });
                let found = shown.collect::<Vec<_>>().join(", ");
                return Err(NetworkError::NoInterface { wanted: mac, found });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn wait_for_carrier(&self, wanted: &Interface) -> Result<(), NetworkError> {
        let deadline = tokio::time::Instant::now() + CARRIER;
        while tokio::time::Instant::now() < deadline {
            if self.interfaces().await?.iter().any(|i| i.index == wanted.index && i.carrier) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(NetworkError::NoCarrier(wanted.name.clone()))
    }

    async fn interfaces(&self) -> Result<Vec<Interface>, NetworkError> {
        let links: Vec<LinkMessage> =
            self.0.link().get().execute().try_collect().await.map_err(kernel("listing interfaces"))?;
        Ok(links.into_iter().map(interface).collect())
    }

    async fn up(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.0.link().set(message).execute().await.map_err(kernel("setting an interface up"))
    }

    async fn add(&self, interface: &Interface, address: Ipv4Cidr) -> Result<(), NetworkError> {
        let request = self.0.address().add(interface.index, IpAddr::V4(address.address), address.prefix);
        let what = format!("adding {address} to {}", interface.name);
        request.replace().execute().await.map_err(kernel(&what))
    }
}

fn interface(link: LinkMessage) -> Interface {
    let mut interface =
        Interface { index: link.header.index, name: String::new(), mac: None, carrier: false };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Address(bytes) => interface.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Carrier(carrier) => interface.carrier = carrier == 1,
            _ => {}
        }
    }
    interface
}

fn kernel<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> NetworkError {
    let what = what.to_owned();
    move |error| NetworkError::Kernel { what, why: error.to_string() }
}

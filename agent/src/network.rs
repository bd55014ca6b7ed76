//! Interfaces, addresses and routes, through rtnetlink(7).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use kiln_model::MacAddr;
use kiln_model::intent::Ipv4Cidr;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::cmdline::Contact;

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

/// An Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: MacAddr,
}

/// Any interface, as the kernel lists it.
#[derive(Debug, Clone)]
struct Listed {
    index: u32,
    name: String,
    mac: Option<MacAddr>,
    carrier: bool,
    ethernet: bool,
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

    /// Sets up the interface that the machine boots from, waits for its carrier, and says which it is.
    ///
    /// # Errors
    /// Says what is missing, down to the cable.
    pub async fn boot_interface(&self, contact: &Contact) -> Result<Interface, NetworkError> {
        let interface = self.find(contact.mac).await?;
        self.up(1).await?;
        self.up(interface.index).await?;
        self.wait_for_carrier(&interface).await?;
        let interface = Interface { index: interface.index, name: interface.name, mac: contact.mac };
        self.set(&interface, contact.address, contact.gateway).await?;
        Ok(interface)
    }

    /// The Ethernet interfaces of the machine itself: not loopback, no bridges, no tunnels.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn ethernet(&self) -> Result<Vec<Interface>, NetworkError> {
        let real = |name: &str| std::path::Path::new("/sys/class/net").join(name).join("device").exists();
        let all = self.interfaces().await?.into_iter().filter(|i| i.ethernet && real(&i.name));
        Ok(all.filter_map(|i| Some(Interface { index: i.index, mac: i.mac?, name: i.name })).collect())
    }

    /// Whether the other side of an interface is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn has_carrier(&self, index: u32) -> Result<bool, NetworkError> {
        Ok(self.interfaces().await?.iter().any(|i| i.index == index && i.carrier))
    }

    /// Gives an interface its address, and the machine its way to other networks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set(
        &self,
        interface: &Interface,
        address: Ipv4Cidr,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        self.add(interface.index, &interface.name, address).await?;
        let Some(gateway) = gateway else { return Ok(()) };
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        let added = self.0.route().add(route).replace().execute().await;
        added.map_err(kernel("adding the default route"))
    }

    /// Takes an address away again, and every route over it with it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn unset(&self, interface: &Interface, address: Ipv4Cidr) -> Result<(), NetworkError> {
        let mut all = self.0.address().get().set_link_index_filter(interface.index).execute();
        let wanted = AddressAttribute::Address(IpAddr::V4(address.address));
        while let Some(found) = all.try_next().await.map_err(kernel("listing addresses"))? {
            if found.attributes.contains(&wanted) {
                let what = format!("taking {address} from {}", interface.name);
                self.0.address().del(found).execute().await.map_err(kernel(&what))?;
            }
        }
        Ok(())
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
                self.add(interface.index, name, *address).await?;
            }
        }
        Ok(())
    }

    async fn find(&self, mac: MacAddr) -> Result<Listed, NetworkError> {
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

    async fn wait_for_carrier(&self, wanted: &Listed) -> Result<(), NetworkError> {
        let deadline = tokio::time::Instant::now() + CARRIER;
        while tokio::time::Instant::now() < deadline {
            if self.interfaces().await?.iter().any(|i| i.index == wanted.index && i.carrier) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(NetworkError::NoCarrier(wanted.name.clone()))
    }

    async fn interfaces(&self) -> Result<Vec<Listed>, NetworkError> {
        let links: Vec<LinkMessage> =
            self.0.link().get().execute().try_collect().await.map_err(kernel("listing interfaces"))?;
        Ok(links.into_iter().map(interface).collect())
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn up(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.0.link().set(message).execute().await.map_err(kernel("setting an interface up"))
    }

    async fn add(&self, index: u32, name: &str, address: Ipv4Cidr) -> Result<(), NetworkError> {
        let request = self.0.address().add(index, IpAddr::V4(address.address), address.prefix);
        let what = format!("adding {address} to {name}");
        request.replace().execute().await.map_err(kernel(&what))
    }
}

fn interface(link: LinkMessage) -> Listed {
    let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let mut interface =
        Listed { index: link.header.index, name: String::new(), mac: None, carrier: false, ethernet };
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

//! Libvirt's virtual networks.

use virt::error::ErrorNumber;
use virt::network::Network as VirtNetwork;
use virt::sys;

use super::connection::parse;
use super::errors::{cpi_error, has_no_network_daemon, is};
use super::{Changes, Connection};
use bosh_cpi::rpc::{Error, ErrorType, Result};
use libvirt_xml::element::Element;
use libvirt_xml::masked;

/// A network that libvirt knows, active or not.
pub struct Network {
    pub(super) network: VirtNetwork,
    pub name: String,
}

impl Network {
    pub(super) fn new(network: VirtNetwork, name: &str) -> Self {
        Self {
            network,
            name: name.to_owned(),
        }
    }

    /// Starts the network if it is inactive.
    pub fn ensure_active(&self) -> Result<()> {
        if self.is_active()? {
            return Ok(());
        }
        log::info!("network {} is inactive; starting it", self.name);
        match self.network.create() {
            Err(e) if !self.is_active()? => Err(cpi_error(e).during(format!(
                "starting network {0}, which is inactive; see `virsh net-start {0}`",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    pub fn is_active(&self) -> Result<bool> {
        self.network.is_active().map_err(|e| self.failed("looking at", e))
    }

    pub fn is_persistent(&self) -> Result<bool> {
        self.network
            .is_persistent()
            .map_err(|e| self.failed("looking at", e))
    }

    /// The network as it is now.
    pub fn xml(&self) -> Result<Element> {
        self.xml_with(0)
    }

    fn xml_with(&self, flags: u32) -> Result<Element> {
        let text = self
            .network
            .xml_desc(flags)
            .map_err(|e| self.failed("reading", e))?;
        parse(&format!("network {}", self.name), &text)
    }

    /// What is there of the network: the running one, the one that is started next time, or both.
    pub fn descriptions(&self) -> Result<Vec<(Changes, Element)>> {
        let mut descriptions = Vec::new();
        if self.is_active()? {
            descriptions.push((Changes::Live, self.xml()?));
        }
        descriptions.extend(self.persistent_xml()?.map(|xml| (Changes::Persistent, xml)));
        Ok(descriptions)
    }

    /// As `descriptions`; nothing of a network that is gone, since those of others come and go while we look.
    pub fn descriptions_if_there(&self) -> Result<Vec<(Changes, Element)>> {
        match self.descriptions() {
            Err(e) if e.error_type == ErrorType::NetworkNotFound => Ok(Vec::new()),
            descriptions => descriptions,
        }
    }

    /// Adds a `<host>` to the DHCP service of the n-th `<ip>`.
    pub fn add_dhcp_host(&self, host: &Element, ip: usize, to: Changes) -> Result<()> {
        self.update_dhcp_host(sys::VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, host, ip, to)
            .map_err(|e| self.failed("adding a DHCP host entry to", e))
    }

    /// Removes a `<host>` from the DHCP service of the n-th `<ip>`; one that has gone meanwhile, alone or with
    /// its network, is fine.
    pub fn remove_dhcp_host(&self, host: &Element, ip: usize, from: Changes) -> Result<()> {
        let outcome = self.update_dhcp_host(sys::VIR_NETWORK_UPDATE_COMMAND_DELETE, host, ip, from);
        let Err(e) = outcome else {
            return Ok(());
        };
        let still_there = self.descriptions_if_there()?.iter().any(|(which, xml)| {
            *which == from
                && xml
                    .children_named("ip")
                    .nth(ip)
                    .and_then(|ip| ip.child("dhcp"))
                    .is_some_and(|dhcp| dhcp.elements().any(|other| other == host))
        });
        if still_there {
            Err(self.failed("removing a DHCP host entry from", e))
        } else {
            Ok(())
        }
    }

    /// Before 7.2, libvirt's client sent command and section in each other's place, and its daemon expected them so.
    /// `virNetworkUpdate` itself finds out which kind of daemon it talks to and orders them for it, so nothing is to
    /// be done about that here; a client that speaks the protocol by itself, as the seed's did, has to.
    fn update_dhcp_host(
        &self,
        command: sys::virNetworkUpdateCommand,
        host: &Element,
        ip: usize,
        changes: Changes,
    ) -> std::result::Result<(), virt::error::Error> {
        log::debug!("network {}: command {command} in {changes:?}: {host}", self.name);
        let flags = match changes {
            Changes::Live => sys::VIR_NETWORK_UPDATE_AFFECT_LIVE,
            Changes::Persistent => sys::VIR_NETWORK_UPDATE_AFFECT_CONFIG,
        };
        let ip = i32::try_from(ip).unwrap_or(-1);
        let section = sys::VIR_NETWORK_SECTION_IP_DHCP_HOST;
        self.network
            .update(command, section, ip, &host.to_string(), flags)
    }

    /// Starts a network that has just been defined, now and together with libvirt.
    pub fn start(&self) -> Result<()> {
        self.network.create().map_err(|e| self.failed("starting", e))?;
        self.set_autostart()
    }

    fn set_autostart(&self) -> Result<()> {
        self.network
            .set_autostart(true)
            .map_err(|e| self.failed("setting autostart of", e))
    }

    /// Stops and undefines the network. A network that is gone is no error.
    pub fn remove(&self) -> Result<()> {
        let gone = |e: &virt::error::Error| is(e, ErrorNumber::NoNetwork);
        match self.network.destroy() {
            Err(e) if !gone(&e) && self.is_active()? => return Err(self.failed("stopping", e)),
            _ => {}
        }
        self.undefine()
    }

    /// Undefines the network; if it is active, it becomes transient. A network that is gone or transient is no error.
    pub fn undefine(&self) -> Result<()> {
        match self.network.undefine() {
            Err(e) if !is(&e, ErrorNumber::NoNetwork) && self.is_persistent()? => {
                Err(self.failed("undefining", e))
            }
            _ => Ok(()),
        }
    }

    /// The XML to define the network by again; none of a transient network.
    pub fn persistent_xml(&self) -> Result<Option<Element>> {
        if self.is_persistent()? {
            return self.xml_with(sys::VIR_NETWORK_XML_INACTIVE).map(Some);
        }
        Ok(None)
    }

    pub(super) fn failed(&self, doing: &str, e: virt::error::Error) -> Error {
        cpi_error(e).during(format!("{doing} network {}", self.name))
    }
}

impl Connection {
    /// Every network that libvirt knows, active or not, ours or not. None where libvirt has no networks at all, as on
    /// hosts that only have bridges of their own.
    pub fn all_networks(&self) -> Result<Vec<Network>> {
        let networks = match self.connect.list_all_networks(0) {
            Ok(networks) => networks,
            Err(e) if is(&e, ErrorNumber::NoSupport) || has_no_network_daemon(&e) => return Ok(Vec::new()),
            Err(e) => return Err(cpi_error(e).during("listing networks")),
        };
        networks
            .into_iter()
            .map(|network| {
                let name = network.name().map_err(cpi_error)?;
                Ok(Network::new(network, &name))
            })
            .collect()
    }

    /// Defines a network that survives a reboot of the host. It does not run yet.
    pub fn define_network(&self, xml: &Element, name: &str) -> Result<Network> {
        log::debug!("network {name}: {}", masked(xml));
        let network = self
            .connect
            .define_network_xml(&xml.to_string())
            .map_err(|e| cpi_error(e).during(format!("defining network {name}")))?;
        Ok(Network::new(network, name))
    }

    /// Defines a network again that has just been undefined and was to start with libvirt.
    pub fn redefine_network(&self, xml: &Element, name: &str) -> Result<()> {
        self.define_network(xml, name)?.set_autostart()
    }
}

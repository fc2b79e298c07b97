//! Libvirt's virtual networks.

use virt::network::Network as VirtNetwork;

use super::connection::parse;
use crate::rpc::{Error, Result};
use crate::xml::element::Element;

/// A network that libvirt knows, active or not.
pub struct Network {
    network: VirtNetwork,
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
        let failed = |e| {
            Error::from(e).during(format!(
                "starting network {0}, which is inactive; see `virsh net-start {0}`",
                self.name
            ))
        };
        if self.network.is_active().map_err(failed)? {
            return Ok(());
        }
        log::info!("network {} is inactive; starting it", self.name);
        match self.network.create() {
            Err(e) if !self.network.is_active().map_err(failed)? => Err(failed(e)),
            _ => Ok(()),
        }
    }

    /// The network as it is now.
    pub fn xml(&self) -> Result<Element> {
        let what = format!("network {}", self.name);
        let text = self
            .network
            .xml_desc(0)
            .map_err(|e| Error::from(e).during(format!("reading {what}")))?;
        parse(&what, &text)
    }
}

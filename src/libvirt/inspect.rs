//! What only operators ask libvirt: to look, not to change.

use virt::domain::DomainState;
use virt::enumutil::Enum;
use virt::error::ErrorNumber;
use virt::sys;

use super::connection::parse;
use super::errors::is;
use super::{Connection, Domain, Network, Pool, Volume, VolumeState};
use crate::interrupt;
use crate::rpc::{Error, Result};
use crate::xml::element::Element;

/// A volume, with what no call of BOSH's needs.
#[derive(Debug, Clone)]
pub struct VolumeDetails {
    pub state: VolumeState,
    pub path: String,
}

/// A pool, whether or not it is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    /// As libvirt calls it: `dir`, `rbd`, ...
    pub kind: String,
    pub active: bool,
    pub autostart: bool,
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that are free.
    pub available: u64,
    /// Directory or device on the host, or empty.
    pub target: String,
}

impl Volume {
    /// # Errors
    /// `DiskNotFound` for a volume that has gone meanwhile.
    pub fn details(&self) -> Result<VolumeDetails> {
        let xml = self.xml()?;
        let target = xml.child("target");
        Ok(VolumeDetails {
            state: VolumeState::read(&self.name, &xml)?,
            path: target
                .and_then(|target| target.child("path"))
                .map(Element::text)
                .unwrap_or_default(),
        })
    }
}

impl Pool {
    /// # Errors
    /// What libvirt says.
    pub fn info(&self) -> Result<PoolInfo> {
        let failed = |e| Error::from(e).during(format!("looking at storage pool {}", self.name));
        let xml = self.xml()?;
        let info = self.pool.info().map_err(failed)?;
        Ok(PoolInfo {
            kind: xml.attribute("type").unwrap_or("unknown").to_owned(),
            active: self.pool.is_active().map_err(failed)?,
            autostart: self.pool.autostart().map_err(failed)?,
            capacity: info.capacity,
            available: info.available,
            target: xml
                .descend(&["target", "path"])
                .map(Element::text)
                .unwrap_or_default(),
        })
    }
}

impl Domain {
    /// `running`, `off`, `paused`, `crashed`, ...: in one word.
    pub fn state_name(&self) -> Result<&'static str> {
        Ok(match self.state()? {
            Enum::Known(DomainState::Running | DomainState::Blocked | DomainState::NoState) => "running",
            Enum::Known(DomainState::Paused) => "paused",
            Enum::Known(DomainState::Shutdown) => "ending",
            Enum::Known(DomainState::Shutoff) => "off",
            Enum::Known(DomainState::Crashed) => "crashed",
            Enum::Known(DomainState::PMSuspended) => "asleep",
            _ => "unknown",
        })
    }
}

impl Domain {
    /// MAC and IP addresses that libvirt's DHCP has given to the running VM.
    ///
    /// # Errors
    /// What libvirt says, for a VM that does not run among others.
    pub fn leased_addresses(&self) -> Result<Vec<(String, String)>> {
        let interfaces = self
            .domain
            .interface_addresses(sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0)
            .map_err(|e| self.failed("asking for the addresses of", e))?;
        let mut addresses = Vec::new();
        for interface in interfaces {
            let mac = interface.hwaddr.unwrap_or_default();
            addresses.extend(
                interface
                    .addrs
                    .into_iter()
                    .map(|address| (mac.clone(), address.addr)),
            );
        }
        Ok(addresses)
    }
}

impl Network {
    /// Whether libvirt starts the network by itself.
    pub fn autostart(&self) -> Result<bool> {
        self.network.autostart().map_err(|e| self.failed("looking at", e))
    }
}

impl Connection {
    /// The pool of this name as it is, active or not, if there is one.
    pub fn find_pool(&self, name: &str) -> Result<Option<Pool>> {
        match self.connect.lookup_storage_pool_by_name(name) {
            Ok(pool) => Ok(Some(Pool::new(pool, name))),
            Err(e) if is(&e, ErrorNumber::NoStoragePool) => Ok(None),
            Err(e) => Err(Error::from(e).during(format!("looking up storage pool {name}"))),
        }
    }

    /// Names of the pools that are not active, so that nobody knows what is in them.
    pub fn inactive_pools(&self) -> Result<Vec<String>> {
        let pools = self.pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)?;
        Ok(pools.into_iter().map(|pool| pool.name).collect())
    }

    /// Versions of libvirtd and of its QEMU, as libvirt counts: 9001002 is 9.1.2.
    pub fn versions(&self) -> Result<(u32, u32)> {
        let failed = |e| Error::from(e).during("asking for versions");
        Ok((
            self.connect.lib_version().map_err(failed)?,
            self.connect.hyp_version().map_err(failed)?,
        ))
    }

    /// What libvirt confines VMs with: `apparmor`, `selinux`, `dac`.
    pub fn security_models(&self) -> Result<Vec<String>> {
        let capabilities = self.capabilities()?;
        let host = capabilities.child("host");
        Ok(host
            .into_iter()
            .flat_map(|host| host.children_named("secmodel"))
            .filter_map(|model| model.child("model"))
            .map(Element::text)
            .collect())
    }

    /// What guests of this type (`kvm`, `qemu`) can have here.
    pub fn domain_capabilities(&self, domain_type: &str) -> Result<Element> {
        let text = self
            .connect
            .domain_capabilities(None, None, None, Some(domain_type), 0)
            .map_err(|e| Error::from(e).during(format!("asking what {domain_type} guests can have")))?;
        parse("domain capabilities", &text)
    }

    /// Starts a VM, perhaps paused, that is forgotten when it ends, which it does with this connection at the latest.
    pub fn start_passing(&self, xml: &Element, name: &str, paused: bool) -> Result<Domain> {
        interrupt::check()?;
        let paused = if paused { sys::VIR_DOMAIN_START_PAUSED } else { 0 };
        let flags = paused | sys::VIR_DOMAIN_START_AUTODESTROY;
        let domain = self
            .connect
            .create_domain_xml(&xml.to_string(), flags)
            .map_err(|e| Error::from(e).during(format!("starting VM {name}")))?;
        Ok(Domain::new(domain, name))
    }
}

//! Domains: the VMs.

use virt::domain::Domain as VirtDomain;
use virt::error::{Error as LibvirtError, ErrorNumber};
use virt::sys;

use super::connection::parse;
use super::errors::is;
use crate::rpc::{Error, ErrorType, Result};
use crate::xml::element::Element;

/// A VM, running or only defined.
pub struct Domain {
    domain: VirtDomain,
    pub name: String,
}

/// Which of a VM's two descriptions a change is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// The running VM.
    Live,
    /// What is started next time.
    Persistent,
}

impl Changes {
    fn flags(self) -> u32 {
        match self {
            Self::Live => sys::VIR_DOMAIN_AFFECT_LIVE,
            Self::Persistent => sys::VIR_DOMAIN_AFFECT_CONFIG,
        }
    }
}

impl Domain {
    pub(super) fn new(domain: VirtDomain, name: &str) -> Self {
        Self {
            domain,
            name: name.to_owned(),
        }
    }

    pub fn is_active(&self) -> Result<bool> {
        self.domain.is_active().map_err(|e| self.failed("looking at", e))
    }

    /// Boots the VM.
    pub fn start(&self) -> Result<()> {
        self.domain
            .create()
            .map_err(|e| self.failed("starting", e))
            .map(drop)
    }

    /// Makes libvirt start the VM together with itself.
    pub fn set_autostart(&self) -> Result<()> {
        self.domain
            .set_autostart(true)
            .map_err(|e| self.failed("setting autostart of", e))
    }

    /// Stops the VM at once; one that does not run is fine.
    pub fn destroy(&self) -> Result<()> {
        match self.domain.destroy() {
            Ok(()) => Ok(()),
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(()),
            Err(e) if is(&e, ErrorNumber::OperationInvalid) && !self.is_active().unwrap_or(true) => Ok(()),
            Err(e) => Err(self.failed("stopping", e)),
        }
    }

    /// Forgets the VM's definition with all that libvirt keeps for it; its volumes stay.
    pub fn undefine(&self) -> Result<()> {
        let all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        match self
            .domain
            .undefine_flags(all | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        {
            // Libvirt below 5.6 does not know checkpoints.
            Err(e) if is(&e, ErrorNumber::InvalidArg) => self.domain.undefine_flags(all),
            outcome => outcome,
        }
        .or_else(|e| {
            if is(&e, ErrorNumber::NoDomain) {
                Ok(())
            } else {
                Err(self.failed("undefining", e))
            }
        })
    }

    /// Restarts the machine, as its reset button would; a stopped one is started, a paused one goes on.
    pub fn reboot(&self) -> Result<()> {
        use virt::domain::DomainState::{Crashed, Paused, Running};
        let (state, _) = self.domain.state().map_err(|e| self.failed("looking at", e))?;
        match state {
            state if state.is(Running) => self.domain.reset().map_err(|e| self.failed("resetting", e)),
            state if state.is(Paused) => {
                self.domain.reset().map_err(|e| self.failed("resetting", e))?;
                self.domain
                    .resume()
                    .map_err(|e| self.failed("resuming", e))
                    .map(drop)
            }
            state if state.is(Crashed) => self.destroy().and_then(|()| self.start()),
            _ if self.is_active()? => self.domain.reset().map_err(|e| self.failed("resetting", e)),
            _ => self.start(),
        }
    }

    /// The running VM's description, or that of the next start when it does not run.
    pub fn xml(&self) -> Result<Element> {
        self.xml_with(0)
    }

    /// The description that the next start will use.
    pub fn persistent_xml(&self) -> Result<Element> {
        self.xml_with(sys::VIR_DOMAIN_XML_INACTIVE)
    }

    fn xml_with(&self, flags: u32) -> Result<Element> {
        let text = self
            .domain
            .xml_desc(flags)
            .map_err(|e| self.failed("reading", e))?;
        parse(&format!("VM {}", self.name), &text)
    }

    /// Adds a device.
    pub fn attach_device(&self, device: &Element, to: Changes) -> Result<()> {
        self.domain
            .attach_device_flags(&device.to_string(), to.flags())
            .map_err(|e| self.failed("attaching a device to", e))
    }

    /// Takes a device out of the next start's description, or asks the running guest to let go of it: libvirt
    /// reports success for the request, not for its fulfilment.
    pub fn detach_device(&self, device: &Element, from: Changes) -> Result<()> {
        self.domain
            .detach_device_flags(&device.to_string(), from.flags())
            .map_err(|e| self.failed("detaching a device from", e))
    }

    /// Replaces the VM's metadata element of this namespace, in both descriptions; None removes it.
    pub fn set_metadata(&self, prefix: &str, namespace: &str, metadata: Option<&Element>) -> Result<()> {
        let text = metadata.map(ToString::to_string);
        self.set(
            sys::VIR_DOMAIN_METADATA_ELEMENT,
            text.as_deref(),
            Some(prefix),
            Some(namespace),
        )
    }

    /// The VM's metadata element of this namespace.
    pub fn metadata(&self, namespace: &str) -> Result<Option<Element>> {
        let kind = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
        match self.domain.metadata(kind, Some(namespace), 0) {
            Ok(text) => parse(&format!("VM {}'s metadata", self.name), &text).map(Some),
            Err(e) if is(&e, ErrorNumber::NoDomainMetadata) => Ok(None),
            Err(e) => Err(self.failed("reading metadata of", e)),
        }
    }

    /// The name that people see; None removes it. Libvirt takes no line breaks in it.
    pub fn set_title(&self, title: Option<&str>) -> Result<()> {
        self.set(sys::VIR_DOMAIN_METADATA_TITLE, title, None, None)
    }

    fn set(
        &self,
        kind: u32,
        text: Option<&str>,
        prefix: Option<&str>,
        namespace: Option<&str>,
    ) -> Result<()> {
        let flags = if self.is_active()? {
            sys::VIR_DOMAIN_AFFECT_LIVE | sys::VIR_DOMAIN_AFFECT_CONFIG
        } else {
            sys::VIR_DOMAIN_AFFECT_CONFIG
        };
        self.domain
            .set_metadata(kind.cast_signed(), text, prefix, namespace, flags)
            .map_err(|e| self.failed("setting metadata of", e))
    }

    fn failed(&self, doing: &str, e: LibvirtError) -> Error {
        if is(&e, ErrorNumber::NoDomain) {
            return Error::new(
                ErrorType::VmNotFound,
                format!("{doing} VM {}: it does not exist", self.name),
            );
        }
        Error::from(e).during(format!("{doing} VM {}", self.name))
    }
}

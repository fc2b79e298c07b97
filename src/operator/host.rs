//! What is on the host: our volumes in all active pools, and all domains. Read once, in few calls a thing, whatever the
//! number of VMs.

use std::collections::BTreeSet;

use super::volume_name::VolumeName;
use crate::cid::Cid;
use crate::disk::volumes_of;
use crate::libvirt::{Connection, Domain, Volume, VolumeDetails};
use crate::rpc::{ErrorType, Result};
use crate::xml::element::Element;

pub struct Host {
    pub volumes: Vec<FoundVolume>,
    /// Volumes of which libvirt has but the name, as when their file is gone.
    pub unreadable: Vec<VolumeName>,
    pub domains: Vec<FoundDomain>,
}

/// A volume of ours.
pub struct FoundVolume {
    pub name: VolumeName,
    pub volume: Volume,
    pub details: VolumeDetails,
}

/// A domain, ours or not.
pub struct FoundDomain {
    pub name: String,
    /// In one word.
    pub state: &'static str,
    /// The running VM, or what is started next time.
    pub xml: Element,
    /// Names of the volumes that it refers to, running or at its next start.
    pub volumes: BTreeSet<String>,
}

impl FoundDomain {
    fn read(domain: &Domain) -> Result<Self> {
        let persistent = domain.persistent_xml()?;
        let state = domain.state_name()?;
        let mut volumes: BTreeSet<String> = volumes_of(&persistent).into_iter().collect();
        let xml = if state == "off" { persistent } else { domain.xml()? };
        volumes.extend(volumes_of(&xml));
        Ok(Self {
            name: domain.name.clone(),
            state,
            xml,
            volumes,
        })
    }

    pub fn is_ours(&self) -> bool {
        Cid::new(&self.name).is_ok_and(|cid| cid.names_vm())
    }
}

impl Host {
    /// Volumes first: whatever belongs to a domain that is being made now is seen with it, or without both.
    pub fn look(libvirt: &Connection) -> Result<Self> {
        let (mut volumes, mut unreadable) = (Vec::new(), Vec::new());
        for pool in libvirt.active_pools()? {
            for volume in pool.unless_stopped(pool.volumes())?.unwrap_or_default() {
                let Some(name) = VolumeName::of(&volume.name) else {
                    continue;
                };
                match volume.details() {
                    Ok(details) => volumes.push(FoundVolume {
                        name,
                        volume,
                        details,
                    }),
                    // Volumes come and go while we look.
                    Err(_) if !matches!(pool.volume(&volume.name), Ok(Some(_))) => {}
                    Err(e) => {
                        log::warn!("volume {} in pool {} is left out: {e}", volume.name, pool.name);
                        unreadable.push(name);
                    }
                }
            }
        }
        volumes.sort_by(|a, b| a.volume.name.cmp(&b.volume.name));
        let mut domains = Vec::new();
        for domain in libvirt.all_domains()? {
            match FoundDomain::read(&domain) {
                Ok(found) => domains.push(found),
                Err(e) if e.error_type == ErrorType::VmNotFound => {}
                Err(e) => return Err(e),
            }
        }
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            volumes,
            unreadable,
            domains,
        })
    }

    /// Names of the domains, ours or not, that refer to a volume of this name.
    pub fn users<'a>(&'a self, volume: &'a str) -> impl Iterator<Item = &'a str> {
        self.domains
            .iter()
            .filter(move |domain| domain.volumes.contains(volume))
            .map(|domain| domain.name.as_str())
    }

    pub fn domain(&self, name: &str) -> Option<&FoundDomain> {
        self.domains.iter().find(|domain| domain.name == name)
    }

    /// The volumes that live and die with this VM.
    pub fn volumes_of_vm<'a>(&'a self, vm: &'a str) -> impl Iterator<Item = &'a FoundVolume> {
        self.volumes
            .iter()
            .filter(move |found| matches!(&found.name, VolumeName::OfVm(of, _) if of == vm))
    }

    /// Our volumes that are based on the file of this path.
    pub fn overlays_on<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a FoundVolume> {
        self.volumes
            .iter()
            .filter(move |found| found.details.state.backing_path.as_deref() == Some(path))
    }

    /// Whether there is a volume with this meaning.
    pub fn has(&self, name: &VolumeName) -> bool {
        self.volumes.iter().any(|found| found.name == *name)
    }
}

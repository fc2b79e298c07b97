//! What is on the host: our volumes in all active pools, and all domains. Read once, in few calls a thing, whatever the
//! number of VMs.

use std::collections::BTreeSet;

use crate::disk::volumes_of;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{ErrorType, Result};
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Domain, DomainStatus, Pool, Volume, VolumeDetails};
use libvirt_xml::element::Element;

pub struct Host {
    pub volumes: Vec<FoundVolume>,
    pub unreadable: Vec<UnreadableVolume>,
    pub hidden: Vec<HiddenPool>,
    pub domains: Vec<FoundDomain>,
}

/// A volume of ours of which libvirt has but the name.
pub struct UnreadableVolume {
    pub name: VolumeName,
    pub volume: String,
    pub pool: String,
    pub has_file: bool,
}

/// A pool whose volumes libvirt does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenPool {
    pub name: String,
    /// `inactive`, or libvirt's error.
    pub cause: String,
    /// As libvirt calls it: `dir`, `rbd`, ...
    pub kind: String,
    /// Directory or device on the host, or empty.
    target: String,
    source_name: String,
}

impl HiddenPool {
    fn new(pool: &Pool, cause: &str) -> Result<Self> {
        let info = pool.info()?;
        Ok(Self {
            name: pool.name.clone(),
            cause: cause.to_owned(),
            kind: info.kind,
            target: info.target,
            source_name: info.source_name,
        })
    }

    /// With the command that helps where there is one.
    pub fn with_remedy(&self) -> String {
        match self.cause.as_str() {
            INACTIVE => format!("{self} (virsh pool-start {})", self.name),
            _ => self.to_string(),
        }
    }

    /// Whether a domain's `<source>` is one of its volumes.
    pub fn holds(&self, source: &Element) -> bool {
        if let Some(pool) = source.attribute("pool") {
            return pool == self.name;
        }
        let is_in = |place: Option<&str>, parent: &str| {
            let rest = place.and_then(|place| place.strip_prefix(parent.trim_end_matches('/')));
            !parent.is_empty() && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        is_in(source.attribute("file"), &self.target)
            || is_in(source.attribute("dev"), &self.target)
            || is_in(source.attribute("name"), &self.source_name)
    }
}

/// `pool X is inactive`.
impl std::fmt::Display for HiddenPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cause.as_str() {
            INACTIVE => write!(f, "pool {} is inactive", self.name),
            error => write!(f, "pool {} cannot be read: {error}", self.name),
        }
    }
}

const INACTIVE: &str = "inactive";

/// A volume of ours.
pub struct FoundVolume {
    pub name: VolumeName,
    pub volume: Volume,
    pub details: VolumeDetails,
}

/// A domain, ours or not.
pub struct FoundDomain {
    pub name: String,
    pub status: DomainStatus,
    /// The running VM, or what starts next: of a saved VM, what it resumes with.
    pub xml: Element,
    /// Names of the volumes that it refers to, running, saved or at its next start.
    pub volumes: BTreeSet<String>,
    /// Why its saved state is not known, if there is one.
    pub unreadable: Option<String>,
}

impl FoundDomain {
    fn read(domain: &Domain) -> Result<Self> {
        let persistent = domain.persistent_xml()?;
        let status = domain.status()?;
        let mut volumes: BTreeSet<String> = volumes_of(&persistent).into_iter().collect();
        let mut unreadable = None;
        let xml = if status.active {
            domain.xml()?
        } else {
            match domain.saved_xml() {
                Ok(saved) => saved.unwrap_or(persistent),
                Err(e) if e.error_type == ErrorType::VmNotFound => return Err(e),
                Err(e) => {
                    unreadable = Some(e.message);
                    persistent
                }
            }
        };
        volumes.extend(volumes_of(&xml));
        Ok(Self {
            name: domain.name.clone(),
            status,
            xml,
            volumes,
            unreadable,
        })
    }

    pub fn is_ours(&self) -> bool {
        Cid::new(&self.name).is_ok_and(|cid| cid.names_vm())
    }
}

impl Host {
    /// Volumes first: whatever belongs to a domain that is being made now is seen with it, or without both.
    pub fn look(libvirt: &Connection) -> Result<Self> {
        let (mut volumes, mut unreadable, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for pool in libvirt.active_pools()? {
            let listed = match pool.unless_stopped(pool.volumes()) {
                Ok(listed) => listed.unwrap_or_default(),
                Err(e) => {
                    hidden.push(HiddenPool::new(&pool, &e.message)?);
                    continue;
                }
            };
            for volume in listed {
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
                        unreadable.push(UnreadableVolume {
                            name,
                            has_file: e.error_type != ErrorType::DiskNotFound,
                            volume: volume.name,
                            pool: pool.name.clone(),
                        });
                    }
                }
            }
        }
        // Afterwards: a pool that has stopped since is seen to be inactive.
        for pool in libvirt.inactive_pools()? {
            match HiddenPool::new(&pool, INACTIVE) {
                Ok(pool) => hidden.push(pool),
                Err(_) if !matches!(libvirt.find_pool(&pool.name), Ok(Some(_))) => {}
                Err(e) => return Err(e),
            }
        }
        hidden.sort_by(|a, b| a.name.cmp(&b.name));
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
            hidden,
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

    /// The volume of this persistent disk or snapshot.
    pub fn disk_volume(&self, cid: &str) -> Option<&FoundVolume> {
        let is_it = |found: &&FoundVolume| match &found.name {
            VolumeName::Disk(of) | VolumeName::Snapshot(of) => of == cid,
            _ => false,
        };
        self.volumes.iter().find(is_it)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_pool_holds_what_is_named_by_it_or_lies_in_it() {
        let pool = |target: &str, source_name: &str| HiddenPool {
            name: "p".to_owned(),
            cause: INACTIVE.to_owned(),
            kind: "dir".to_owned(),
            target: target.to_owned(),
            source_name: source_name.to_owned(),
        };
        for (target, source_name, source, expected) in [
            ("/a/b", "", "<source pool='p' volume='v'/>", true),
            ("/a/b", "", "<source pool='q' volume='v'/>", false),
            ("/a/b", "", "<source file='/a/b/v'/>", true),
            ("/a/b/", "", "<source file='/a/b/v'/>", true),
            ("/a/b", "", "<source file='/a/bc/v'/>", false),
            ("/dev/vg", "vg", "<source dev='/dev/vg/v'/>", true),
            ("", "rbd", "<source protocol='rbd' name='rbd/v'/>", true),
            ("", "rbd", "<source protocol='rbd' name='rbd2/v'/>", false),
            ("", "", "<source file='/v'/>", false),
        ] {
            let source = Element::parse(source).unwrap();
            assert_eq!(pool(target, source_name).holds(&source), expected, "{source}");
        }
    }
}

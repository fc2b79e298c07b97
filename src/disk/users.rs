//! Which VMs have a volume: running, defined or saved, ours or not, and through which layer of a disk.

use std::collections::BTreeSet;

use super::Attachments;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use libvirt_host::{Connection, Domain, Volume, in_shares};

/// A VM that has the volume.
pub struct User {
    pub domain: Domain,
    pub attachments: Attachments,
}

impl User {
    fn name(&self) -> String {
        let name = self.domain.name.clone();
        if self.attachments.saved.is_some() {
            format!("{name} (saved)")
        } else {
            name
        }
    }
}

/// All VMs that have the volume.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked.
pub fn of(libvirt: &Connection, volume: &str) -> Result<Vec<User>> {
    of_among(libvirt, libvirt.all_domains()?, volume)
}

/// As `of`, but only VMs whose names are cids of ours: those that another call may be attaching the disk to.
///
/// # Errors
/// As for `of`.
pub fn of_ours(libvirt: &Connection, volume: &str) -> Result<Vec<User>> {
    let mut domains = libvirt.all_domains()?;
    domains.retain(|domain| Cid::new(&domain.name).is_ok_and(|cid| cid.names_vm()));
    of_among(libvirt, domains, volume)
}

/// Refuses a volume that a VM has, or that another volume is an overlay on.
///
/// # Errors
/// `CloudError` naming them, and what ends that.
pub fn require_none(libvirt: &Connection, volume: &Volume) -> Result<()> {
    require_only(None, &of(libvirt, &volume.name)?)?;
    require_no_overlay(libvirt, volume)
}

/// Refuses a volume that a VM other than this one has.
///
/// # Errors
/// `CloudError` naming the VMs, saved ones as such.
pub fn require_only(allowed: Option<&Domain>, users: &[User]) -> Result<()> {
    let others: Vec<String> = users
        .iter()
        .filter(|user| allowed.is_none_or(|allowed| user.domain.name != allowed.name))
        .map(User::name)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::cloud(format!(
        "it is attached to {} (detach it there first)",
        others.join(", ")
    )))
}

/// Refuses a volume that another one is an overlay on, where no VM tells of that: the newest data is in the overlay, and
/// is worthless once the volume is written to. Looks at what libvirt knows of active pools.
///
/// # Errors
/// `CloudError` naming the overlay.
pub fn require_no_overlay(libvirt: &Connection, volume: &Volume) -> Result<()> {
    let path = volume.path()?;
    match libvirt.foreign_overlays_on(&path)?.first() {
        None => Ok(()),
        Some(overlay) => Err(Error::cloud(format!(
            "{0} is an overlay on its volume {path} and may have newer data (bring it back: qemu-img commit {0}; then \
             delete {0} and refresh its pool)",
            overlay.path()?
        ))),
    }
}

fn of_among(libvirt: &Connection, domains: Vec<Domain>, volume: &str) -> Result<Vec<User>> {
    let saved = libvirt.saved_domains()?;
    let search = Search::new(volume, saved);
    let mut users = in_shares(domains, move |share| search.in_turn(share))?;
    users.sort_by(|a, b| a.domain.name.cmp(&b.domain.name));
    Ok(users)
}

#[derive(Clone)]
struct Search {
    volume: String,
    /// Texts one of which is in the XML of every domain that has the volume.
    texts: Vec<String>,
    /// Names of the domains with a managed save image.
    saved: BTreeSet<String>,
}

impl Search {
    fn new(volume: &str, saved: BTreeSet<String>) -> Self {
        let serial = Cid::new(volume)
            .ok()
            .filter(Cid::names_disk)
            .map(|cid| cid.disk_serial());
        let texts: BTreeSet<String> = serial.into_iter().chain([volume.to_owned()]).collect();
        Self {
            volume: volume.to_owned(),
            texts: texts.into_iter().collect(),
            saved,
        }
    }

    fn in_turn(&self, domains: Vec<Domain>) -> Result<Vec<User>> {
        let mut users = Vec::new();
        for domain in domains {
            match self.attachments(&domain) {
                Ok(Some(attachments)) => users.push(User { domain, attachments }),
                Ok(None) => {}
                // Somebody else's VM may be deleted while we look.
                Err(error) if error.error_type == ErrorType::VmNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(users)
    }

    /// The VM's disks, if the volume is among them. Hosts have many VMs, and hardly any has the disk: their XML is not
    /// worth parsing.
    fn attachments(&self, domain: &Domain) -> Result<Option<Attachments>> {
        let is_saved = self.saved.contains(&domain.name);
        if !domain.mentions(&self.texts, is_saved)? {
            return Ok(None);
        }
        let attachments = Attachments::of(domain)?;
        Ok(attachments.has(&self.volume).then_some(attachments))
    }
}

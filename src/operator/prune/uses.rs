//! Why a volume that looks orphaned stays: what uses it, and what cannot be looked into and may use it.

use std::collections::{BTreeMap, BTreeSet};

use crate::operator::host::{FoundDomain, FoundVolume, HiddenPool, Host};
use bosh_cpi::rpc::{ErrorType, Result};
use libvirt_host::Connection;
use libvirt_host::volume_name::VolumeName;
use libvirt_xml::element::Element;

/// Kinds of pools whose volumes are never overlays.
const WITHOUT_OVERLAYS: &[&str] = &[
    "logical",
    "disk",
    "iscsi",
    "iscsi-direct",
    "scsi",
    "mpath",
    "rbd",
    "sheepdog",
    "zfs",
];

/// Who uses what, on the whole host.
pub struct Uses {
    /// By path, a volume of somebody else's that is based on it.
    overlays: BTreeMap<String, String>,
    /// What may use any volume, and cannot be looked into.
    unknown: Option<String>,
}

impl Uses {
    pub fn look(libvirt: &Connection, host: &Host) -> Result<Self> {
        let mut overlays = BTreeMap::new();
        // One without a file is no overlay.
        let ours = host.unreadable.iter().filter(|volume| volume.has_file);
        let mut unreadable: Vec<String> = ours
            .map(|volume| cannot_be_read(&volume.volume, &volume.pool))
            .collect();
        let mut paths: BTreeSet<String> = host
            .volumes
            .iter()
            .map(|found| found.details.path.clone())
            .collect();
        for pool in libvirt.active_pools()? {
            // One that cannot be listed is among the hidden ones.
            let Ok(volumes) = pool.volumes() else { continue };
            for volume in volumes.iter().filter(|volume| is_foreign(&volume.name)) {
                match volume.details() {
                    Ok(details) => {
                        if let Some(backing) = details.state.backing_path {
                            overlays.insert(backing, volume.name.clone());
                        }
                        paths.insert(details.path);
                    }
                    Err(e) if e.error_type == ErrorType::DiskNotFound => {}
                    Err(_) if !matches!(pool.volume(&volume.name), Ok(Some(_))) => {}
                    Err(_) => unreadable.push(cannot_be_read(&volume.name, &pool.name)),
                }
            }
        }
        let pools = host.hidden.iter().filter(|pool| may_have_overlays(pool));
        let pools = pools.map(|pool| format!("an overlay on it may be there: {}", pool.with_remedy()));
        let saved = host.domains.iter().filter_map(|domain| {
            let error = domain.unreadable.as_ref()?;
            Some(format!(
                "the saved state of VM {} cannot be read: {error}",
                domain.name
            ))
        });
        let chains = host
            .domains
            .iter()
            .filter_map(|domain| unknown_chain(domain, &paths));
        let unknown = pools.chain(saved).chain(unreadable).chain(chains).next();
        Ok(Self { overlays, unknown })
    }

    /// Why this volume stays.
    pub fn of(&self, host: &Host, found: &FoundVolume) -> Option<String> {
        self.of_others(host, found, None)
    }

    /// Why this volume stays although this domain goes.
    pub fn of_others(&self, host: &Host, found: &FoundVolume, except: Option<&str>) -> Option<String> {
        if let Some(user) = host.users(&found.volume.name).find(|user| Some(*user) != except) {
            return Some(format!("{user} uses it"));
        }
        if !has_content(&found.name) {
            return None;
        }
        let path = &found.details.path;
        let ours = host.overlays_on(path).map(|overlay| &overlay.volume.name).next();
        if let Some(overlay) = ours.or_else(|| self.overlays.get(path)) {
            return Some(format!("{overlay} is based on it"));
        }
        self.unknown.clone()
    }
}

fn cannot_be_read(volume: &str, pool: &str) -> String {
    format!(
        "volume {volume} in pool {pool} cannot be read, and may be based on it (virsh vol-info {volume} --pool {pool})"
    )
}

fn is_foreign(name: &str) -> bool {
    VolumeName::of(name).is_none()
}

/// Whether it holds what somebody can have put an overlay on.
fn has_content(name: &VolumeName) -> bool {
    match name {
        VolumeName::Stemcell(_) | VolumeName::Disk(_) | VolumeName::Snapshot(_) | VolumeName::OfVm(..) => {
            true
        }
        VolumeName::Record(_)
        | VolumeName::Incomplete(_)
        | VolumeName::Deleting(_)
        | VolumeName::Probe(_) => false,
    }
}

fn may_have_overlays(pool: &HiddenPool) -> bool {
    !WITHOUT_OVERLAYS.contains(&pool.kind.as_str())
}

/// libvirt tells the backing files of running VMs, and of volumes in pools: not those of an image that a VM will be
/// started from and that is in no pool, unless the definition names them.
fn unknown_chain(domain: &FoundDomain, known: &BTreeSet<String>) -> Option<String> {
    if domain.status.active {
        return None;
    }
    let devices = domain.xml.child("devices")?;
    let image = devices.children_named("disk").find_map(|disk| {
        let file = disk.child("source")?.attribute("file")?;
        let format = disk.child("driver").and_then(|driver| driver.attribute("type"));
        let is_known = known.contains(file) || disk.child("backingStore").is_some() || is_raw(disk, format);
        (!is_known).then_some(file)
    })?;
    Some(format!(
        "VM {} starts from {image}, which is in no active pool and may be based on it",
        domain.name
    ))
}

fn is_raw(disk: &Element, format: Option<&str>) -> bool {
    // Without a format, libvirt takes it for raw.
    matches!(disk.attribute("device"), Some("cdrom" | "floppy")) || matches!(format, None | Some("raw"))
}

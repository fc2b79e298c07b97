//! Stemcells, VMs, disks, snapshots and networks as `list` and `show` present them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::host::{FoundDomain, FoundVolume, HiddenPool, Host};
use crate::disk::{Layer, Record, cid_of, disk_cids_in, disks as disk_elements, layer_of, name_of};
use crate::network::Subnet;
use crate::stemcell;
use crate::vm::incomplete;
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::rpc::{ErrorType, Result};
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, DomainStatus, Network, VolumeDetails};
use libvirt_xml::element::Element;
use libvirt_xml::metadata::{VM_NAMESPACE, disk_namespace, of_domain};

/// What is being made, or was when its call was killed.
pub const INCOMPLETE: &str = "incomplete";

#[derive(Debug, Serialize)]
pub struct Stemcell {
    pub cid: String,
    /// Name and version, as far as they are known.
    pub name: String,
    /// The operator's volume that a light stemcell stands for.
    pub light: Option<stemcell::NamedVolume>,
    pub pool: String,
    pub format: Option<&'static str>,
    /// Bytes taken from the pool.
    #[serde(rename = "real_bytes")]
    pub allocation: u64,
    /// Virtual size, bytes.
    #[serde(rename = "virtual_bytes")]
    pub capacity: u64,
    /// VMs whose boot disks are overlays on it.
    pub vms: Vec<String>,
    /// Whether it is still being uploaded, or was when its call was killed.
    pub partial: bool,
    /// When its upload ended: it is written to once.
    #[serde(serialize_with = "rfc_3339")]
    pub created_at: Option<SystemTime>,
}

#[derive(Debug, Serialize)]
pub struct Vm {
    pub cid: String,
    #[serde(flatten)]
    pub owner: Owner,
    #[serde(flatten)]
    pub status: DomainStatus,
    /// What an operator should know beside the state.
    pub notes: Vec<String>,
    /// Bytes of its own volumes: boot, ephemeral, settings.
    #[serde(rename = "real_bytes")]
    pub allocation: u64,
    #[serde(rename = "virtual_bytes")]
    pub capacity: u64,
    /// The volume that its boot disk is an overlay on, where that is a stemcell's.
    pub stemcell: Option<String>,
    pub disks: Vec<String>,
    /// When its settings were written.
    #[serde(serialize_with = "rfc_3339")]
    pub created_at: Option<SystemTime>,
}

/// A persistent disk or a snapshot.
#[derive(Debug, Serialize)]
pub struct Disk {
    pub cid: String,
    #[serde(flatten)]
    pub owner: Owner,
    /// None, like all that libvirt tells of a volume, where only a VM tells of the disk.
    pub pool: Option<String>,
    pub format: Option<&'static str>,
    #[serde(rename = "real_bytes")]
    pub allocation: Option<u64>,
    #[serde(rename = "virtual_bytes")]
    pub capacity: Option<u64>,
    pub attached_to: Vec<String>,
    pub partial: bool,
    /// What an operator should know.
    pub notes: Vec<String>,
    #[serde(serialize_with = "rfc_3339")]
    pub written_at: Option<SystemTime>,
}

#[derive(Debug, Serialize)]
pub struct NetworkUse {
    pub name: String,
    /// Whether `create_network` made it.
    pub made_by_cpi: bool,
    pub active: bool,
    pub subnets: Vec<String>,
    pub vms: Vec<String>,
}

/// Whose a thing is, by what the Director said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Owner {
    pub deployment: Option<String>,
    pub instance: Option<String>,
}

impl Owner {
    pub fn of(metadata: &Map<String, Value>) -> Self {
        let text = |key: &str| match metadata.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let any = |keys: &[&str]| keys.iter().find_map(|key| text(key));
        let named = any(&["name", "instance_name"]);
        let numbered = || {
            let id = any(&["id", "instance_id", "index", "instance_index"])?;
            Some(format!("{}/{id}", any(&["job", "instance_group"])?))
        };
        Self {
            deployment: text("deployment"),
            instance: named.or_else(numbered),
        }
    }

    /// `deployment instance`, as far as they are known.
    pub fn name(&self) -> String {
        [&self.deployment, &self.instance]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

pub(super) fn rfc_3339<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    time.map(logging::timestamp).serialize(serializer)
}

fn format_of(found: &FoundVolume) -> Option<&'static str> {
    found
        .details
        .state
        .format
        .map(libvirt_xml::volume::VolumeFormat::name)
}

/// Uploaded stemcells, and light ones, of which there is a record only.
pub fn stemcells(libvirt: &Connection, host: &Host) -> Result<Vec<Stemcell>> {
    let mut stemcells = Vec::new();
    for found in &host.volumes {
        let cid = match &found.name {
            VolumeName::Stemcell(cid) => cid,
            VolumeName::Record(of) if !host.has(&VolumeName::Stemcell(of.clone())) => of,
            _ => continue,
        };
        let is_uploaded = matches!(found.name, VolumeName::Stemcell(_));
        let record = stemcell_record(libvirt, found, cid)?;
        if let Some(record) = record.filter(|record| is_uploaded || record.volume.is_some()) {
            stemcells.push(stemcell(libvirt, host, found, cid, record)?);
        }
    }
    Ok(stemcells)
}

/// None for what is no stemcell, or has gone meanwhile.
fn stemcell_record(libvirt: &Connection, found: &FoundVolume, cid: &str) -> Result<Option<stemcell::Record>> {
    let cid = Cid::new(cid).ok().filter(|cid| cid.stemcell_volume().is_some());
    let (Some(cid), Some(pool)) = (cid, libvirt.find_pool(&found.volume.pool)?) else {
        return Ok(None);
    };
    match stemcell::Record::read(libvirt, &pool, &cid) {
        Err(e) if e.error_type == ErrorType::DiskNotFound => Ok(None),
        // The others are worth a list.
        Err(e) if e.error_type == ErrorType::CloudError => {
            log::warn!("stemcell {cid} is left out: {e}");
            Ok(None)
        }
        record => record.map(Some),
    }
}

fn stemcell(
    libvirt: &Connection,
    host: &Host,
    found: &FoundVolume,
    cid: &str,
    record: stemcell::Record,
) -> Result<Stemcell> {
    let text = |key: &str| record.properties.get(key).and_then(Value::as_str);
    let name = [text("name"), text("version")]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let details = match &record.volume {
        // Its own volume may be gone; then the stemcell is of no use, but there.
        Some(volume) => operators_volume(libvirt, volume)?,
        None => Some(found.details.clone()),
    };
    let vm = |overlay: &FoundVolume| match &overlay.name {
        VolumeName::OfVm(vm, _) => Some(vm.clone()),
        _ => None,
    };
    let path = details
        .as_ref()
        .map(|details| details.path.clone())
        .unwrap_or_default();
    let state = details.map(|details| details.state);
    Ok(Stemcell {
        cid: cid.to_owned(),
        name: name.join(" "),
        light: record.volume,
        pool: found.volume.pool.clone(),
        format: state.as_ref().and_then(|state| Some(state.format?.name())),
        allocation: state.as_ref().map_or(0, |state| state.allocation),
        capacity: state.as_ref().map_or(0, |state| state.capacity),
        vms: host.overlays_on(&path).filter_map(vm).collect(),
        partial: host.has(&VolumeName::Incomplete(cid.to_owned())),
        created_at: found.details.state.modified,
    })
}

fn operators_volume(libvirt: &Connection, name: &stemcell::NamedVolume) -> Result<Option<VolumeDetails>> {
    let Some(pool) = libvirt.find_pool(&name.pool)? else {
        return Ok(None);
    };
    let volume = pool.unless_stopped(pool.volume(&name.volume))?.flatten();
    Ok(volume.and_then(|volume| volume.details().ok()))
}

pub fn vms(host: &Host) -> Vec<Vm> {
    let ours = host.domains.iter().filter(|domain| domain.is_ours());
    ours.map(|domain| vm(host, domain)).collect()
}

pub fn vm(host: &Host, domain: &FoundDomain) -> Vm {
    let volumes: Vec<&FoundVolume> = host.volumes_of_vm(&domain.name).collect();
    let sum = |bytes: fn(&FoundVolume) -> u64| volumes.iter().map(|found| bytes(found)).sum();
    let backing = volumes
        .iter()
        .find_map(|found| found.details.state.backing_path.as_ref());
    let stemcell = backing.and_then(|path| host.volumes.iter().find(|found| found.details.path == *path));
    Vm {
        cid: domain.name.clone(),
        owner: Owner::of(&of_domain(&domain.xml, VM_NAMESPACE)),
        notes: vm_notes(host, domain),
        status: domain.status.clone(),
        allocation: sum(|found| found.details.state.allocation),
        capacity: sum(|found| found.details.state.capacity),
        stemcell: stemcell.map(|found| found.volume.name.clone()),
        disks: disk_cids_in(&domain.xml),
        created_at: volumes
            .iter()
            .filter_map(|found| found.details.state.modified)
            .min(),
    }
}

fn vm_notes(host: &Host, domain: &FoundDomain) -> Vec<String> {
    let mut notes = Vec::new();
    if domain.status.transient {
        notes.push("transient: gone when it stops".to_owned());
    }
    notes.extend(domain.status.job.map(str::to_owned));
    if incomplete::is_marked(&domain.xml) {
        notes.push(INCOMPLETE.to_owned());
    }
    notes.extend(
        domain
            .unreadable
            .iter()
            .map(|e| format!("its saved state cannot be read: {e}")),
    );
    for disk in disk_elements(&domain.xml) {
        notes.extend(block_job(disk));
        let own = host
            .volumes_of_vm(&domain.name)
            .map(|found| found.volume.name.clone());
        let volumes = own.chain(cid_of(disk));
        notes.extend(volumes.filter_map(|volume| data_elsewhere(domain, disk, &volume)));
    }
    let sources = disk_elements(&domain.xml).filter_map(|disk| disk.child("source"));
    let hidden = sources.filter_map(|source| host.hidden.iter().find(|pool| pool.holds(source)));
    notes.extend(hidden.map(ToString::to_string));
    let disks = disk_cids_in(&domain.xml);
    let missing = disks.iter().filter(|cid| host.disk_volume(cid).is_none());
    let known = missing.filter(|cid| hidden_pool_of(host, cid).is_none());
    notes.extend(known.map(|cid| format!("the volume of {cid} is missing")));
    let mut seen = BTreeSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    notes
}

/// Where the newest data of the volume is, if it is not in the volume: in an overlay of a backup tool, say.
fn data_elsewhere(domain: &FoundDomain, disk: &Element, volume: &str) -> Option<String> {
    let target = disk.child("target")?.attribute("dev")?;
    let vm = &domain.name;
    match layer_of(disk, volume)? {
        Layer::Top => None,
        Layer::Below(file) => {
            let start = if domain.status.active {
                String::new()
            } else {
                format!("virsh start {vm}; ")
            };
            Some(format!(
                "the newest data of {volume} is in the overlay {file} ({start}virsh blockcommit {vm} {target} --active \
                 --wait --pivot)"
            ))
        }
        Layer::Elsewhere(file) => Some(format!("the data of {volume} is in {file}, not in its volume")),
    }
}

/// `block copy of vdc`: data is about to be elsewhere.
fn block_job(disk: &Element) -> Option<String> {
    let mirror = disk.child("mirror")?;
    let target = disk.child("target")?.attribute("dev")?;
    let job = match mirror.attribute("job") {
        Some("active-commit") => "block commit",
        _ => "block copy",
    };
    let ready = match mirror.attribute("ready") {
        Some("yes") => ", ready to pivot",
        _ => "",
    };
    Some(format!("{job} of {target}{ready}"))
}

/// Persistent disks, or snapshots: their volumes, and those of which only a VM tells.
pub fn disks(libvirt: &Connection, host: &Host, snapshots: bool) -> Result<Vec<Disk>> {
    let is_wanted = |cid: &str| Cid::new(cid).is_ok_and(|cid| cid.names_snapshot() == snapshots);
    let mut cids = BTreeSet::new();
    for found in &host.volumes {
        if let VolumeName::Disk(cid) | VolumeName::Snapshot(cid) = &found.name {
            cids.insert(cid.clone());
        }
    }
    cids.extend(host.domains.iter().flat_map(|domain| disk_cids_in(&domain.xml)));
    let wanted = cids.iter().filter(|cid| is_wanted(cid));
    wanted.map(|cid| disk(libvirt, host, cid)).collect()
}

pub fn disk(libvirt: &Connection, host: &Host, cid: &str) -> Result<Disk> {
    let found = host.disk_volume(cid);
    let hidden = hidden_pool_of(host, cid);
    let partial = host.has(&VolumeName::Incomplete(cid.to_owned()));
    let mut notes = Vec::new();
    if partial {
        notes.push(INCOMPLETE.to_owned());
    }
    if host.has(&VolumeName::Deleting(cid.to_owned())) {
        notes.push("a delete is in progress or was interrupted".to_owned());
    }
    for domain in &host.domains {
        let attached = disk_elements(&domain.xml).filter(|disk| cid_of(disk).as_deref() == Some(cid));
        notes.extend(attached.filter_map(|disk| data_elsewhere(domain, disk, cid)));
    }
    let owner = match disk_metadata(libvirt, host, cid) {
        Ok(metadata) => Owner::of(&metadata),
        // The others are worth a list.
        Err(e) if e.error_type == ErrorType::CloudError => {
            notes.push(e.message);
            Owner::default()
        }
        Err(e) => return Err(e),
    };
    match (found, hidden) {
        (Some(_), _) => {}
        (None, Some(pool)) => notes.push(pool.to_string()),
        (None, None) => notes.push("its volume is missing".to_owned()),
    }
    let state = found.map(|found| &found.details.state);
    Ok(Disk {
        cid: cid.to_owned(),
        owner,
        pool: found
            .map(|found| found.volume.pool.clone())
            .or_else(|| hidden.map(|pool| pool.name.clone())),
        format: found.and_then(format_of),
        allocation: state.map(|state| state.allocation),
        capacity: state.map(|state| state.capacity),
        attached_to: host.users(cid).map(str::to_owned).collect(),
        partial,
        notes,
        written_at: state.and_then(|state| state.modified),
    })
}

/// The pool that a disk's volume is in, where nobody can look into it but a VM names it.
fn hidden_pool_of<'a>(host: &'a Host, cid: &str) -> Option<&'a HiddenPool> {
    let mut sources = host
        .domains
        .iter()
        .flat_map(|domain| disk_elements(&domain.xml))
        .filter(|disk| name_of(disk) == Some(cid))
        .filter_map(|disk| disk.child("source"));
    sources.find_map(|source| host.hidden.iter().find(|pool| pool.holds(source)))
}

/// What the Director said of a disk. A VM that has it shows it, which is quicker to read than the disk's record.
fn disk_metadata(libvirt: &Connection, host: &Host, cid: &str) -> Result<Map<String, Value>> {
    let namespace = disk_namespace(cid);
    let shown = host.domains.iter().filter(|domain| domain.volumes.contains(cid));
    if let Some(metadata) = shown
        .map(|domain| of_domain(&domain.xml, &namespace))
        .find(|metadata| !metadata.is_empty())
    {
        return Ok(metadata);
    }
    Ok(disk_record(libvirt, host, cid)?.metadata)
}

/// The disk's sidecar record, wherever it is; an empty one when there is none.
///
/// # Errors
/// `CloudError` naming a record that cannot be read.
pub fn disk_record(libvirt: &Connection, host: &Host, cid: &str) -> Result<Record> {
    let name = VolumeName::Record(cid.to_owned());
    let Some(found) = host.volumes.iter().find(|found| found.name == name) else {
        return Ok(Record::default());
    };
    match Record::read_from(libvirt, &found.volume) {
        // Disks come and go while we look.
        Err(e) if e.error_type == ErrorType::DiskNotFound => Ok(Record::default()),
        record => record,
    }
}

/// The networks that `create_network` made, and those that VMs of ours have NICs in.
pub fn networks(libvirt: &Connection, host: &Host) -> Result<Vec<NetworkUse>> {
    let mut networks = Vec::new();
    for network in libvirt.all_networks()? {
        let vms = users(host, &network.name);
        let made_by_cpi = Cid::new(&network.name).is_ok_and(|cid| cid.names_network());
        if !made_by_cpi && vms.is_empty() {
            continue;
        }
        match network_use(&network, made_by_cpi, vms) {
            Ok(found) => networks.push(found),
            Err(e) if e.error_type == ErrorType::NetworkNotFound => {}
            Err(e) => return Err(e),
        }
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

pub fn network_use(network: &Network, made_by_cpi: bool, vms: Vec<String>) -> Result<NetworkUse> {
    let xml = network.xml()?;
    Ok(NetworkUse {
        name: network.name.clone(),
        made_by_cpi,
        active: network.is_active()?,
        subnets: xml
            .children_named("ip")
            .filter_map(Subnet::of_ip_element)
            .map(|subnet| subnet.to_string())
            .collect(),
        vms,
    })
}

/// Our VMs with a NIC in this libvirt network.
pub fn users(host: &Host, network: &str) -> Vec<String> {
    let in_it = |domain: &&FoundDomain| interfaces(&domain.xml).any(|nic| network_of(nic) == Some(network));
    let ours = host
        .domains
        .iter()
        .filter(|domain| domain.is_ours())
        .filter(in_it);
    ours.map(|domain| domain.name.clone()).collect()
}

pub fn interfaces(domain: &Element) -> impl Iterator<Item = &Element> {
    let devices = domain.child("devices").into_iter();
    devices.flat_map(|devices| devices.children_named("interface"))
}

/// The libvirt network, bridge or device that a NIC is on.
pub fn network_of(interface: &Element) -> Option<&str> {
    let source = interface.child("source")?;
    ["network", "bridge", "dev"]
        .iter()
        .find_map(|key| source.attribute(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_read_from_what_directors_say() {
        for (metadata, expected) in [
            (
                json!({"deployment": "cf", "name": "router/7f", "job": "router", "index": 0}),
                "cf router/7f",
            ),
            (
                json!({"deployment": "cf", "job": "router", "index": 0}),
                "cf router/0",
            ),
            (
                json!({"deployment": "cf", "instance_group": "db", "instance_id": "7f"}),
                "cf db/7f",
            ),
            (json!({"deployment": "cf"}), "cf"),
            (json!({"name": ["x"], "deployment": ""}), ""),
        ] {
            assert_eq!(
                Owner::of(metadata.as_object().unwrap()).name(),
                expected,
                "{metadata}"
            );
        }
    }
}

//! What is left over, and what of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::uses::Uses;
use super::{Leftover, Target, directories, networks};
use crate::cli::Prune;
use crate::network;
use crate::operator::host::{FoundDomain, FoundVolume, Host};
use crate::operator::probe::Probe;
use crate::operator::views;
use crate::stemcell;
use crate::vm;
use bosh_cpi::cid::{Cid, names_disk};
use bosh_cpi::measures::span;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use libvirt_host::Connection;
use libvirt_host::volume_name::SETTINGS;
use libvirt_host::volume_name::VolumeName;

/// Kinds of pools that no other host sees.
const LOCAL: &[&str] = &["dir", "fs", "logical", "disk", "zfs"];

/// Everything that is left over, also what stays for now.
pub fn find(libvirt: &Connection, wanted: &Prune) -> Result<Vec<Leftover>> {
    // Entries are made after domains and go after them, so they are read first: one whose domain is not seen
    // afterwards is a dead VM's.
    let entries = network::entries_of_vms(libvirt)?;
    let host = Host::look(libvirt)?;
    let judge = Judge::new(libvirt, wanted, &host)?;
    let uses = Uses::look(libvirt, &host)?;
    let mut found = of_vms(&host, &uses, &judge);
    found.extend(half_vms(&host, &uses, &judge));
    found.extend(incomplete(&host, &uses, &judge));
    found.extend(records(libvirt, &host, &judge)?);
    found.extend(deletions(&host, &judge));
    found.extend(probes(&host, &uses, &judge));
    found.extend(dhcp_entries(&host, &entries, &judge));
    found.extend(networks::find(libvirt)?);
    found.extend(directories::find(wanted.older_than));
    let places = &wanted.places;
    found.retain(|leftover| places.is_empty() || places.contains(&leftover.place));
    Ok(found)
}

/// Decides what stays.
struct Judge {
    older_than: Duration,
    unshared: bool,
    /// By pool, the clock of who keeps its files, where it was read; and its kind.
    now: BTreeMap<String, std::result::Result<SystemTime, String>>,
    kinds: BTreeMap<String, String>,
}

impl Judge {
    /// Ages go by the host's clock where something will be deleted. To look, ours is good enough: reading the host's
    /// takes a volume that is made for it.
    fn new(libvirt: &Connection, wanted: &Prune, host: &Host) -> Result<Self> {
        let pools: BTreeSet<&String> = host.volumes.iter().map(|found| &found.volume.pool).collect();
        let (mut now, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for name in pools {
            let Some(pool) = libvirt.find_pool(name)? else {
                continue;
            };
            // Pools of others come and go while we look.
            let Some(info) = pool.unless_stopped(pool.info())? else {
                continue;
            };
            let kind = info.kind;
            // Only files tell when they were written.
            let is_wanted = wanted.places.is_empty() || wanted.places.contains(name);
            if wanted.yes && is_wanted && matches!(kind.as_str(), "dir" | "fs" | "netfs") {
                let clock = Probe::new(&pool).and_then(|probe| probe.clock_difference());
                now.insert(
                    name.clone(),
                    match clock {
                        Ok(Some((false, behind))) => Ok(SystemTime::now() - behind),
                        Ok(_) => Ok(SystemTime::now()),
                        Err(e) => Err(e.message),
                    },
                );
            }
            kinds.insert(name.clone(), kind);
        }
        Ok(Self {
            older_than: wanted.older_than,
            unshared: wanted.unshared,
            now,
            kinds,
        })
    }

    /// Why something last written to then, in this pool, stays; None when it is old enough.
    fn spares(&self, pool: &str, written_at: Option<SystemTime>) -> Option<String> {
        let now = match self.now.get(pool) {
            Some(Err(e)) => return Some(format!("the host's clock is not known: {e}")),
            Some(Ok(now)) => *now,
            None => SystemTime::now(),
        };
        let Some(written_at) = written_at else {
            return Some("its last modification is unknown".to_owned());
        };
        match now.duration_since(written_at) {
            Ok(age) if age >= self.older_than => None,
            _ => Some(format!("younger than {}", span(self.older_than))),
        }
    }

    /// Why what is only known to be unused on this host stays.
    fn spares_shared(&self, pool: &str) -> Option<String> {
        let kind = self.kinds.get(pool).map_or("unknown", String::as_str);
        (!self.unshared && !LOCAL.contains(&kind))
            .then(|| format!("may be another host's: pool of type {kind}; see --unshared"))
    }
}

fn leftover(kind: &'static str, found: &FoundVolume, spared: Option<String>, target: Target) -> Leftover {
    Leftover {
        kind,
        name: found.volume.name.clone(),
        place: found.volume.pool.clone(),
        bytes: found.details.state.allocation,
        written_at: found.details.state.modified,
        spared,
        deleted: false,
        target,
    }
}

/// Volumes of VMs that have no domain. Those of one VM go or stay together.
fn of_vms(host: &Host, uses: &Uses, judge: &Judge) -> Vec<Leftover> {
    let mut of_vms: BTreeMap<&str, Vec<&FoundVolume>> = BTreeMap::new();
    for found in &host.volumes {
        if let VolumeName::OfVm(vm, _) = &found.name
            && host.domain(vm).is_none()
        {
            of_vms.entry(vm).or_default().push(found);
        }
    }
    let mut leftovers = Vec::new();
    for (vm, volumes) in of_vms {
        let written_at = volumes
            .iter()
            .filter_map(|found| found.details.state.modified)
            .max();
        let is_of_it = |name: &VolumeName| matches!(name, VolumeName::OfVm(of, _) if of == vm);
        let unreadable = host.unreadable.iter().any(|other| is_of_it(&other.name));
        let unreadable = unreadable.then(|| "a volume of this VM cannot be read".to_owned());
        let spared = unreadable.or_else(|| {
            volumes.iter().find_map(|found| {
                let pool = &found.volume.pool;
                let spared = judge.spares(pool, written_at);
                uses.of(host, found)
                    .or(spared)
                    .or_else(|| judge.spares_shared(pool))
            })
        });
        leftovers.extend(volumes.iter().map(|found| {
            let target = Target::VolumeOfVm {
                pool: found.volume.pool.clone(),
                vm: vm.to_owned(),
            };
            leftover("VM's volume", found, spared.clone(), target)
        }));
    }
    leftovers
}

/// VMs that a mark says were never completed, each with its volumes. A guest may write to its disks; its settings were
/// written before it was made, and by nobody since.
fn half_vms(host: &Host, uses: &Uses, judge: &Judge) -> Vec<Leftover> {
    let is_half = |domain: &&FoundDomain| domain.is_ours() && vm::incomplete::is_marked(&domain.xml);
    host.domains
        .iter()
        .filter(is_half)
        .map(|domain| {
            let vm = &domain.name;
            let is_settings = |found: &&FoundVolume| matches!(found.name, VolumeName::OfVm(_, SETTINGS));
            let settings = host.volumes_of_vm(vm).find(is_settings);
            let written_at = settings.and_then(|found| found.details.state.modified);
            let place = settings.map_or("", |found| &found.volume.pool);
            Leftover {
                kind: "half VM",
                name: vm.clone(),
                place: place.to_owned(),
                bytes: host
                    .volumes_of_vm(vm)
                    .map(|found| found.details.state.allocation)
                    .sum(),
                written_at,
                spared: half_vm_in_use(host, uses, domain).or_else(|| judge.spares(place, written_at)),
                deleted: false,
                target: Target::HalfVm { vm: vm.clone() },
            }
        })
        .collect()
}

/// Why a VM that was never completed stays with its volumes.
pub fn half_vm_in_use(host: &Host, uses: &Uses, domain: &FoundDomain) -> Option<String> {
    if let Some(disk) = domain.volumes.iter().find(|volume| names_disk(volume)) {
        return Some(format!("{disk} is attached to it"));
    }
    let in_use = |found| {
        let why = uses.of_others(host, found, Some(&domain.name))?;
        Some(format!("{}: {why}", found.volume.name))
    };
    host.volumes_of_vm(&domain.name).find_map(in_use)
}

/// Stemcells and snapshots that a mark says were never completed: the thing, its record, and the mark last.
fn incomplete(host: &Host, uses: &Uses, judge: &Judge) -> Vec<Leftover> {
    let mut leftovers = Vec::new();
    for mark in &host.volumes {
        let VolumeName::Incomplete(of) = &mark.name else {
            continue;
        };
        let record = VolumeName::Record(of.clone());
        let parts: Vec<&FoundVolume> = host
            .volumes
            .iter()
            .filter(|found| found.volume.name == *of || found.name == record)
            .collect();
        // A disk is never half made: its data is somebody's from the first moment on.
        if parts.iter().any(|part| matches!(part.name, VolumeName::Disk(_))) {
            continue;
        }
        let all = || parts.iter().copied().chain([mark]);
        // Each part has to be known to be old.
        let spared = all().find_map(|part| {
            uses.of(host, part)
                .or_else(|| judge.spares(&part.volume.pool, part.details.state.modified))
        });
        for part in all() {
            let pool = part.volume.pool.clone();
            let of = of.clone();
            let (kind, target) = match &part.name {
                VolumeName::Stemcell(_) => ("half stemcell", Target::IncompleteVm { pool, of }),
                VolumeName::Snapshot(_) => ("half snapshot", Target::IncompleteVm { pool, of }),
                VolumeName::Record(_) => ("record of it", Target::IncompleteVm { pool, of }),
                _ => ("mark of it", Target::Mark { pool, of }),
            };
            leftovers.push(leftover(kind, part, spared.clone(), target));
        }
    }
    leftovers
}

/// Records of disks, snapshots and stemcells that are gone. Nobody knows what is in a pool that is not active, and a
/// light stemcell is nothing but its record.
fn records(libvirt: &Connection, host: &Host, judge: &Judge) -> Result<Vec<Leftover>> {
    let spared_for_pools = host
        .hidden
        .first()
        .map(|pool| format!("its disk may be there: {}", pool.with_remedy()));
    let mut leftovers = Vec::new();
    for found in &host.volumes {
        let VolumeName::Record(of) = &found.name else {
            continue;
        };
        if !is_orphan(host, of) {
            continue;
        }
        let unreadable = match is_light_stemcell(libvirt, &found.volume.pool, of) {
            Ok(true) => continue,
            Ok(false) => None,
            // It may be a light stemcell's.
            Err(e) if e.error_type == ErrorType::CloudError => Some(e.message),
            Err(e) => return Err(e),
        };
        let pool = found.volume.pool.clone();
        let spared = unreadable
            .or_else(|| judge.spares(&pool, found.details.state.modified))
            .or_else(|| spared_for_pools.clone())
            .or_else(|| judge.spares_shared(&pool));
        let target = Target::Record { pool, of: of.clone() };
        leftovers.push(leftover("record", found, spared, target));
    }
    Ok(leftovers)
}

/// Whether there is nothing that the record of this cid could be about.
fn is_orphan(host: &Host, of: &str) -> bool {
    let is_there = host.volumes.iter().any(|other| other.volume.name == of)
        || host.unreadable.iter().any(|other| other.name.is_thing(of));
    !is_there && !host.has(&VolumeName::Incomplete(of.to_owned())) && host.users(of).next().is_none()
}

/// What says of disks that they are being deleted. A call that was killed left it; the disk, if it is still there, stays.
fn deletions(host: &Host, judge: &Judge) -> Vec<Leftover> {
    let deletions = host
        .volumes
        .iter()
        .filter(|found| matches!(found.name, VolumeName::Deleting(_)));
    deletions
        .map(|found| {
            let pool = found.volume.pool.clone();
            let spared = judge.spares(&pool, found.details.state.modified);
            leftover("mark of a deletion", found, spared, Target::Volume { pool })
        })
        .collect()
}

/// Whether the record of this cid, in this pool, may be that of a light stemcell.
fn is_light_stemcell(libvirt: &Connection, pool: &str, of: &str) -> Result<bool> {
    let cid = Cid::new(of).map_err(Error::cpi)?;
    if cid.stemcell_volume().is_none() {
        return Ok(false);
    }
    let Some(pool) = libvirt.find_pool(pool)? else {
        return Ok(true);
    };
    let record = pool.unless_stopped(stemcell::Record::read(libvirt, &pool, &cid))?;
    // An unreadable one says nothing, not even that.
    Ok(record.is_none_or(|record| record.volume.is_some() || record == stemcell::Record::default()))
}

/// Volumes that `cpi check` and `cpi prune` themselves were killed with.
fn probes(host: &Host, uses: &Uses, judge: &Judge) -> Vec<Leftover> {
    let probes = host
        .volumes
        .iter()
        .filter(|found| matches!(found.name, VolumeName::Probe(_)));
    probes
        .map(|found| {
            let pool = found.volume.pool.clone();
            let spared = uses
                .of(host, found)
                .or_else(|| judge.spares(&pool, found.details.state.modified));
            leftover("probe", found, spared, Target::Volume { pool })
        })
        .collect()
}

/// DHCP entries of VMs that have no domain. They have no age; the VM's volumes may have one.
fn dhcp_entries(host: &Host, entries: &[network::EntryOfVm], judge: &Judge) -> Vec<Leftover> {
    let macs: BTreeSet<String> = host
        .domains
        .iter()
        .flat_map(|domain| views::interfaces(&domain.xml))
        .filter_map(|nic| nic.child("mac")?.attribute("address"))
        .map(str::to_lowercase)
        .collect();
    // In both of a network's descriptions, and for each NIC: one thing to a person.
    let mut dead: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| host.domain(&entry.vm).is_none()) {
        *dead.entry((&entry.vm, &entry.network)).or_default() |= macs.contains(&entry.mac);
    }
    dead.into_iter()
        .map(|((vm, network), living)| {
            let young = || {
                host.volumes_of_vm(vm)
                    .find_map(|found| judge.spares(&found.volume.pool, found.details.state.modified))
            };
            Leftover {
                kind: "DHCP entry",
                name: vm.to_owned(),
                place: network.to_owned(),
                bytes: 0,
                written_at: None,
                spared: if living {
                    Some("a VM has this MAC address".to_owned())
                } else {
                    young()
                },
                deleted: false,
                target: Target::DhcpEntries { vm: vm.to_owned() },
            }
        })
        .collect()
}

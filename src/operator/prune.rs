//! `cpi prune`: what calls that were killed have left behind. Beside running calls, it goes by two rules: what was
//! written to lately stays, and nothing goes that is not proven to be left over: by the absence of its VM, or by the
//! mark of what was never completed.

mod directories;
mod find;
mod networks;
mod uses;
mod volumes;

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::json;

use super::host::{FoundVolume, Host};
use super::table::Align::{Left, Right};
use super::table::{Table, width};
use super::{print, to_json};
use crate::cli::Prune;
use crate::{network, vm};
use bosh_cpi::cid::Cid;
use bosh_cpi::interrupt;
use bosh_cpi::measures::{age, size, span};
use bosh_cpi::rpc::{Error, Result};
use cpi_config::Config;
use find::{find, half_vm_in_use};
use libvirt_host::Connection;
use libvirt_host::volume_name::VolumeName;
use uses::Uses;

/// Calls can take long, and what they have made shows no life meanwhile.
const SHORTEST: Duration = Duration::from_secs(600);

/// One thing that is left over.
#[derive(Debug, Serialize)]
pub struct Leftover {
    pub kind: &'static str,
    pub name: String,
    /// Pool, network or directory.
    pub place: String,
    /// Bytes that go with it.
    pub bytes: u64,
    #[serde(serialize_with = "super::views::rfc_3339")]
    pub written_at: Option<SystemTime>,
    /// Why it stays, if it does.
    pub spared: Option<String>,
    pub deleted: bool,
    #[serde(skip)]
    pub target: Target,
}

/// What there is to delete.
#[derive(Debug, Clone)]
pub enum Target {
    /// With the VM that must not exist.
    VolumeOfVm {
        pool: String,
        vm: String,
    },
    /// Only when no domain refers to it.
    Volume {
        pool: String,
    },
    /// As `Volume`, and only while a mark says that the thing of this cid was never completed.
    IncompleteVm {
        pool: String,
        of: String,
    },
    /// As `Volume`, and only when nothing of this cid is there.
    Record {
        pool: String,
        of: String,
    },
    /// The mark of a thing that must be gone by then.
    Mark {
        pool: String,
        of: String,
    },
    /// With all that belongs to it, if it is still marked as half made.
    HalfVm {
        vm: String,
    },
    /// DHCP entries in the network that is the place, of a VM that must not exist.
    DhcpEntries {
        vm: String,
    },
    Network,
    Directory,
}

/// Whether all that was to be deleted is gone.
pub fn run(wanted: &Prune, config: &Config) -> Result<bool> {
    if wanted.older_than < SHORTEST {
        return Err(Error::cpi(format!(
            "--older-than is at least {}: calls that are running may have made younger things",
            span(SHORTEST)
        )));
    }
    let libvirt = Connection::open(&config.libvirt)?;
    // What is made to read a clock goes again on Ctrl-C, too.
    interrupt::answer_first();
    for place in &wanted.places {
        require_place(&libvirt, place)?;
    }
    let mut leftovers = find(&libvirt, wanted)?;
    let mut well = true;
    if wanted.yes {
        for leftover in leftovers.iter_mut().filter(|leftover| leftover.spared.is_none()) {
            match interrupt::check().and_then(|()| delete(&libvirt, config, leftover)) {
                Ok(()) => leftover.deleted = true,
                Err(error) => {
                    well = false;
                    leftover.spared = Some(error.message);
                }
            }
        }
    }
    print(&if wanted.json {
        to_json(&json!(leftovers))
    } else {
        report(&leftovers, wanted)
    })?;
    Ok(well)
}

/// A misspelt place would be one without leftovers.
fn require_place(libvirt: &Connection, place: &str) -> Result<()> {
    let exists = libvirt.find_pool(place)?.is_some()
        || libvirt.find_network(place)?.is_some()
        || directories::place().as_os_str() == place;
    if exists {
        return Ok(());
    }
    Err(Error::cpi(format!(
        "--in {place}: there is no pool or network of this name at {}, nor is TMPDIR this directory",
        libvirt.uri
    )))
}

/// Looks once more whether the thing is still what it was taken for, and deletes it.
fn delete(libvirt: &Connection, config: &Config, leftover: &Leftover) -> Result<()> {
    let exists = |vm: &str| Ok::<bool, Error>(libvirt.find_domain(vm)?.is_some());
    let exists_now = |vm: &str| Error::cloud(format!("VM {vm} exists by now"));
    match &leftover.target {
        Target::VolumeOfVm { vm, .. } if exists(vm)? => Err(exists_now(vm)),
        Target::IncompleteVm { of, .. }
            if !volumes::exists(libvirt, &VolumeName::Incomplete(of.clone()).to_string())? =>
        {
            Err(Error::cloud(format!("{of} is complete by now")))
        }
        Target::Record { of, .. } if volumes::exists(libvirt, of)? => {
            Err(Error::cloud(format!("{of}, which it is about, is there by now")))
        }
        Target::VolumeOfVm { pool, .. }
        | Target::Volume { pool }
        | Target::IncompleteVm { pool, .. }
        | Target::Record { pool, .. } => {
            require_unused(libvirt, pool, &leftover.name)?;
            volumes::delete(libvirt, config, pool, leftover)
        }
        Target::Mark { of, .. } if volumes::exists(libvirt, of)? => {
            Err(Error::cloud(format!("{of}, which it marks, is still there")))
        }
        Target::Mark { pool, .. } => volumes::delete(libvirt, config, pool, leftover),
        Target::HalfVm { vm } => delete_half_vm(libvirt, config, vm),
        Target::DhcpEntries { vm } if exists(vm)? => Err(exists_now(vm)),
        Target::DhcpEntries { vm } => {
            let vm = Cid::new(vm).map_err(Error::cpi)?;
            network::unreserve_in(libvirt, &vm, |network| network == leftover.place).map(drop)
        }
        Target::Network => networks::delete(libvirt, &leftover.name),
        Target::Directory => directories::delete(leftover),
    }
}

/// As when the volume was found: nothing uses it, and all that may use it can be looked into.
fn require_unused(libvirt: &Connection, pool: &str, name: &str) -> Result<()> {
    let host = Host::look(libvirt)?;
    let uses = Uses::look(libvirt, &host)?;
    let is_it = |found: &&FoundVolume| found.volume.name == name && found.volume.pool == pool;
    let found = host.volumes.iter().find(is_it);
    match found.and_then(|found| uses.of(&host, found)) {
        Some(why) => Err(Error::cloud(format!("by now: {why}"))),
        None => Ok(()),
    }
}

fn delete_half_vm(libvirt: &Connection, config: &Config, vm: &str) -> Result<()> {
    if let Some(domain) = libvirt.find_domain(vm)?
        && !vm::incomplete::is_marked(&domain.xml()?)
    {
        return Err(Error::cloud(format!("VM {vm} is complete by now")));
    }
    let host = Host::look(libvirt)?;
    let uses = Uses::look(libvirt, &host)?;
    let in_use = match host.domain(vm) {
        Some(domain) => half_vm_in_use(&host, &uses, domain),
        None => host.volumes_of_vm(vm).find_map(|found| uses.of(&host, found)),
    };
    if let Some(why) = in_use {
        return Err(Error::cloud(format!("by now: {why}")));
    }
    vm::delete(libvirt, config, &Cid::new(vm).map_err(Error::cpi)?).map(drop)
}

fn report(leftovers: &[Leftover], wanted: &Prune) -> String {
    let mut text = String::new();
    let mut table = Table::new(&[
        ("KIND", Left),
        ("NAME", Left),
        ("SIZE", Right),
        ("AGE", Right),
        ("IN", Left),
        ("STAYS", Left),
    ]);
    for leftover in leftovers {
        table.row(vec![
            leftover.kind.to_owned(),
            leftover.name.clone(),
            match leftover.target {
                Target::DhcpEntries { .. } | Target::Network | Target::Directory => "-".to_owned(),
                _ => size(leftover.bytes),
            },
            age(leftover.written_at),
            leftover.place.clone(),
            leftover.spared.clone().unwrap_or_default(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render(width()));
        text.push('\n');
    }
    let going: Vec<&Leftover> = leftovers
        .iter()
        .filter(|leftover| leftover.spared.is_none())
        .collect();
    let bytes = size(going.iter().map(|leftover| leftover.bytes).sum());
    text.push_str(&match (going.len(), wanted.yes) {
        (0, _) => "Nothing to delete".to_owned(),
        (number, true) => format!("Deleted {number} of {}, {bytes}", leftovers.len()),
        (number, false) => format!("{number} of {} can go, {bytes}: cpi prune --yes", leftovers.len()),
    });
    text.push('\n');
    text
}

//! `cpi list`: what the CPI has made on the host.

use serde_json::{Map, Value, json};

use super::host::Host;
use super::table::Align::{Left, Right};
use super::table::{Table, width};
use super::things::{self, Disk};
use super::{print, to_json, tree};
use crate::cli::{List, Listed};
use crate::config::Config;
use crate::libvirt::{Connection, Pool};
use crate::measures::{age, size};
use crate::rpc::Result;

const ALL: [Listed; 5] = [
    Listed::Stemcells,
    Listed::Vms,
    Listed::Disks,
    Listed::Snapshots,
    Listed::Networks,
];

pub fn run(arguments: &List, config: &Config) -> Result<()> {
    let libvirt = Connection::open(&config.libvirt)?;
    let host = Host::look(&libvirt)?;
    let records = libvirt.find_pool(config.settings.stemcell_pool())?;
    if arguments.tree {
        return print(&tree::render(&libvirt, records.as_ref(), &host)?);
    }
    let wanted: Vec<Listed> = arguments.what.map_or(ALL.to_vec(), |what| vec![what]);
    if arguments.json {
        let mut all = Map::new();
        for what in wanted {
            all.insert(
                name(what).to_owned(),
                as_json(&libvirt, records.as_ref(), &host, what)?,
            );
        }
        return print(&to_json(&Value::Object(all)));
    }
    let headed = wanted.len() > 1;
    let mut text = Vec::new();
    for what in wanted {
        let table = as_table(&libvirt, records.as_ref(), &host, what)?;
        text.push(match (table.is_empty(), headed) {
            (true, _) => format!("No {}\n", spoken(what)),
            (false, true) => format!("{}:\n{}", capitalised(spoken(what)), table.render(width())),
            (false, false) => table.render(width()),
        });
    }
    print(&text.join("\n"))
}

fn name(what: Listed) -> &'static str {
    match what {
        Listed::Stemcells => "stemcells",
        Listed::Vms => "vms",
        Listed::Disks => "disks",
        Listed::Snapshots => "snapshots",
        Listed::Networks => "networks",
    }
}

fn spoken(what: Listed) -> &'static str {
    match what {
        Listed::Vms => "VMs",
        other => name(other),
    }
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

fn as_json(libvirt: &Connection, records: Option<&Pool>, host: &Host, what: Listed) -> Result<Value> {
    Ok(match what {
        Listed::Stemcells => json!(things::stemcells(libvirt, host)?),
        Listed::Vms => json!(things::vms(host)),
        Listed::Disks => json!(things::disks(libvirt, records, host, false)?),
        Listed::Snapshots => json!(things::disks(libvirt, records, host, true)?),
        Listed::Networks => json!(things::networks(libvirt, host)?),
    })
}

fn as_table(libvirt: &Connection, records: Option<&Pool>, host: &Host, what: Listed) -> Result<Table> {
    Ok(match what {
        Listed::Stemcells => stemcells(libvirt, host)?,
        Listed::Vms => vms(host),
        Listed::Disks => disks(&things::disks(libvirt, records, host, false)?),
        Listed::Snapshots => disks(&things::disks(libvirt, records, host, true)?),
        Listed::Networks => networks(libvirt, host)?,
    })
}

fn stemcells(libvirt: &Connection, host: &Host) -> Result<Table> {
    let mut table = Table::new(&[
        ("CID", Left),
        ("REAL", Right),
        ("VIRTUAL", Right),
        ("VMS", Right),
        ("AGE", Right),
        ("POOL", Left),
        ("NAME", Left),
        ("NOTE", Left),
    ]);
    for stemcell in things::stemcells(libvirt, host)? {
        table.row(vec![
            stemcell.cid,
            size(stemcell.allocation),
            size(stemcell.capacity),
            stemcell.vms.len().to_string(),
            age(stemcell.created_at),
            stemcell.pool,
            stemcell.name,
            match stemcell.light {
                Some(volume) => format!("light: volume {} in pool {}", volume.volume, volume.pool),
                None => note(stemcell.partial),
            },
        ]);
    }
    Ok(table)
}

fn vms(host: &Host) -> Table {
    let mut table = Table::new(&[
        ("CID", Left),
        ("STATE", Left),
        ("REAL", Right),
        ("VIRTUAL", Right),
        ("DISKS", Right),
        ("AGE", Right),
        ("NAME", Left),
    ]);
    for vm in things::vms(host) {
        table.row(vec![
            vm.cid,
            vm.state.to_owned(),
            size(vm.allocation),
            size(vm.capacity),
            vm.disks.len().to_string(),
            age(vm.created_at),
            vm.owner.name(),
        ]);
    }
    table
}

fn disks(disks: &[Disk]) -> Table {
    let mut table = Table::new(&[
        ("CID", Left),
        ("REAL", Right),
        ("VIRTUAL", Right),
        ("WRITTEN", Right),
        ("POOL", Left),
        ("ATTACHED TO", Left),
        ("NAME", Left),
        ("NOTE", Left),
    ]);
    for disk in disks {
        let attached_to = match disk.attached_to.as_slice() {
            [] => "-".to_owned(),
            vms => vms.join(" "),
        };
        table.row(vec![
            disk.cid.clone(),
            size(disk.allocation),
            size(disk.capacity),
            age(disk.written_at),
            disk.pool.clone(),
            attached_to,
            disk.owner.name(),
            note(disk.partial),
        ]);
    }
    table
}

fn networks(libvirt: &Connection, host: &Host) -> Result<Table> {
    let mut table = Table::new(&[
        ("NAME", Left),
        ("STATE", Left),
        ("MADE BY", Left),
        ("VMS", Right),
        ("SUBNETS", Left),
    ]);
    for network in things::networks(libvirt, host)? {
        table.row(vec![
            network.name,
            if network.active { "active" } else { "inactive" }.to_owned(),
            if network.made_by_cpi { "cpi" } else { "host" }.to_owned(),
            network.vms.len().to_string(),
            network.subnets.join(" "),
        ]);
    }
    Ok(table)
}

fn note(partial: bool) -> String {
    if partial { "incomplete" } else { "" }.to_owned()
}

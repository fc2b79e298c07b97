//! `cpi list`: what the CPI has made on the host.

use serde_json::{Map, Value, json};

use super::host::{HiddenPool, Host};
use super::table::Align::{Left, Right};
use super::table::{Table, width, wrapped};
use super::views::{self, Disk, INCOMPLETE};
use super::{print, to_json, tree};
use crate::cli::{List, Listed};
use bosh_cpi::measures::{age, size};
use bosh_cpi::rpc::Result;
use cpi_config::Config;
use libvirt_host::Connection;

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
    if arguments.tree {
        return print(&tree::render(&libvirt, &host)?);
    }
    let wanted: Vec<Listed> = arguments.what.map_or(ALL.to_vec(), |what| vec![what]);
    if arguments.json {
        let mut all = Map::new();
        for what in wanted {
            all.insert(name(what).to_owned(), as_json(&libvirt, &host, what)?);
        }
        all.insert("pools_not_shown".to_owned(), pools_not_shown(&host));
        return print(&to_json(&Value::Object(all)));
    }
    let headed = wanted.len() > 1;
    let mut text = Vec::new();
    for what in wanted {
        let table = as_table(&libvirt, &host, what)?;
        let not_shown = not_shown(&host, what);
        let rendered = match (table.is_empty(), headed) {
            (true, _) if !not_shown.is_empty() => format!("No {} in active pools\n", spoken(what)),
            (true, _) => format!("No {}\n", spoken(what)),
            (false, true) => format!("{}:\n{}", capitalised(spoken(what)), table.render(width())),
            (false, false) => table.render(width()),
        };
        text.push(rendered + &not_shown);
    }
    print(&text.join("\n"))
}

/// Says which pools may hold more, one a line.
fn not_shown(host: &Host, what: Listed) -> String {
    if what == Listed::Networks || what == Listed::Vms {
        return String::new();
    }
    let line = |pool: &HiddenPool| wrapped(&format!("Not shown: {}", pool.with_remedy()), width(), 4) + "\n";
    host.hidden.iter().map(line).collect()
}

fn pools_not_shown(host: &Host) -> Value {
    let pools = host.hidden.iter();
    pools
        .map(|pool| json!({"pool": pool.name, "cause": pool.cause}))
        .collect()
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

fn as_json(libvirt: &Connection, host: &Host, what: Listed) -> Result<Value> {
    Ok(match what {
        Listed::Stemcells => json!(views::stemcells(libvirt, host)?),
        Listed::Vms => json!(views::vms(host)),
        Listed::Disks => json!(views::disks(libvirt, host, false)?),
        Listed::Snapshots => json!(views::disks(libvirt, host, true)?),
        Listed::Networks => json!(views::networks(libvirt, host)?),
    })
}

fn as_table(libvirt: &Connection, host: &Host, what: Listed) -> Result<Table> {
    Ok(match what {
        Listed::Stemcells => stemcells(libvirt, host)?,
        Listed::Vms => vms(host),
        Listed::Disks => disks(&views::disks(libvirt, host, false)?),
        Listed::Snapshots => disks(&views::disks(libvirt, host, true)?),
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
    for stemcell in views::stemcells(libvirt, host)? {
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
                None if stemcell.partial => INCOMPLETE.to_owned(),
                None => String::new(),
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
        ("NOTE", Left),
    ]);
    for vm in views::vms(host) {
        table.row(vec![
            vm.cid,
            vm.status.to_string(),
            size(vm.allocation),
            size(vm.capacity),
            vm.disks.len().to_string(),
            age(vm.created_at),
            vm.owner.name(),
            vm.notes.join("; "),
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
            disk.allocation.map_or("-".to_owned(), size),
            disk.capacity.map_or("-".to_owned(), size),
            age(disk.written_at),
            disk.pool.clone().unwrap_or("-".to_owned()),
            attached_to,
            disk.owner.name(),
            disk.notes.join("; "),
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
    for network in views::networks(libvirt, host)? {
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

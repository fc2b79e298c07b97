//! `cpi show CID`: everything about one thing. One document, for scripts as JSON and for people as an outline.

use serde_json::{Map, Value, json};

use super::host::{FoundVolume, HiddenPool, Host};
use super::outline;
use super::table::width;
use super::views;
use super::{mask, print, to_json};
use crate::stemcell;
use agent_drive::{CONFIG_DRIVE_MAX_BYTES, read_drive};
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::Config;
use libvirt_host::Connection;
use libvirt_host::volume_name::SETTINGS;
use libvirt_host::volume_name::VolumeName;
use libvirt_xml::element::Element;
use libvirt_xml::metadata::{VM_NAMESPACE, of_domain};

/// Room for a settings drive of the largest kind, bytes: a CD-ROM has more around its files.
const MAX_DRIVE_BYTES: u64 = 2 * CONFIG_DRIVE_MAX_BYTES as u64;

pub fn run(cid: &str, json: bool, config: &Config) -> Result<()> {
    let cid = Cid::new(cid).map_err(Error::cpi)?;
    let libvirt = Connection::open(&config.libvirt)?;
    // XML stands two columns in, under its key.
    let columns = if json {
        usize::MAX
    } else {
        width().saturating_sub(2)
    };
    let shown = show(&libvirt, &cid, columns)?;
    print(&if json {
        to_json(&shown)
    } else {
        outline::render(&shown)
    })
}

fn show(libvirt: &Connection, cid: &Cid, columns: usize) -> Result<Value> {
    if !cid.names_vm() && !cid.names_disk() && cid.stemcell_volume().is_none() {
        // Any libvirt network can be one that VMs are in.
        if let Some(network) = network(libvirt, cid, columns)? {
            return Ok(network);
        }
        return Err(Error::cpi(format!(
            "{cid} is neither the cid of a stemcell, VM, disk or snapshot of this CPI's nor a network at {}; \
             see `cpi list`",
            libvirt.uri
        )));
    }
    let host = Host::look(libvirt)?;
    let found = if cid.names_vm() {
        vm(libvirt, &host, cid, columns)?
    } else if cid.names_disk() {
        disk(libvirt, &host, cid)?
    } else {
        of_stemcell(libvirt, &host, cid, columns)?
    };
    found.ok_or_else(|| {
        let hidden: Vec<String> = host.hidden.iter().map(HiddenPool::with_remedy).collect();
        if hidden.is_empty() || cid.names_vm() {
            return Error::cpi(format!("{cid} does not exist at {}; see `cpi list`", libvirt.uri));
        }
        let hidden = hidden.join(", ");
        Error::cpi(format!(
            "{cid} is in no pool that can be read at {}; {hidden}",
            libvirt.uri
        ))
    })
}

fn vm(libvirt: &Connection, host: &Host, cid: &Cid, columns: usize) -> Result<Option<Value>> {
    let name = cid.as_str();
    let own: Vec<&FoundVolume> = host.volumes_of_vm(name).collect();
    let Some(domain) = host.domain(name) else {
        // What a killed call left is worth seeing, too.
        return Ok((!own.is_empty()).then(|| {
            json!({"kind": "VM", "cid": name, "state": "no domain: see `cpi prune`", "volumes": volumes(&own)})
        }));
    };
    let vm = views::vm(host, domain);
    let settings = own
        .iter()
        .find(|found| matches!(found.name, VolumeName::OfVm(_, SETTINGS)))
        .map(|found| settings_on(libvirt, found));
    let settings = settings.unwrap_or_else(|| "there is no settings drive".into());
    Ok(Some(json!({
        "kind": "VM",
        "cid": name,
        "state": vm.status.state,
        "reason": vm.status.reason,
        "transient": vm.status.transient,
        "job": vm.status.job,
        "notes": vm.notes,
        "deployment": vm.owner.deployment,
        "instance": vm.owner.instance,
        "created_at": vm.created_at.map(bosh_cpi::logging::timestamp),
        "stemcell": vm.stemcell,
        "volumes": volumes(&own),
        "disks": vm.disks,
        "nics": nics(libvirt, &domain.xml, name, &settings),
        "console_log": console_log(&domain.xml),
        "metadata": of_domain(&domain.xml, VM_NAMESPACE),
        "settings": settings,
        "xml": outline::xml(&mask::masked_xml(&domain.xml), columns),
    })))
}

fn volumes(own: &[&FoundVolume]) -> Value {
    own.iter().map(|found| volume(found)).collect()
}

fn volume(found: &FoundVolume) -> Value {
    let state = &found.details.state;
    json!({
        "volume": found.volume.name,
        "pool": found.volume.pool,
        "path": found.details.path,
        "format": state.format.map(libvirt_xml::volume::VolumeFormat::name),
        "real_bytes": state.allocation,
        "virtual_bytes": state.capacity,
        "overlay_on": state.backing_path,
        "written_at": found.details.state.modified.map(bosh_cpi::logging::timestamp),
    })
}

/// What the agent reads on this drive, masked; or why that is not known.
fn settings_on(libvirt: &Connection, found: &FoundVolume) -> Value {
    let image = match found.volume.download(libvirt, MAX_DRIVE_BYTES) {
        Ok(image) => image,
        Err(e) => return format!("not readable: {e}").into(),
    };
    let files = read_drive(image).unwrap_or_default();
    let documents = files
        .iter()
        .filter_map(|file| serde_json::from_slice(&file.contents).ok());
    let settings = documents
        .into_iter()
        .find(|document: &Value| document.get("agent_id").is_some());
    match settings {
        Some(settings) => mask::settings(&settings),
        None => format!("volume {} holds no agent settings", found.volume.name).into(),
    }
}

fn nics(libvirt: &Connection, domain: &Element, vm: &str, settings: &Value) -> Value {
    let leased = libvirt
        .domain(vm)
        .and_then(|domain| domain.leased_addresses())
        .unwrap_or_default();
    let nic = |interface: &Element| {
        let mac = interface
            .child("mac")
            .and_then(|mac| mac.attribute("address"))
            .unwrap_or_default();
        let of_mac = |network: &&Value| {
            let theirs = network["mac"].as_str().unwrap_or_default();
            theirs.eq_ignore_ascii_case(mac)
        };
        let networks = settings["networks"].as_object().into_iter().flat_map(Map::values);
        let mut addresses: Vec<String> = networks
            .filter(of_mac)
            .filter_map(|network| network["ip"].as_str())
            .map(str::to_owned)
            .collect();
        addresses.extend(
            leased
                .iter()
                .filter(|(of, _)| of.eq_ignore_ascii_case(mac))
                .map(|(_, ip)| ip.clone()),
        );
        addresses.sort();
        addresses.dedup();
        json!({"mac": mac, "on": views::network_of(interface), "addresses": addresses})
    };
    views::interfaces(domain).map(nic).collect()
}

/// Path of the console's log on the host.
pub fn console_log(domain: &Element) -> Option<&str> {
    let devices = domain.child("devices")?;
    let consoles = devices
        .children_named("serial")
        .chain(devices.children_named("console"));
    consoles
        .filter_map(|console| console.child("log"))
        .find_map(|log| log.attribute("file"))
}

fn disk(libvirt: &Connection, host: &Host, cid: &Cid) -> Result<Option<Value>> {
    let name = cid.as_str();
    let disk = views::disk(libvirt, host, name)?;
    if disk.capacity.is_none() && disk.attached_to.is_empty() {
        return Ok(None);
    }
    let record = views::disk_record(libvirt, host, name)?;
    Ok(Some(json!({
        "kind": if cid.names_snapshot() { "snapshot" } else { "persistent disk" },
        "cid": name,
        "complete": !disk.partial,
        "attached_to": disk.attached_to,
        "notes": disk.notes,
        "pool": disk.pool,
        "volume": host.disk_volume(name).map(volume),
        "metadata": record.metadata,
        "options": record.options,
        "replaces": record.replaces,
    })))
}

fn of_stemcell(libvirt: &Connection, host: &Host, cid: &Cid, columns: usize) -> Result<Option<Value>> {
    let name = cid.stemcell_volume().unwrap_or_default();
    let stemcells = views::stemcells(libvirt, host)?;
    let Some(found) = stemcells.into_iter().find(|found| found.cid == name) else {
        // A uuid can be a network's name as well.
        return network(libvirt, cid, columns);
    };
    let uploaded = host.volumes.iter().find(|found| found.volume.name == name);
    let pool = libvirt.find_pool(&found.pool)?;
    let record = pool
        .map(|pool| stemcell::Record::read(libvirt, &pool, cid))
        .transpose()?;
    Ok(Some(json!({
        "kind": "stemcell",
        "cid": name,
        "complete": !found.partial,
        "pool": found.pool,
        "volume": uploaded.map(volume),
        "light": found.light,
        "vms": found.vms,
        "properties": record.as_ref().map(|record| &record.properties),
        "tags": record.as_ref().map(|record| &record.tags),
        "firmware": record.as_ref().and_then(|record| record.firmware.as_deref()),
    })))
}

fn network(libvirt: &Connection, cid: &Cid, columns: usize) -> Result<Option<Value>> {
    let Some(network) = libvirt.find_network(cid.as_str())? else {
        return Ok(None);
    };
    let host = Host::look(libvirt)?;
    let shown = views::network_use(&network, cid.names_network(), views::users(&host, cid.as_str()))?;
    Ok(Some(json!({
        "kind": "network",
        "name": shown.name,
        "made_by_cpi": shown.made_by_cpi,
        "active": shown.active,
        "subnets": shown.subnets,
        "vms": shown.vms,
        "xml": outline::xml(&mask::masked_xml(&network.xml()?), columns),
    })))
}

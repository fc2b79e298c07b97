//! `attach_disk(vm_cid, disk_cid)`: gives the VM the disk, now if it runs, and at every later start. Answers with
//! what the agent finds the disk by.

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::disk::{self, Attachments, Record};
use crate::libvirt::{Changes, Connection, Domain};
use crate::rpc::{Arguments, Error, Result};
use crate::undo::Undo;
use crate::vm;
use crate::xml::disk::{Device, DiskSpec, render};
use crate::xml::metadata::{PREFIX, disk_namespace, to_element};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let domain = vm::get(libvirt, &vm_cid)?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let doing = || format!("attaching disk {disk_cid} to VM {vm_cid}");
    let others: Vec<String> = disk::users(libvirt, &volume.name)?
        .into_iter()
        .filter(|user| user != vm_cid.as_str())
        .collect();
    if !others.is_empty() {
        return Err(Error::cloud(format!(
            "it is attached to {}; detach it there first",
            others.join(", ")
        ))
        .during(doing()));
    }

    let bus = cpi.config.settings.disk_bus;
    let attachments = Attachments::of(&domain)?;
    let spec = DiskSpec {
        pool: &volume.pool,
        volume: &volume.name,
        path: &volume.path()?,
        format: volume.state()?.format.ok_or_else(|| {
            Error::cloud("its volume is neither raw nor qcow2, so no disk of ours").during(doing())
        })?,
        bus,
        position: attachments.free_position(bus),
        serial: &disk_cid.disk_serial(),
        device: Device::Disk,
    };
    let device = render(&spec, &cpi.config.settings.disk_device)?;

    let mut undo = Undo::new();
    if attachments.persistent_disk(&volume.name).is_none() {
        domain
            .attach_device(&device, Changes::Persistent)
            .map_err(|e| e.during(doing()))?;
        undo.push("the VM's definition", || {
            vm::get(cpi.libvirt_for_undo()?, &vm_cid)?.detach_device(&device, Changes::Persistent)
        });
    }
    if attachments.live.is_some() && attachments.live_disk(&volume.name).is_none() {
        domain
            .attach_device(&device, Changes::Live)
            .map_err(|e| e.during(doing()))?;
    }
    undo.disarm();
    show_metadata(libvirt, cpi, &domain, &disk_cid);

    Ok(if cpi.api_version == 1 {
        Value::Null
    } else {
        disk::hint(&disk_cid, bus)
    })
}

/// What is known of the disk is shown with the VM. The disk is attached by now, so failing to show it is no failure.
fn show_metadata(libvirt: &Connection, cpi: &Cpi, domain: &Domain, disk_cid: &Cid) {
    let shown = libvirt
        .pool(cpi.config.settings.stemcell_pool())
        .and_then(|pool| Record::read(libvirt, &pool, disk_cid))
        .and_then(|record| {
            if record.metadata.is_empty() {
                return Ok(());
            }
            let element = to_element("disk", &record.metadata);
            domain.set_metadata(PREFIX, &disk_namespace(disk_cid.as_str()), Some(&element))
        });
    if let Err(error) = shown {
        log::warn!(
            "showing the metadata of disk {disk_cid} with VM {}: {error}",
            domain.name
        );
    }
}

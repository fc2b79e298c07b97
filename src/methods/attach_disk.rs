//! `attach_disk(vm_cid, disk_cid)`: gives the VM the disk, now if it runs, and at every later start. Answers with
//! what the agent finds the disk by.

use std::time::Duration;

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Attachments, Record, users};
use crate::vm;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Arguments, Error, Result};
use cpi_config::DiskBus;
use libvirt_host::Undo;
use libvirt_host::{Changes, Connection, Domain, Volume};
use libvirt_xml::disk::{Device, DiskSpec, render};
use libvirt_xml::element::Element;
use libvirt_xml::metadata::{PREFIX, disk_namespace, to_element};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let domain = vm::get(libvirt, &vm_cid)?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let hint = attach(libvirt, cpi, &domain, &disk_cid, &volume)
        .map_err(|e| e.during(format!("attaching disk {disk_cid} to VM {vm_cid}")))?;
    Ok(if cpi.api_version == 1 { Value::Null } else { hint })
}

/// Returns what the agent finds the disk by.
fn attach(
    libvirt: &Connection,
    cpi: &Cpi,
    domain: &Domain,
    disk_cid: &Cid,
    volume: &Volume,
) -> Result<Value> {
    users::require_only(Some(domain), &users::of(libvirt, &volume.name)?)?;
    let attachments = Attachments::of(domain)?;
    let bus = attachments
        .bus_for(&volume.name)
        .or(cpi.config.settings.disk_bus)
        .unwrap_or(DiskBus::Virtio);
    let hint = attachments
        .path_without_serial(&volume.name)
        .map_or_else(|| disk::hint(disk_cid, bus), Value::from);
    if attachments.all_have(&volume.name) {
        return Ok(hint);
    }
    attachments.require_not_saved(domain)?;
    attachments.require_top_layer(domain, &volume.name, || volume.path())?;
    users::require_no_overlay(libvirt, volume)?;
    let lacks_persistent =
        attachments.persistent.is_some() && attachments.persistent_disk(&volume.name).is_none();
    let lacks_live = attachments.live.is_some() && attachments.live_disk(&volume.name).is_none();
    let record = Record::read(libvirt, &cpi.config, volume)?;
    let device = device(libvirt, cpi, disk_cid, volume, &record, &attachments, bus)?;
    let mut undo = Undo::new(libvirt);
    // Where the connection is lost, nobody knows whether it was done.
    let may_be_done = |outcome: &Result<()>| outcome.is_ok() || !libvirt.is_alive();
    if lacks_persistent {
        let outcome = domain.attach_device(&device, Changes::Persistent);
        if may_be_done(&outcome) {
            undo.push(
                format!("disk {disk_cid} in the definition of VM {}", domain.name),
                |libvirt| {
                    let domain = libvirt.domain(&domain.name)?;
                    let attachments = Attachments::of(&domain)?;
                    match attachments.persistent_disk(&volume.name) {
                        None => Ok(()),
                        // In the live XML alone the disk would vanish at the next start.
                        Some(_) if attachments.live_disk(&volume.name).is_some() => Err(Error::cloud(
                            "the guest did not release the disk; it is still attached (live and persistent XML)",
                        )),
                        Some(device) => domain.detach_device(device, Changes::Persistent),
                    }
                },
            );
        }
        outcome?;
        // Another call may have looked at the same time: now that the disk is in a definition, one of the two sees
        // the other. A call attaches disks to VMs of ours only.
        users::require_only(Some(domain), &users::of_ours(libvirt, &volume.name)?)?;
        disk::require_unclaimed(libvirt, &cpi.config, volume)?;
    }
    if lacks_live {
        let outcome = domain.attach_device(&device, Changes::Live);
        if may_be_done(&outcome) {
            undo.push(
                format!("disk {disk_cid} in the running VM {}", domain.name),
                |libvirt| {
                    let timeout = Duration::from_secs(cpi.config.settings.detach_timeout);
                    disk::detach_live(libvirt, &libvirt.domain(&domain.name)?, disk_cid, timeout)
                },
            );
        }
        outcome?;
        // A detach_disk at the same time takes the disk out of the persistent XML last.
        if attachments.persistent.is_some()
            && !disk::volumes_of(&domain.persistent_xml()?).contains(&volume.name)
        {
            return Err(Error::cloud("it was detached again meanwhile; try again").retryable());
        }
    }
    undo.disarm();
    show_metadata(domain, disk_cid, &record);
    Ok(hint)
}

fn device(
    libvirt: &Connection,
    cpi: &Cpi,
    disk_cid: &Cid,
    volume: &Volume,
    record: &Record,
    attachments: &Attachments,
    bus: DiskBus,
) -> Result<Element> {
    let settings = &cpi.config.settings;
    let state = volume.state()?;
    let spec = DiskSpec {
        source: libvirt.pool(&volume.pool)?.disk_source(&volume.name)?,
        path: &state.path,
        // A guest that writes a backing file into the header gets none.
        backing: Some(&[]),
        format: disk::format(volume, &state, record)?,
        bus,
        // A VM that has the disk in its live or its persistent XML gets it under the same name in the other.
        position: attachments.position_of(&volume.name, bus),
        serial: &disk_cid.disk_serial(),
        device: Device::Disk,
        options: record.options.clone(),
    };
    render(&spec, &settings.disk_device)
}

/// What is known of the disk is shown with the VM. The disk is attached by now, so failing to show it is no failure.
fn show_metadata(domain: &Domain, disk_cid: &Cid, record: &Record) {
    if record.metadata.is_empty() {
        return;
    }
    let element = to_element("disk", &record.metadata);
    if let Err(error) = domain.set_metadata(PREFIX, &disk_namespace(disk_cid.as_str()), Some(&element)) {
        log::warn!(
            "showing the metadata of disk {disk_cid} with VM {}: {error}",
            domain.name
        );
    }
}

//! `create_disk(size, cloud_properties, vm_cid)`: an empty persistent disk. The VM is only a hint for placement, and
//! there is one host.

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, DiskProperties, Record};
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Arguments, Result};
use libvirt_host::Undo;
use libvirt_xml::disk::RunTimeOptions;
use libvirt_xml::volume::VolumeFormat;

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let size = arguments.size_mib("size")?;
    let cloud_properties = arguments.optional_object("cloud_properties")?;
    arguments.optional_cid("vm_cid")?;
    arguments.end()?;
    let properties = DiskProperties::parse("argument 2 (cloud_properties)", cloud_properties)?;

    let libvirt = cpi.libvirt()?;
    let disk_cid = Cid::new_disk();
    let mut undo = Undo::new(libvirt);
    undo.push(format!("disk {disk_cid}"), |libvirt| {
        disk::delete_empty_if_there(libvirt, &cpi.config, &disk_cid)
    });
    let volume = disk::create_volume(libvirt, &cpi.config, &disk_cid, size, &properties)?;
    // No record says as much as one of a raw disk without options.
    if properties.format != VolumeFormat::Raw || properties.run_time != RunTimeOptions::default() {
        let record = Record {
            options: properties.run_time,
            format: Some(properties.format),
            ..Record::default()
        };
        record.write(libvirt, &cpi.config, &volume)?;
    }
    undo.disarm();
    Ok(disk_cid.as_str().into())
}

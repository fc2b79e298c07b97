//! `create_disk(size, cloud_properties, vm_cid)`: an empty persistent disk. The VM is only a hint for placement, and
//! there is one host.

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::disk::{self, DiskProperties, Record};
use crate::rpc::{Arguments, Result};
use crate::undo::Undo;

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let size = arguments.size_mib("size")?;
    let cloud_properties = arguments.optional_object("cloud_properties")?;
    arguments.optional_cid("vm_cid")?;
    arguments.end()?;
    let properties = DiskProperties::parse("argument 2 (cloud_properties)", cloud_properties)?;

    let libvirt = cpi.libvirt()?;
    let disk_cid = Cid::new_disk();
    // Before it is done: where the connection is lost, nobody knows whether it was.
    let mut undo = Undo::new();
    undo.push(format!("disk {disk_cid}"), || {
        disk::delete_empty_if_there(cpi.libvirt_for_undo()?, &cpi.config, &disk_cid)
    });
    disk::create_volume(libvirt, &cpi.config, &disk_cid, size, &properties)?;
    let record = Record {
        options: properties.run_time,
        format: properties.format,
        ..Record::default()
    };
    if record != Record::default() {
        let records = libvirt.pool(cpi.config.settings.stemcell_pool())?;
        record.write(libvirt, &records, &disk_cid)?;
    }
    undo.disarm();
    Ok(disk_cid.as_str().into())
}

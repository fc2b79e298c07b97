//! `set_disk_metadata(disk_cid, metadata)`: kept in the disk's record, and shown in the `<metadata>` of the VM that
//! has the disk.

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Record};
use bosh_cpi::rpc::{Arguments, Result};
use libvirt_xml::metadata::{PREFIX, disk_namespace, to_element};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    let metadata = arguments.object("metadata")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let record = Record::read(libvirt, &cpi.config, &volume)?;
    let changed = Record {
        metadata,
        ..record.clone()
    };
    if changed != record {
        changed.write_or_leave_none(libvirt, &cpi.config, &volume)?;
        // delete_disk deletes the volume first, then the record: one that was written in between is nobody's.
        if let Err(gone) = volume.path() {
            Record::delete(libvirt, &disk_cid)?;
            return Err(gone);
        }
    }
    for user in disk::users::of(libvirt, &volume.name)? {
        let shown = to_element("disk", &changed.metadata);
        user.domain
            .set_metadata(PREFIX, &disk_namespace(disk_cid.as_str()), Some(&shown))?;
    }
    Ok(Value::Null)
}

//! `delete_disk(disk_cid)`: the only way by which a persistent disk goes. Refused while any VM refers to it.

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Record};
use crate::rpc::{Arguments, Error, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let users = disk::users(libvirt, &volume.name)?;
    if !users.is_empty() {
        return Err(Error::cloud(format!(
            "deleting disk {disk_cid}: it is attached to {}; detach it first",
            users.join(", ")
        )));
    }
    volume.delete()?;
    Record::delete(&libvirt.pool(cpi.config.settings.stemcell_pool())?, &disk_cid)?;
    Ok(Value::Null)
}

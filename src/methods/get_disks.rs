//! `get_disks(vm_cid)`: cids of the persistent disks that the VM has.

use serde_json::Value;

use super::Cpi;
use crate::disk;
use crate::rpc::{Arguments, Result};
use crate::vm;

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    arguments.end()?;
    let xml = vm::get(cpi.libvirt()?, &vm_cid)?.xml()?;
    Ok(disk::attached_disk_cids(&xml).into())
}

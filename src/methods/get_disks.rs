//! `get_disks(vm_cid)`: cids of the persistent disks that the VM has, also where another tool has put an overlay on one
//! or moved it.

use serde_json::Value;

use super::Cpi;
use crate::disk::Attachments;
use crate::vm;
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    arguments.end()?;
    let domain = vm::get(cpi.libvirt()?, &vm_cid)?;
    Ok(Attachments::of(&domain)?.disk_cids().into())
}

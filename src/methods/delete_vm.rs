//! `delete_vm(vm_cid)`: stops and forgets the VM and deletes what belongs to it, its persistent disks excepted. All
//! of that is found by the cid alone, so that a second call ends what a first one began.

use serde_json::Value;

use super::Cpi;
use crate::vm;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let missing = || {
        Error::new(
            ErrorType::VmNotFound,
            format!("VM {vm_cid} does not exist at {}", libvirt.uri),
        )
    };
    if !vm_cid.names_vm() || !vm::delete(libvirt, &cpi.config, &vm_cid)? {
        return Err(missing());
    }
    Ok(Value::Null)
}

//! `reboot_vm(vm_cid)`: a reset, since a guest that has to be rebooted may not listen to polite requests. A stopped
//! VM is booted, with the pools and networks that it needs. Does not wait for the boot.

use serde_json::Value;

use super::Cpi;
use crate::vm;
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    arguments.end()?;
    let libvirt = cpi.libvirt()?;
    vm::reboot(libvirt, &vm::get(libvirt, &vm_cid)?)?;
    Ok(Value::Null)
}

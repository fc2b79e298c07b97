//! `reboot_vm(vm_cid)`: a reset, since a guest that has to be rebooted may not listen to polite requests. A stopped
//! VM is started. Does not wait for the boot.

use serde_json::Value;

use super::Cpi;
use crate::rpc::{Arguments, Result};
use crate::vm;

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    arguments.end()?;
    vm::get(cpi.libvirt()?, &vm_cid)?.reboot()?;
    Ok(Value::Null)
}

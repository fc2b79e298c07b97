//! `has_vm(vm_cid)`: whether the VM exists, running or not.

use serde_json::Value;

use super::Cpi;
use crate::vm;
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    arguments.end()?;
    Ok(vm::find(cpi.libvirt()?, &vm_cid)?.is_some().into())
}

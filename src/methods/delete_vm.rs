//! `delete_vm(vm_cid)`: stops and forgets the VM and deletes what belongs to it, its persistent disks excepted. All
//! of that is found by the cid alone, so that a second call ends what a first one began.

use serde_json::Value;

use super::Cpi;
use crate::logging;
use crate::network;
use crate::rpc::{Arguments, Error, ErrorType, Result};
use crate::vm;

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
    if !vm_cid.names_vm() {
        return Err(missing());
    }
    let domain = libvirt.find_domain(vm_cid.as_str())?;
    let mut pools = vec![cpi.config.settings.stemcell_pool().to_owned()];
    if let Some(domain) = &domain {
        pools.extend(vm::own_pools(&vm_cid, &domain.persistent_xml()?));
        {
            let _step = logging::step(format!("stopping VM {vm_cid}"));
            domain.destroy()?;
        }
        domain.undefine()?;
    }
    let host_entries = network::unreserve(libvirt, &vm_cid)?;
    let volumes = vm::delete_volumes(libvirt, &vm_cid, &pools)?;
    if domain.is_none() && volumes == 0 && host_entries == 0 {
        return Err(missing());
    }
    Ok(Value::Null)
}

//! `detach_disk(vm_cid, disk_cid)`: returns only when the disk is really gone from the VM.

use std::time::Duration;

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::disk::{Attachments, detach_live};
use crate::libvirt::{Changes, Connection, Domain};
use crate::rpc::{Arguments, Error, ErrorType, Result};
use crate::vm;
use crate::xml::metadata::{PREFIX, disk_namespace};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let domain = vm::get(libvirt, &vm_cid)?;
    let timeout = Duration::from_secs(cpi.config.settings.detach_timeout);
    detach(libvirt, &domain, &disk_cid, timeout)
        .map_err(|e| e.during(format!("detaching disk {disk_cid} from VM {vm_cid}")))?;
    Ok(Value::Null)
}

fn detach(libvirt: &Connection, domain: &Domain, disk_cid: &Cid, timeout: Duration) -> Result<()> {
    let name = disk_cid.as_str();
    let attachments = Attachments::of(domain)?;
    let (live, persistent) = (attachments.live_disk(name), attachments.persistent_disk(name));
    if !disk_cid.names_disk() || (live.is_none() && persistent.is_none()) {
        return Err(Error::new(ErrorType::DiskNotAttached, "it is not attached"));
    }
    // The next start's description goes last: until the guest has let go, both say that the disk is attached.
    if live.is_some() {
        detach_live(libvirt, domain, disk_cid, timeout)?;
    }
    if let Some(device) = persistent {
        domain.detach_device(device, Changes::Persistent)?;
    }
    if let Err(error) = domain.set_metadata(PREFIX, &disk_namespace(name), None) {
        log::debug!("no longer showing the metadata of disk {disk_cid}: {error}");
    }
    Ok(())
}

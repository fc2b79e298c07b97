//! `detach_disk(vm_cid, disk_cid)`: returns only when the disk is really gone from the VM.

use std::time::Duration;

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Attachments, detach_live};
use crate::vm;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::{Changes, Connection, Domain};
use libvirt_xml::metadata::{PREFIX, disk_namespace};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let domain = vm::get(libvirt, &vm_cid)?;
    detach(libvirt, &cpi.config, &domain, &disk_cid)
        .map_err(|e| e.during(format!("detaching disk {disk_cid} from VM {vm_cid}")))?;
    Ok(Value::Null)
}

fn detach(libvirt: &Connection, config: &Config, domain: &Domain, disk_cid: &Cid) -> Result<()> {
    let name = disk_cid.as_str();
    let attachments = Attachments::of(domain)?;
    if !disk_cid.names_disk() || !attachments.has(name) {
        return Err(Error::new(ErrorType::DiskNotAttached, "it is not attached"));
    }
    attachments.require_not_saved(domain)?;
    attachments.require_top_layer(domain, name, || disk::path(libvirt, config, disk_cid))?;
    // The persistent XML goes last: until the guest has released the disk, both say that it is attached.
    if attachments.live_disk(name).is_some() {
        let timeout = Duration::from_secs(config.settings.detach_timeout);
        detach_live(libvirt, domain, disk_cid, timeout)?;
    }
    if let Some(device) = attachments.persistent_disk(name) {
        domain.detach_device(device, Changes::Persistent)?;
    }
    if let Err(error) = domain.set_metadata(PREFIX, &disk_namespace(name), None) {
        log::debug!("no longer showing the metadata of disk {disk_cid}: {error}");
    }
    Ok(())
}

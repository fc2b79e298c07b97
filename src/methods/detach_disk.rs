//! `detach_disk(vm_cid, disk_cid)`: returns only when the disk is really gone from the VM: libvirt reports success
//! for having asked the guest, and a guest may take its time or not listen at all.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::disk::Attachments;
use crate::libvirt::{Changes, Domain};
use crate::rpc::{Arguments, Error, ErrorType, Result};
use crate::vm;
use crate::xml::metadata::{PREFIX, disk_namespace};

/// How long one request to the guest is given before it is made again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;

    let domain = vm::get(cpi.libvirt()?, &vm_cid)?;
    let attachments = Attachments::of(&domain)?;
    let doing = || format!("detaching disk {disk_cid} from VM {vm_cid}");
    let name = disk_cid.as_str();
    if !disk_cid.names_disk()
        || (attachments.live_disk(name).is_none() && attachments.persistent_disk(name).is_none())
    {
        return Err(Error::new(ErrorType::DiskNotAttached, "it is not attached").during(doing()));
    }
    if attachments.live_disk(name).is_some() {
        let timeout = Duration::from_secs(cpi.config.settings.detach_timeout);
        detach_live(&domain, &disk_cid, timeout).map_err(|e| e.during(doing()))?;
    }
    if let Some(device) = attachments.persistent_disk(name) {
        domain
            .detach_device(device, Changes::Persistent)
            .map_err(|e| e.during(doing()))?;
    }
    if let Err(error) = domain.set_metadata(PREFIX, &disk_namespace(name), None) {
        log::debug!("no longer showing the metadata of disk {disk_cid}: {error}");
    }
    Ok(Value::Null)
}

fn detach_live(domain: &Domain, disk_cid: &Cid, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let Some(device) = Attachments::of(domain)?.live_disk(disk_cid.as_str()).cloned() else {
            return Ok(());
        };
        if let Err(error) = domain.detach_device(&device, Changes::Live) {
            // Also what libvirt says while an earlier request is still with the guest.
            log::debug!("asking the guest to let go of disk {disk_cid}: {error}");
            if Instant::now() >= deadline {
                return Err(error.retryable());
            }
        }
        let ask_again = Instant::now() + ASK_AGAIN_AFTER;
        while Instant::now() < ask_again.min(deadline) {
            if Attachments::of(domain)?.live_disk(disk_cid.as_str()).is_none() {
                return Ok(());
            }
            sleep(Duration::from_millis(25));
        }
        if Instant::now() >= deadline {
            return Err(Error::cloud(format!(
                "the guest did not let go of it within {} s (settings.detach_timeout); it is still attached; \
                 is the guest up and the disk unmounted?",
                timeout.as_secs()
            ))
            .retryable());
        }
    }
}

//! `detach_disk(vm_cid, disk_cid)`: returns only when the disk is really gone from the VM: libvirt reports success
//! for having asked the guest, and a guest may take its time or not listen at all.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::disk::Attachments;
use crate::interrupt;
use crate::libvirt::{Changes, Connection, Domain};
use crate::logging;
use crate::rpc::{Arguments, Error, ErrorType, Result};
use crate::vm;
use crate::xml::metadata::{PREFIX, disk_namespace};

/// How long one request to the guest is given before it is made again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long an event is waited for before the VM is looked at, in case the event got lost.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

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

/// Asks the guest to let go of the disk, again and again, until it has or the time is up.
pub(super) fn detach_live(
    libvirt: &Connection,
    domain: &Domain,
    disk_cid: &Cid,
    timeout: Duration,
) -> Result<()> {
    let _step = logging::step(format!("waiting for the guest to let go of disk {disk_cid}"));
    let removed = domain.watch_removed_devices(libvirt);
    let deadline = Instant::now() + timeout;
    loop {
        interrupt::check()?;
        let Some(device) = live_device(domain, disk_cid)? else {
            return Ok(());
        };
        let alias = device
            .child("alias")
            .and_then(|alias| alias.attribute("name"))
            .unwrap_or_default()
            .to_owned();
        let ask_again = Instant::now() + ASK_AGAIN_AFTER;
        log::debug!("asking the guest to let go of disk {disk_cid}");
        if let Err(error) = domain.detach_device(&device, Changes::Live) {
            // Also what libvirt says while an earlier request is still with the guest.
            log::debug!("asking again is refused: {error}");
            if Instant::now() >= deadline {
                return Err(error.retryable());
            }
        }
        while Instant::now() < ask_again.min(deadline) {
            interrupt::check()?;
            let patience = LOOK_AGAIN_AFTER.min(deadline.saturating_duration_since(Instant::now()));
            let gone = match &removed {
                Some(removed) => removed
                    .aliases
                    .recv_timeout(patience)
                    .is_ok_and(|gone| gone == alias),
                None => {
                    std::thread::sleep(patience.min(Duration::from_millis(50)));
                    false
                }
            };
            log::debug!(
                "disk {disk_cid}: event {}",
                if gone { "received" } else { "not yet" }
            );
            if live_device(domain, disk_cid)?.is_none() {
                return Ok(());
            }
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

fn live_device(domain: &Domain, disk_cid: &Cid) -> Result<Option<crate::xml::element::Element>> {
    Ok(Attachments::of(domain)?.live_disk(disk_cid.as_str()).cloned())
}

//! Taking a disk out of a running VM, which the guest has to release: libvirt reports success for having asked
//! the guest, and a guest may take its time or not listen at all.

use std::time::{Duration, Instant};

use super::layers::{Layer, disks, layer_of};
use bosh_cpi::cid::Cid;
use bosh_cpi::interrupt;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::{Changes, Connection, Domain, RemovedDevices};
use libvirt_xml::element::Element;

/// How long one request to the guest is given before it is made again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long an event is waited for before the VM is looked at, in case the event got lost.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The same where there are no events.
const LOOK_WITHOUT_EVENTS_AFTER: Duration = Duration::from_millis(50);

/// Asks the guest to release the disk, again and again, until it has or the time is up. A disk that the running VM does
/// not have is fine.
///
/// # Errors
/// `CloudError`, which may be retried: the disk is still attached.
pub fn detach_live(libvirt: &Connection, domain: &Domain, disk_cid: &Cid, timeout: Duration) -> Result<()> {
    let _step = logging::step(format!("waiting for the guest to release disk {disk_cid}"));
    let removed = domain.watch_removed_devices(libvirt);
    let deadline = Instant::now() + timeout;
    loop {
        interrupt::check()?;
        let Some(device) = live_device(domain, disk_cid)? else {
            return Ok(());
        };
        let ask_again = Instant::now() + ASK_AGAIN_AFTER;
        log::debug!("asking the guest to release disk {disk_cid}");
        // Also what libvirt says while an earlier request is still with the guest, so it is asked again all the same.
        let refusal = domain.detach_device(&device, Changes::Live).err();
        if let Some(refusal) = &refusal {
            log::debug!("asking is refused: {refusal}");
        }
        while Instant::now() < ask_again.min(deadline) {
            interrupt::check()?;
            let patience = LOOK_AGAIN_AFTER.min(deadline.saturating_duration_since(Instant::now()));
            log::debug!("disk {disk_cid}: {}", next_event(removed.as_ref(), patience));
            // Whatever was removed: it may have been another device, and events may get lost.
            if live_device(domain, disk_cid)?.is_none() {
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            let reason = refusal.map_or_else(String::new, |refusal| {
                format!(" When last asked, libvirt refused: {refusal}")
            });
            return Err(Error::cloud(format!(
                "the guest did not release it within {} s (settings.detach_timeout); it is still attached; \
                 is the guest up and the disk unmounted?{reason}",
                timeout.as_secs()
            ))
            .retryable());
        }
    }
}

/// Waits for a device to leave the VM, and says whether one did: for the log only.
fn next_event(removed: Option<&RemovedDevices>, patience: Duration) -> String {
    let Some(removed) = removed else {
        std::thread::sleep(patience.min(LOOK_WITHOUT_EVENTS_AFTER));
        return "looking without events".to_owned();
    };
    removed.aliases.recv_timeout(patience).map_or_else(
        |_| "no event yet".to_owned(),
        |alias| format!("device {alias} was removed"),
    )
}

/// The disk in the running VM.
///
/// # Errors
/// `CloudError` for a disk that another tool has put an overlay on meanwhile: only the VM knows of the newest data.
fn live_device(domain: &Domain, disk_cid: &Cid) -> Result<Option<Element>> {
    if !domain.is_active()? {
        return Ok(None);
    }
    let xml = domain.xml()?;
    let found = disks(&xml).find_map(|disk| Some((disk, layer_of(disk, disk_cid.as_str())?)));
    match found {
        None => Ok(None),
        Some((disk, Layer::Top)) => Ok(Some(disk.clone())),
        Some((_, Layer::Below(file) | Layer::Elsewhere(file))) => Err(Error::cloud(format!(
            "another tool has moved it to {file} meanwhile; it is still attached"
        ))),
    }
}

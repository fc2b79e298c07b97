//! Taking a disk out of a running VM, for which the guest has to let go of it: libvirt reports success for having asked
//! the guest, and a guest may take its time or not listen at all.

use std::time::{Duration, Instant};

use super::Attachments;
use crate::cid::Cid;
use crate::interrupt;
use crate::libvirt::{Changes, Connection, Domain};
use crate::logging;
use crate::rpc::{Error, Result};
use crate::xml::element::Element;

/// How long one request to the guest is given before it is made again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long an event is waited for before the VM is looked at, in case the event got lost.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Asks the guest to let go of the disk, again and again, until it has or the time is up. A disk that the running VM does
/// not have is fine.
///
/// # Errors
/// `CloudError`, which may be retried: the disk is still attached.
pub fn detach_live(libvirt: &Connection, domain: &Domain, disk_cid: &Cid, timeout: Duration) -> Result<()> {
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

fn live_device(domain: &Domain, disk_cid: &Cid) -> Result<Option<Element>> {
    Ok(Attachments::of(domain)?.live_disk(disk_cid.as_str()).cloned())
}

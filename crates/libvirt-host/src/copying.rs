//! Copies of volumes, which libvirt makes in one call and says nothing of meanwhile.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use virt::storage_pool::StoragePool;

use bosh_cpi::progress::Progress;

/// How often to look. Most copies are done before the first time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the watcher's last look may take.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Makes the copy to the volume of this name, and shows how many of `total` bytes it has.
///
/// The watcher is not waited for for ever: where a connection is given up with two calls on their way, libvirt's client
/// ends one of them and lets the other wait for an answer that cannot come.
pub(super) fn watched<T>(pool: &StoragePool, name: &str, total: u64, copy: impl FnOnce() -> T) -> T {
    let (copying, ended) = channel::<()>();
    let (watching, unwatched) = channel::<()>();
    let (pool, name) = (pool.clone(), name.to_owned());
    thread::spawn(move || {
        let progress = Progress::new(format!("copying to {name}"), total);
        while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let volume = pool.lookup_storage_vol_by_name(&name);
            if let Ok(info) = volume.and_then(|volume| volume.info()) {
                progress.at(info.allocation);
            }
        }
        drop(progress);
        drop(watching);
    });
    let outcome = copy();
    drop(copying);
    if unwatched.recv_timeout(LAST_LOOK) == Err(RecvTimeoutError::Timeout) {
        log::debug!("what watched the copy still waits for libvirt");
    }
    outcome
}

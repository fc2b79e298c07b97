//! Waiting for other storage jobs: after an upload libvirt refreshes the whole pool by itself, and calls that
//! meet such a job are refused instead of queued.

use std::thread::sleep;
use std::time::{Duration, Instant};

use virt::error::Error as LibvirtError;

use super::errors::means_busy;

/// How long a call waits for other jobs on the same pool.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the libvirt call, again while libvirt says that another job is at work, for 60 s at most.
pub(super) fn when_free<T>(mut call: impl FnMut() -> Result<T, LibvirtError>) -> Result<T, LibvirtError> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match call() {
            Err(error) if means_busy(error.message()) && started.elapsed() < PATIENCE => {
                log::debug!("waiting for another storage job: {}", error.message());
                sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            outcome => return outcome,
        }
    }
}

//! Waiting for other storage jobs: after an upload libvirt refreshes the whole pool by itself, and calls that
//! meet such a job are refused instead of queued.

use std::thread::sleep;
use std::time::{Duration, Instant};

use virt::error::Error as LibvirtError;

use bosh_cpi::interrupt;
use bosh_cpi::rpc::Cause;

use super::errors::{cause, means_other_job, means_pool_at_work};

/// How long a call waits for other jobs on the same pool or VM.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the libvirt call, again while another copy job of the same VM runs, for 60 s at most. `runs` tells whether the
/// VM does.
pub(super) fn when_no_other_job<T>(
    runs: impl Fn() -> bool,
    call: impl FnMut() -> Result<T, LibvirtError>,
) -> Result<T, LibvirtError> {
    repeat_while(call, |e| means_other_job(e) && runs())
}

/// Makes the libvirt call, again while libvirt says that another job is at work on the volume, for 60 s at most.
/// `is_active` tells whether the pool is: libvirt's code for a stopped one is the same.
pub(super) fn when_free<T>(
    is_active: impl Fn() -> bool,
    call: impl FnMut() -> Result<T, LibvirtError>,
) -> Result<T, LibvirtError> {
    repeat_while(call, |e| cause(e) == Cause::Busy && is_active())
}

/// Makes the libvirt call for a pool, again while volumes are copied into it, for 60 s at most.
pub(super) fn when_pool_is_idle<T>(call: impl FnMut() -> Result<T, LibvirtError>) -> Result<T, LibvirtError> {
    repeat_while(call, means_pool_at_work)
}

fn repeat_while<T>(
    mut call: impl FnMut() -> Result<T, LibvirtError>,
    busy: impl Fn(&LibvirtError) -> bool,
) -> Result<T, LibvirtError> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match call() {
            Err(error) if busy(&error) && started.elapsed() < PATIENCE && interrupt::check().is_ok() => {
                log::debug!("waiting for another job: {}", error.message());
                sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            outcome => return outcome,
        }
    }
}

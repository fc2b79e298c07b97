//! Libvirt's event loop: what keepalive messages and domain events are handled by.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use virt::event::{event_register_default_impl, event_run_default_impl};

/// Starts the loop in a thread of its own, once per process, and only if it is called before the first connection
/// is opened: a connection learns of the loop when it is opened. Costs less than a millisecond.
///
/// Failing is no error: calls work without the loop, but a host that vanishes is not noticed. It is logged.
pub fn start() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let registered = event_register_default_impl().map_err(|e| e.message().to_owned());
        let running = registered.and_then(|()| {
            thread::Builder::new()
                .name("libvirt-events".into())
                .spawn(run)
                .map_err(|e| e.to_string())
        });
        if let Err(message) = running {
            log::warn!(
                "libvirt's event loop does not run, so a host that vanishes is not noticed: {message}"
            );
        }
    });
}

/// Ends with the process.
fn run() {
    loop {
        if let Err(e) = event_run_default_impl() {
            log::debug!("libvirt's event loop: {}", e.message());
            // Whatever is wrong, it must not eat a CPU.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

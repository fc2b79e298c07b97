//! Libvirt's event loop: events and keepalive only work while somebody runs it.

use std::sync::Once;

/// Starts the loop in a thread of its own, once per process and before the first connection is opened. Without it
/// calls still work; waits for events then go by their polling.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        if let Err(error) = virt::event::event_register_default_impl() {
            log::warn!("libvirt's event loop cannot be registered: {}", error.message());
            return;
        }
        let spawned = std::thread::Builder::new()
            .name("libvirt-events".to_owned())
            .spawn(|| {
                loop {
                    if let Err(error) = virt::event::event_run_default_impl() {
                        log::debug!("libvirt's event loop: {}", error.message());
                    }
                }
            });
        if let Err(error) = spawned {
            log::warn!("no thread for libvirt's event loop: {error}");
        }
    });
}

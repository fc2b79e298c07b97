//! The real binary against a real libvirtd, with guests that really boot. `make setup` provides both; virsh, blkid
//! and the guest itself are the witnesses.

mod guest;
mod sandbox;

mod disk_life;
mod hosts_contexts;
mod hosts_crowd;
mod hosts_daemon;
mod hosts_lost;
mod hosts_transports;
mod rollback;
mod templates;
mod throttle;
mod vm_life;

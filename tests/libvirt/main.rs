//! The real binary against a real libvirtd, with guests that really boot. `make setup` provides both; virsh, blkid
//! and the guest itself are the witnesses.

mod ceph_host;
mod guest;
mod loop_pool;
mod sandbox;

mod dhcp_entries;
mod disk_life;
mod disk_sizes;
mod hosts_contexts;
mod hosts_crowd;
mod hosts_daemon;
mod hosts_lost;
mod hosts_transports;
mod hot_plug;
mod networks;
mod networks_created;
mod networks_host;
mod pools;
mod pools_ceph;
mod rollback;
mod snapshots;
mod templates;
mod throttle;
mod vm_life;

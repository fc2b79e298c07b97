//! The real binary against a real libvirtd, with guests that really boot. `make setup` provides both; virsh, blkid
//! and the guest itself are the witnesses.

#[path = "../release/bosh.rs"]
mod bosh;
mod ceph_host;
mod faults;
mod footprint;
mod guest;
mod interrupts;
mod load_figures;
mod loop_pool;
mod operator_command;
mod rpc_proxy;
mod sandbox;
mod tiny_guest;

mod attach_race;
mod boots;
mod cdrom;
mod dhcp_entries;
mod disk_life;
mod disk_sizes;
mod hosts_contexts;
mod hosts_crowd;
mod hosts_daemon;
mod hosts_lost;
mod hosts_transports;
mod hot_plug;
mod load;
mod load_foreign;
mod networks;
mod networks_created;
mod networks_host;
mod operator_check;
mod operator_looks;
mod operator_prune;
mod packaged;
mod pools;
mod pools_ceph;
mod progress;
mod rollback;
mod secrets;
mod snapshots;
mod soak;
mod stemcell_formats;
mod stemcells;
mod templates;
mod throttle;
mod upgrade;
mod vm_life;

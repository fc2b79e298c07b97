//! A thin layer over the `virt` crate that speaks in this project's nouns.

mod busy;
mod connection;
mod copying;
mod dnsmasq_directory;
mod domain;
mod errors;
mod event_loop;
mod ffi;
mod find_volume;
mod guest_output;
mod host_devices;
mod inspect;
mod network;
mod open;
mod pool;
mod pool_refresh;
mod private_files;
mod rbd;
mod refusal;
mod reply_wait;
mod upload;
mod uri;
mod versions;
mod volume;
mod warnings;

pub use connection::Connection;
pub use dnsmasq_directory::NETWORK_PREFIX as DNSMASQ_NETWORK_PREFIX;
pub use domain::{Changes, Domain};
pub use ffi::RemovedDevices;
pub use inspect::{DomainStatus, VolumeDetails};
pub use network::Network;
pub use pool::{Pool, PoolKind};
pub use private_files::PRIVATE_DIRECTORY_PREFIX;
pub use versions::{LIVE_COPIES, version};
pub use volume::{Volume, VolumeState};

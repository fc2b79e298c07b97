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
mod library;
mod network;
mod open;
mod pool;
mod private_files;
mod rbd;
mod refusal;
mod ssh;
mod upload;
mod uri;
mod volume;
mod warnings;

pub use connection::Connection;
pub use dnsmasq_directory::NETWORK_PREFIX as DNSMASQ_NETWORK_PREFIX;
pub use domain::{Changes, Domain};
pub use ffi::RemovedDevices;
pub use inspect::{DomainStatus, VolumeDetails};
pub use library::{Library, ssh_client};
pub use network::Network;
pub use pool::{Pool, PoolKind};
pub use private_files::PRIVATE_DIRECTORY_PREFIX;
pub use ssh::become_client_if_asked;
pub use volume::{Volume, VolumeState};

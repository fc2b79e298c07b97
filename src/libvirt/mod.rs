//! A thin layer over the `virt` crate that speaks in this project's nouns.

mod busy;
mod connection;
mod domain;
mod errors;
mod event_loop;
mod ffi;
mod host_devices;
mod network;
mod open;
mod pool;
mod private_files;
mod rbd;
mod refusal;
mod uri;
mod volume;
mod warnings;

pub use connection::Connection;
pub use domain::{Changes, Domain};
pub use network::Network;
pub use pool::{Pool, PoolKind};
pub use volume::{Volume, VolumeState};

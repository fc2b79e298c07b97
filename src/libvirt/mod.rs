//! A thin layer over the `virt` crate that speaks in this project's nouns.

mod busy;
mod connection;
mod domain;
mod errors;
mod host_devices;
mod network;
mod pool;
mod uri;
mod volume;

pub use connection::Connection;
pub use domain::{Changes, Domain};
pub use network::Network;
pub use pool::Pool;
pub use volume::Volume;

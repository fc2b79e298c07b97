//! Networks as operators describe them: cloud properties, what must be there before a VM is made, DHCP host entries.

mod presence;
mod properties;
mod reservations;
mod subnet;

pub use presence::require;
#[cfg(test)]
pub use properties::DirectMode;
pub use properties::{Bandwidth, Link, NicProperties, Rate, parse as parse_properties};
pub use reservations::{require_free_addresses, reserve, unreserve};
use subnet::Subnet;

//! Networks as operators describe them: cloud properties, what must be there before a VM is made, DHCP host entries,
//! and the networks that `create_network` makes.

mod created;
mod presence;
mod properties;
mod request;
mod reservations;
mod subnet;

pub use created::{NewNetwork, delete, require_kept};
pub use presence::require;
#[cfg(test)]
pub use properties::DirectMode;
pub use properties::{Bandwidth, Link, NicProperties, Rate, parse as parse_properties};
pub use request::Request;
pub use reservations::{
    EntryOfVm, entries_of_vms, require_free_addresses, reserve, unreserve, unreserve_in, vm_named_by,
};
pub use subnet::Subnet;

//! Networks as operators describe them: cloud properties, what must be there before a VM is made, DHCP host entries,
//! and the networks that `create_network` makes.

mod created;
mod dhcp_range;
mod nics;
mod presence;
mod properties;
mod request;
mod reservations;
mod subnet;

pub use created::{NewNetwork, delete, require_kept};
pub use dhcp_range::{dhcp_ranges, gives_away};
pub use nics::{Nic, plan as plan_nics};
pub use presence::require;
use properties::{NIC_PROPERTIES, parse as parse_properties, take_nic_properties};
pub use request::Request;
pub use reservations::{
    EntryOfVm, entries_of_vms, require_free_addresses, reserve, unreserve, unreserve_in, vm_named_by,
};
pub use subnet::Subnet;

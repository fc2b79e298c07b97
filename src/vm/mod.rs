//! VMs: what belongs to one, and how its parts are named and found.

pub mod boot_disk;
mod delete;
pub mod domain;
pub mod incomplete;
pub mod needs;
mod new_vm;
mod properties;
pub mod settings_drive;
mod start;
mod volumes;

pub use delete::delete;
pub use domain::OwnDisk;
pub use needs::{Needs, SettingsDrive};
pub use new_vm::NewVm;
pub use properties::VmProperties;
pub use start::reboot;
pub use volumes::{VolumeNames, delete_all as delete_volumes};

use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use libvirt_host::{Connection, Domain};

/// The VM's domain, if there is one. A domain whose name is none of our cids is not ours, hence not found.
pub fn find(libvirt: &Connection, cid: &Cid) -> Result<Option<Domain>> {
    if cid.names_vm() {
        libvirt.find_domain(cid.as_str())
    } else {
        Ok(None)
    }
}

/// The VM's domain.
///
/// # Errors
/// `VMNotFound`.
pub fn get(libvirt: &Connection, cid: &Cid) -> Result<Domain> {
    find(libvirt, cid)?.ok_or_else(|| {
        Error::new(
            ErrorType::VmNotFound,
            format!("VM {cid} does not exist at {}", libvirt.uri),
        )
    })
}

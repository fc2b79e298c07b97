//! One file per CPI method, named as the method. Each takes its arguments, and only then touches libvirt.

mod attach_disk;
mod calculate_vm_cloud_properties;
mod create_disk;
mod create_network;
mod create_stemcell;
pub mod create_vm;
mod delete_disk;
mod delete_network;
mod delete_snapshot;
mod delete_stemcell;
mod delete_vm;
mod detach_disk;
mod get_disks;
mod has_disk;
mod has_vm;
mod info;
mod reboot_vm;
mod resize_disk;
mod set_disk_metadata;
mod set_vm_metadata;
mod snapshot_disk;
mod update_disk;

use std::cell::OnceCell;

use serde_json::Value;

use bosh_cpi::logging;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::Connection;

/// What a method works with: configuration, the caller's API version, and libvirt once it is needed.
pub struct Cpi {
    pub config: Config,
    pub api_version: u64,
    connection: OnceCell<Connection>,
}

impl Cpi {
    pub fn new(config: Config, api_version: u64) -> Self {
        Self {
            config,
            api_version,
            connection: OnceCell::new(),
        }
    }

    /// The connection to libvirt, opened by the first one who asks.
    ///
    /// # Errors
    /// `CloudError`, ok to retry, naming the URI that could not be reached.
    pub fn libvirt(&self) -> Result<&Connection> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let connection = {
            let _step = logging::step("connecting to libvirt");
            Connection::open(&self.config.libvirt)?
        };
        Ok(self.connection.get_or_init(|| connection))
    }

    /// The error of a method, with what could not be rolled back.
    fn with_orphans(&self, error: Error) -> Error {
        let orphans = self.connection.get().map(Connection::orphans).unwrap_or_default();
        if orphans.is_empty() {
            return error;
        }
        Error {
            message: format!(
                "{}; rolling back failed for: {} (`cpi prune` finds what is orphaned)",
                error.message,
                orphans.join(", ")
            ),
            ..error
        }
    }
}

/// Calls the method.
///
/// # Errors
/// The method's own, or `NotImplemented` for a method there is not.
pub fn dispatch(method: &str, arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    call(method, arguments, cpi).map_err(|error| cpi.with_orphans(error))
}

fn call(method: &str, arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    match method {
        "attach_disk" => attach_disk::call(arguments, cpi),
        "calculate_vm_cloud_properties" => calculate_vm_cloud_properties::call(arguments, cpi),
        "create_disk" => create_disk::call(arguments, cpi),
        "create_network" => create_network::call(arguments, cpi),
        "create_stemcell" => create_stemcell::call(arguments, cpi),
        "create_vm" => create_vm::call(arguments, cpi),
        "delete_disk" => delete_disk::call(arguments, cpi),
        "delete_snapshot" => delete_snapshot::call(arguments, cpi),
        "delete_network" => delete_network::call(arguments, cpi),
        "delete_stemcell" => delete_stemcell::call(arguments, cpi),
        "delete_vm" => delete_vm::call(arguments, cpi),
        "detach_disk" => detach_disk::call(arguments, cpi),
        "get_disks" => get_disks::call(arguments, cpi),
        "has_disk" => has_disk::call(arguments, cpi),
        "has_vm" => has_vm::call(arguments, cpi),
        "info" => info::call(arguments, cpi),
        "reboot_vm" => reboot_vm::call(arguments, cpi),
        "resize_disk" => resize_disk::call(arguments, cpi),
        "set_disk_metadata" => set_disk_metadata::call(arguments, cpi),
        "set_vm_metadata" => set_vm_metadata::call(arguments, cpi),
        "snapshot_disk" => snapshot_disk::call(arguments, cpi),
        "update_disk" => update_disk::call(arguments, cpi),
        // Deprecated since API version 2; the contract wants this answer, not NotImplemented.
        "configure_networks" | "current_vm_id" => Err(Error::not_supported(format!(
            "{method} is deprecated and not supported by this CPI"
        ))),
        _ => Err(Error::new(
            ErrorType::NotImplemented,
            format!("method {method:?} is not implemented by this CPI"),
        )),
    }
}

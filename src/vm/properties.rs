//! A VM type's cloud properties.

use serde_json::{Map, Value, json};

use crate::cloud_properties::CloudProperties;
use crate::rpc::Result;

/// What `create_vm` makes of `cloud_properties`, and what `calculate_vm_cloud_properties` answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmProperties {
    /// Virtual CPUs.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
    /// MiB; 0 means no ephemeral disk.
    pub ephemeral_disk: u64,
    /// MiB; None: the stemcell's own size.
    pub boot_disk: Option<u64>,
    /// For the boot and ephemeral disk; None: the stemcells' pool.
    pub storage_pool: Option<String>,
}

impl VmProperties {
    /// # Errors
    /// `CloudError` naming the property that is wrong or unknown.
    pub fn parse(what: &str, values: Map<String, Value>) -> Result<Self> {
        let mut properties = CloudProperties::new(what, values);
        let parsed = Self {
            cpu: properties.integer("cpu", 1)?.unwrap_or(1),
            memory: properties.integer("memory", 1)?.unwrap_or(1024),
            ephemeral_disk: properties.integer("ephemeral_disk", 0)?.unwrap_or(0),
            boot_disk: properties.integer("boot_disk", 1)?,
            storage_pool: properties.string("storage_pool")?,
        };
        properties.end()?;
        Ok(parsed)
    }

    /// The cloud properties that ask for a VM of this size.
    pub fn of_size(cpu: u64, memory: u64, ephemeral_disk: u64) -> Value {
        json!({"cpu": cpu, "memory": memory, "ephemeral_disk": ephemeral_disk})
    }
}

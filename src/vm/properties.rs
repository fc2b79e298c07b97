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
    /// Every property that `parse` knows.
    pub const NAMES: &[&str] = &["cpu", "memory", "ephemeral_disk", "boot_disk", "storage_pool"];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_are_read() {
        let all: Map<String, Value> = VmProperties::NAMES
            .iter()
            .map(|name| {
                let value = if *name == "storage_pool" {
                    json!("p")
                } else {
                    json!(5)
                };
                ((*name).to_owned(), value)
            })
            .collect();
        assert_eq!(VmProperties::parse("x", all.clone()).unwrap().boot_disk, Some(5));
        for name in VmProperties::NAMES {
            let mut misspelt = all.clone();
            let value = misspelt.remove(*name).unwrap();
            misspelt.insert(format!("{name}x"), value);
            let message = VmProperties::parse("x", misspelt).unwrap_err().message;
            assert!(message.contains(&format!("did you mean {name}?")), "{message}");
        }
    }
}

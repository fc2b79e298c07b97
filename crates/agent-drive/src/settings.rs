//! The agent settings document.
//!
//! Its keys are those of the agent's own `settings/settings.go` (cloudfoundry/bosh-agent).

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Everything the agent learns at boot. Holds secrets, hence no `Debug`.
#[derive(Clone)]
pub struct Settings {
    pub agent_id: String,
    pub vm_cid: String,
    /// May be empty: the agent then goes by `env.bosh.mbus.urls`, which it prefers in any case.
    pub mbus: String,
    /// Servers' names or addresses; `env.bosh.ntp` goes before them.
    pub ntp: Vec<String>,
    /// `env.bosh.blobstores` goes before it.
    pub blobstore: Blobstore,
    /// The `networks` argument of `create_vm`.
    pub networks: Map<String, Value>,
    /// MAC address by network name. Networks of one `nic_group` share theirs; vip networks need none.
    pub macs: BTreeMap<String, String>,
    pub disks: Disks,
    /// The `env` argument of `create_vm`, passed on as it came.
    pub env: Value,
}

#[derive(Clone)]
pub struct Blobstore {
    pub provider: String,
    pub options: Map<String, Value>,
}

/// Where the agent finds the VM's disks. A hint is a hash, and the agent takes nothing but strings as its
/// values.
#[derive(Debug, Clone)]
pub struct Disks {
    /// A device path or a SCSI target number: the agent takes no hash here.
    pub system: String,
    /// Disk hint; without one the agent keeps ephemeral data on the system disk.
    pub ephemeral: Option<Value>,
    /// Disk hints by disk cid.
    pub persistent: Map<String, Value>,
}

impl Settings {
    /// The document as the agent reads it.
    pub fn to_json(&self) -> Value {
        let networks: Map<String, Value> = self
            .networks
            .iter()
            .map(|(name, network)| (name.clone(), self.network(name, network)))
            .collect();
        let mut disks = json!({ "system": self.disks.system, "persistent": self.disks.persistent });
        if let Some(ephemeral) = &self.disks.ephemeral {
            disks["ephemeral"] = ephemeral.clone();
        }
        json!({
            "agent_id": self.agent_id,
            "vm": { "name": self.vm_cid, "id": self.vm_cid },
            "mbus": self.mbus,
            "ntp": self.ntp,
            "blobstore": { "provider": self.blobstore.provider, "options": self.blobstore.options },
            "networks": networks,
            "disks": disks,
            "env": self.env,
        })
    }

    fn network(&self, name: &str, network: &Value) -> Value {
        let mut network = network.clone();
        let Some(fields) = network.as_object_mut() else {
            return network;
        };
        let network_type = fields
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("manual")
            .to_string();
        if network_type == "vip" {
            return network;
        }
        if let Some(mac) = self.macs.get(name) {
            // The agent compares it, as a string, with what the guest's kernel shows: lower case.
            fields.insert("mac".into(), mac.to_ascii_lowercase().into());
        }
        if network_type == "dynamic" {
            fields.insert("use_dhcp".into(), true.into());
        }
        network
    }
}

#[cfg(test)]
mod tests;

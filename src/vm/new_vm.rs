//! What create_vm is asked for.

use serde_json::{Map, Value};

use super::VmProperties;
use crate::network::Nic;
use bosh_cpi::cid::Cid;

/// The arguments, checked as far as that goes without libvirt.
pub struct NewVm {
    pub cid: Cid,
    pub uuid: uuid::Uuid,
    pub agent_id: String,
    pub stemcell_cid: Cid,
    pub properties: VmProperties,
    pub networks: Map<String, Value>,
    pub nics: Vec<Nic>,
    pub env: Map<String, Value>,
}

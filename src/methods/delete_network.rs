//! `delete_network(network_id)`: stops and forgets a network that `create_network` made. Refused while any VM has a NIC
//! in it.

use serde_json::Value;

use super::Cpi;
use crate::network;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let id = arguments.cid("network_id")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let found = if id.names_network() {
        libvirt.find_network(id.as_str())?
    } else {
        None
    };
    let network = found.ok_or_else(|| {
        Error::new(
            ErrorType::NetworkNotFound,
            format!(
                "network {id} does not exist at {}, or was not made by create_network",
                libvirt.uri
            ),
        )
    })?;
    network::delete(libvirt, &network)?;
    Ok(Value::Null)
}

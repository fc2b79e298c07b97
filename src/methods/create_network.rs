//! `create_network(definition)`: a libvirt network with a range of its own, started now and with every start of the
//! host. Its name is its id; every NIC that the Director puts on it comes with the cloud properties returned here.

use serde_json::{Value, json};

use super::Cpi;
use crate::network::{NewNetwork, Request};
use crate::vm::VmProperties;
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let definition = arguments.object("network definition")?;
    arguments.end()?;
    let request = Request::parse(definition, VmProperties::NAMES)?;

    let network = NewNetwork::create(cpi.libvirt()?, &request)?;
    let mut addresses = json!({"range": network.subnet.to_string(), "reserved": network.reserved()});
    if let Some(gateway) = network.gateway {
        addresses["gateway"] = gateway.to_string().into();
    }
    let mut cloud_properties = request.nic_properties;
    cloud_properties.insert("name".to_owned(), network.id.as_str().into());
    Ok(json!([network.id.as_str(), addresses, cloud_properties]))
}

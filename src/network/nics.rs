//! Which NICs a VM gets for the networks of `create_vm`, and their MAC addresses.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::parse_properties;
use bosh_cpi::rpc::{Error, Result};
use libvirt_xml::interface::{Link, NicProperties};

/// One NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Chosen here; the agent tells NICs apart by it.
    pub mac: String,
    /// Names of the BOSH networks on it, in the Director's order.
    pub networks: Vec<String>,
    /// What it is plugged into.
    pub link: Link,
    pub properties: NicProperties,
    /// The static addresses on it, in the order of the networks.
    pub addresses: Vec<IpAddr>,
    /// Whether one of its networks is dynamic, so that the guest asks for an address on it.
    pub asks_dhcp: bool,
}

/// A NIC for each network, one for all networks of a `nic_group`, none for a vip.
///
/// # Errors
/// `CloudError` naming the network and what is wrong with it.
pub fn plan(networks: &Map<String, Value>, default_network: &str) -> Result<Vec<Nic>> {
    let mut nics: Vec<(Option<String>, Nic)> = Vec::new();
    for (name, network) in networks {
        let what = format!("argument 4 (networks): {name}");
        let Value::Object(network) = network else {
            return Err(Error::cloud(format!("{what}: must be an object")));
        };
        let text = |key: &str| match network.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Error::cloud(format!("{what}: {key} must be a string"))),
        };
        let address = match text("type")?.unwrap_or("manual") {
            "manual" => Some(address(&what, text("ip")?)?),
            "dynamic" => None,
            "vip" => continue,
            other => {
                return Err(Error::cloud(format!(
                    "{what}: unknown network type {other:?}; known are manual, dynamic and vip"
                )));
            }
        };
        let group = match network.get("nic_group") {
            None | Some(Value::Null) => None,
            Some(Value::String(group)) => Some(group.clone()),
            Some(Value::Number(group)) => Some(group.to_string()),
            Some(_) => {
                return Err(Error::cloud(format!(
                    "{what}: nic_group must be a string or a number"
                )));
            }
        };
        let (link, properties) = placement(what.clone(), network, default_network)?;
        let shared = nics
            .iter_mut()
            .find(|(of_group, _)| group.is_some() && *of_group == group);
        match shared {
            Some((_, nic)) if nic.link != link => {
                return Err(Error::cloud(format!(
                    "{what}: shares a NIC (nic_group) with {}, but one is on {} and the other on {link}",
                    nic.networks.join(", "),
                    nic.link,
                )));
            }
            Some((_, nic)) if nic.properties != properties => {
                return Err(Error::cloud(format!(
                    "{what}: shares a NIC (nic_group) with {}, so their cloud_properties must not differ",
                    nic.networks.join(", "),
                )));
            }
            Some((_, nic)) => {
                nic.networks.push(name.clone());
                nic.asks_dhcp |= address.is_none();
                nic.addresses.extend(address);
            }
            None => nics.push((
                group,
                Nic {
                    mac: random_mac(),
                    networks: vec![name.clone()],
                    link,
                    properties,
                    asks_dhcp: address.is_none(),
                    addresses: address.into_iter().collect(),
                },
            )),
        }
    }
    Ok(nics.into_iter().map(|(_, nic)| nic).collect())
}

fn address(what: &str, ip: Option<&str>) -> Result<IpAddr> {
    let ip = ip.ok_or_else(|| Error::cloud(format!("{what}: a manual network needs an ip")))?;
    ip.parse()
        .map_err(|_| Error::cloud(format!("{what}: ip {ip:?} is no IPv4 or IPv6 address")))
}

fn placement(
    what: String,
    network: &Map<String, Value>,
    default_network: &str,
) -> Result<(Link, NicProperties)> {
    let values = match network.get("cloud_properties") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(values)) => values.clone(),
        Some(_) => {
            return Err(Error::cloud(format!(
                "{what}: cloud_properties must be an object"
            )));
        }
    };
    parse_properties(format!("{what}: cloud_properties"), values, default_network)
}

/// Locally administered, unicast, and in the range that people know as QEMU's. 32 random bits make a clash on one
/// network as good as impossible.
fn random_mac() -> String {
    let random = uuid::Uuid::new_v4().into_bytes();
    format!(
        "52:54:{:02x}:{:02x}:{:02x}:{:02x}",
        random[0], random[1], random[2], random[3]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan_of(networks: Value) -> Result<Vec<Nic>> {
        let Value::Object(networks) = networks else {
            unreachable!()
        };
        plan(&networks, "default")
    }

    #[test]
    fn one_nic_a_network_or_group_and_none_for_a_vip() {
        let nics = plan_of(json!({
            "z": {"type": "manual", "ip": "10.0.0.5", "cloud_properties": {"name": "net1"}},
            "float": {"type": "vip", "ip": "1.2.3.4"},
            "a": {"type": "dynamic", "nic_group": 1},
            "b": {"ip": "fd00::5", "nic_group": "1", "cloud_properties": {}},
            "c": {"ip": "10.1.0.5", "nic_group": "1", "cloud_properties": {"name": "default"}},
        }))
        .unwrap();
        let seen: Vec<_> = nics
            .iter()
            .map(|nic| {
                (
                    nic.networks.join("+"),
                    nic.link.to_string(),
                    nic.addresses.clone(),
                )
            })
            .collect();
        let addresses =
            |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        assert_eq!(
            seen,
            [
                (
                    "z".to_owned(),
                    "libvirt network net1".to_owned(),
                    addresses(&["10.0.0.5"])
                ),
                (
                    "a+b+c".to_owned(),
                    "libvirt network default".to_owned(),
                    addresses(&["fd00::5", "10.1.0.5"])
                ),
            ]
        );
        assert_ne!(nics[0].mac, nics[1].mac);
        assert_eq!(
            nics.iter().map(|nic| nic.asks_dhcp).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn mistakes_name_the_network() {
        for (networks, expected) in [
            (json!({"n": 5}), "must be an object"),
            (json!({"n": {"type": "manual"}}), "a manual network needs an ip"),
            (
                json!({"n": {"ip": "10.0.0.300"}}),
                "ip \"10.0.0.300\" is no IPv4 or IPv6 address",
            ),
            (json!({"n": {"type": "odd"}}), "unknown network type"),
            (json!({"n": {"type": 5}}), "type must be a string"),
            (json!({"n": {"ip": ["10.0.0.1"]}}), "ip must be a string"),
            (
                json!({"n": {"type": "dynamic", "cloud_properties": {"nam": "x"}}}),
                "did you mean name?",
            ),
            (
                json!({"n": {"type": "dynamic", "cloud_properties": 5}}),
                "cloud_properties must be an object",
            ),
            (
                json!({"m": {"type": "dynamic", "nic_group": "1", "cloud_properties": {"name": "x"}},
                       "n": {"type": "dynamic", "nic_group": "1"}}),
                "shares a NIC",
            ),
            (
                json!({"m": {"type": "dynamic", "nic_group": "1", "cloud_properties": {"mtu": 9000}},
                       "n": {"type": "dynamic", "nic_group": "1"}}),
                "their cloud_properties must not differ",
            ),
        ] {
            let message = plan_of(networks).unwrap_err().message;
            assert!(message.starts_with("argument 4 (networks): n: "), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}

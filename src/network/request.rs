//! What `create_network` is asked for.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{NIC_PROPERTIES, Subnet, take_nic_properties};
use bosh_cpi::cloud_properties::CloudProperties;
use bosh_cpi::rpc::{Error, Result};
use libvirt_xml::network::Mode;

const WHAT: &str = "argument 1 (network definition)";

/// The definition, checked as far as that goes without libvirt.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub mode: Mode,
    /// The bridge that exists already; only for `Mode::Bridge`, and always there then.
    pub bridge: Option<String>,
    pub dhcp: bool,
    /// Whether the host gets an address in it, the gateway's.
    pub host_address: bool,
    pub range: Range,
    /// Properties of the NICs in the network, handed back to the Director for its `create_vm` calls.
    pub nic_properties: Map<String, Value>,
}

/// The addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    Given {
        subnet: Subnet,
        gateway: Option<IpAddr>,
    },
    /// Any free one with this prefix; IPv6 from `SMALLEST_IPV6_PREFIX` on.
    Any {
        prefix: u32,
    },
}

/// `netmask_bits` from here on mean IPv6: a site's own range has 48.
pub const SMALLEST_IPV6_PREFIX: u32 = 48;

impl Request {
    /// Unknown keys of the definition are left to the Director. The Director mixes the availability zone's cloud
    /// properties in: those of VMs, named by `of_vms`, are ignored.
    ///
    /// # Errors
    /// `CloudError` naming the key or property that is wrong.
    pub fn parse(mut definition: Map<String, Value>, of_vms: &[&str]) -> Result<Self> {
        let values = match definition.remove("cloud_properties") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(values)) => values,
            Some(_) => return Err(wrong("cloud_properties must be an object")),
        };
        let mut nic_properties = values.clone();
        nic_properties.retain(|name, _| NIC_PROPERTIES.contains(&name.as_str()));
        let mut properties = CloudProperties::new(format!("{WHAT}: cloud_properties"), values);
        let mode = match properties.string("mode")?.as_deref() {
            None | Some("nat") => Mode::Nat,
            Some("route") => Mode::Route,
            Some("isolated") => Mode::Isolated,
            Some("bridge") => Mode::Bridge,
            Some(_) => return Err(properties.wrong("mode", "nat, route, isolated or bridge")),
        };
        let bridge = properties.string("bridge")?;
        let dhcp = properties.boolean("dhcp")?.unwrap_or(false);
        let host_address = properties.boolean("host_address")?;
        match (mode, &bridge) {
            (Mode::Bridge, None) => return Err(properties.wrong("bridge", "given with mode bridge")),
            (Mode::Bridge, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(properties.wrong("bridge", "left out without mode bridge")),
        }
        if dhcp && (mode == Mode::Bridge || host_address == Some(false)) {
            return Err(properties.wrong("dhcp", "false where the host has no address to serve it from"));
        }
        if host_address == Some(false) && mode != Mode::Isolated {
            return Err(properties.wrong("host_address", "true unless mode is isolated"));
        }
        take_nic_properties(&mut properties)?;
        properties.ignore(of_vms);
        properties.end()?;
        Ok(Self {
            mode,
            bridge,
            dhcp,
            host_address: host_address.unwrap_or(mode != Mode::Bridge),
            range: range(&definition, mode)?,
            nic_properties,
        })
    }
}

fn range(definition: &Map<String, Value>, mode: Mode) -> Result<Range> {
    let text = |key: &str| match definition.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong(&format!("{key} must be a string"))),
    };
    let netmask_bits = match definition.get("netmask_bits") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_u64()
                .and_then(|bits| u32::try_from(bits).ok())
                .filter(|bits| (8..=29).contains(bits) || (SMALLEST_IPV6_PREFIX..=125).contains(bits))
                .ok_or_else(|| wrong("netmask_bits must be from 8 to 29 (IPv4) or from 48 to 125 (IPv6)"))?,
        ),
    };
    let gateway: Option<IpAddr> = text("gateway")?
        .map(|text| {
            text.parse()
                .map_err(|_| wrong(&format!("gateway {text:?} is no address")))
        })
        .transpose()?;
    let Some(given) = text("range")? else {
        return match netmask_bits {
            _ if mode == Mode::Bridge => Err(wrong("a network on an existing bridge needs its range")),
            _ if gateway.is_some() => Err(wrong("a gateway needs its range")),
            None => Err(wrong("range or netmask_bits is needed")),
            Some(prefix) => Ok(Range::Any { prefix }),
        };
    };
    let subnet: Subnet = given
        .parse()
        .map_err(|message: String| wrong(&format!("range {message}")))?;
    if subnet.host_bits() < 2 {
        return Err(wrong(&format!(
            "range {subnet} has no room for a gateway and VMs"
        )));
    }
    if netmask_bits.is_some_and(|bits| bits != subnet.prefix) {
        return Err(wrong(&format!(
            "range {subnet} and netmask_bits contradict each other"
        )));
    }
    match gateway {
        Some(gateway) if !subnet.contains(gateway) || gateway == subnet.address(0) => Err(wrong(&format!(
            "gateway {gateway} is no address of a host in range {subnet}"
        ))),
        _ => Ok(Range::Given { subnet, gateway }),
    }
}

fn wrong(what: &str) -> Error {
    Error::cloud(format!("{WHAT}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(definition: Value) -> Result<Request> {
        let Value::Object(definition) = definition else {
            unreachable!()
        };
        Request::parse(definition, crate::vm::VmProperties::NAMES)
    }

    #[test]
    fn what_the_director_sends() {
        let request = parse(
            json!({"type": "manual", "range": "10.0.0.0/24", "gateway": "10.0.0.1", "netmask_bits": 24,
            "cloud_properties": {"mode": "isolated", "filter": "clean-traffic", "cpu": 2, "storage_pool": "az1"}}),
        )
        .unwrap();
        let expected = Request {
            mode: Mode::Isolated,
            bridge: None,
            dhcp: false,
            host_address: true,
            range: Range::Given {
                subnet: "10.0.0.0/24".parse().unwrap(),
                gateway: "10.0.0.1".parse().ok(),
            },
            nic_properties: json!({"filter": "clean-traffic"}).as_object().unwrap().clone(),
        };
        assert_eq!(request, expected);
        let request = parse(json!({"netmask_bits": 64, "range": null, "gateway": null})).unwrap();
        assert_eq!(
            (request.mode, request.range),
            (Mode::Nat, Range::Any { prefix: 64 })
        );
        let properties = json!({"mode": "bridge", "bridge": "br0"});
        let request = parse(json!({"range": "fd00::/64", "cloud_properties": properties})).unwrap();
        assert!(!request.host_address);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |properties: Value| json!({"range": "10.0.0.0/24", "cloud_properties": properties});
        for (definition, expected) in [
            (json!({}), "range or netmask_bits is needed"),
            (
                json!({"gateway": "10.0.0.1", "netmask_bits": 24}),
                "a gateway needs its range",
            ),
            (json!({"range": "10.0.0.0"}), "is no subnet"),
            (json!({"range": 5}), "range must be a string"),
            (json!({"range": "10.0.0.0/31"}), "no room"),
            (json!({"range": "10.0.0.0/24", "netmask_bits": 25}), "contradict"),
            (
                json!({"range": "10.0.0.0/24", "gateway": "10.0.1.1"}),
                "gateway 10.0.1.1 is no address of a host",
            ),
            (
                json!({"range": "10.0.0.0/24", "gateway": "10.0.0.0"}),
                "gateway 10.0.0.0 is no address of a host",
            ),
            (
                json!({"range": "10.0.0.0/24", "gateway": "x"}),
                "gateway \"x\" is no address",
            ),
            (json!({"netmask_bits": 30}), "netmask_bits must be from 8"),
            (json!({"netmask_bits": "24"}), "netmask_bits must be from 8"),
            (
                json!({"range": "10.0.0.0/24", "cloud_properties": 5}),
                "cloud_properties must be an object",
            ),
            (
                with(json!({"mode": "nta"})),
                "mode must be nat, route, isolated or bridge",
            ),
            (
                with(json!({"mod": "nat"})),
                "unknown property mod; did you mean mode?",
            ),
            (
                with(json!({"mode": "bridge"})),
                "bridge must be given with mode bridge",
            ),
            (with(json!({"bridge": "br0"})), "bridge must be left out"),
            (
                with(json!({"mode": "bridge", "bridge": "br0", "dhcp": true})),
                "dhcp must be false",
            ),
            (with(json!({"host_address": false})), "host_address must be true"),
            (with(json!({"mtu": 1})), "mtu must be"),
            (
                json!({"netmask_bits": 24, "cloud_properties": {"mode": "bridge", "bridge": "br0"}}),
                "needs its range",
            ),
        ] {
            let message = parse(definition).unwrap_err().message;
            assert!(
                message.starts_with("argument 1 (network definition): "),
                "{message}"
            );
            assert!(message.contains(expected), "{message}");
        }
    }
}

//! A network's cloud properties: what a NIC is plugged into, and what kind of NIC it is.

use serde_json::{Map, Value};

use bosh_cpi::cloud_properties::CloudProperties;
use bosh_cpi::rpc::{Error, Result};
use libvirt_xml::interface::{Bandwidth, DirectMode, Link, NicProperties, Rate};

/// The cloud properties that are about the NIC itself, for those who pass them on.
pub const NIC_PROPERTIES: [&str; 5] = ["model", "mtu", "queues", "filter", "bandwidth"];

/// Takes the properties in `NIC_PROPERTIES`.
///
/// # Errors
/// `CloudError` naming the property that is wrong.
pub fn take_nic_properties(properties: &mut CloudProperties) -> Result<NicProperties> {
    Ok(NicProperties {
        model: properties.string("model")?,
        mtu: properties.integer_between("mtu", 68, 65535)?,
        queues: properties.integer_between("queues", 1, 256)?,
        filter: properties.string("filter")?,
        bandwidth: properties.hash("bandwidth")?.map(bandwidth).transpose()?,
    })
}

/// Reads a network's `cloud_properties`; `default_network` is where a NIC goes that says nothing.
///
/// # Errors
/// `CloudError` naming the property that is wrong, unknown, or does not go with another.
pub fn parse(
    what: String,
    values: Map<String, Value>,
    default_network: &str,
) -> Result<(Link, NicProperties)> {
    let wrong = {
        let what = what.clone();
        move |text: &str| Error::cloud(format!("{what}: {text}"))
    };
    let mut properties = CloudProperties::new(what, values);
    let name = properties.string("name")?;
    let bridge = properties.string("bridge")?;
    let direct = properties.hash("direct")?.map(direct).transpose()?;
    let openvswitch = properties.boolean("openvswitch")?;
    let vlan = properties.integer_between("vlan", 1, 4094)?;
    let portgroup = properties.string("portgroup")?;
    let nic = take_nic_properties(&mut properties)?;
    properties.end()?;

    if usize::from(name.is_some()) + usize::from(bridge.is_some()) + usize::from(direct.is_some()) > 1 {
        return Err(wrong(
            "name, bridge and direct exclude each other; give one of them",
        ));
    }
    if openvswitch.is_some() && bridge.is_none() {
        return Err(wrong("openvswitch goes with bridge only"));
    }
    if portgroup.is_some() && (bridge.is_some() || direct.is_some()) {
        return Err(wrong("portgroup goes with a libvirt network (name) only"));
    }
    if nic.filter.is_some() && direct.is_some() {
        return Err(wrong("filter does not go with direct: macvtap has no filters"));
    }
    let link = match (bridge, direct) {
        (Some(name), _) => Link::Bridge {
            name,
            // Plain bridges know VLANs only with libvirt 11 and later.
            openvswitch: openvswitch.unwrap_or(vlan.is_some()),
            vlan,
        },
        (None, Some((_, mode))) if vlan.is_some() && mode != DirectMode::Passthrough => {
            return Err(wrong("vlan goes with direct in mode passthrough only"));
        }
        (None, Some((device, mode))) => Link::Direct { device, mode, vlan },
        (None, None) => Link::Network {
            name: name.unwrap_or_else(|| default_network.to_owned()),
            portgroup,
            vlan,
        },
    };
    Ok((link, nic))
}

fn direct(mut properties: CloudProperties) -> Result<(String, DirectMode)> {
    let device = properties.string("device")?;
    let mode = properties.string("mode")?;
    let mode = match mode.as_deref() {
        None | Some("bridge") => DirectMode::Bridge,
        Some("vepa") => DirectMode::Vepa,
        Some("private") => DirectMode::Private,
        Some("passthrough") => DirectMode::Passthrough,
        Some(_) => return Err(properties.wrong("mode", "bridge, vepa, private or passthrough")),
    };
    let Some(device) = device else {
        return Err(properties.wrong("device", "given: a network device of the host"));
    };
    properties.end()?;
    Ok((device, mode))
}

fn bandwidth(mut properties: CloudProperties) -> Result<Bandwidth> {
    let bandwidth = Bandwidth {
        inbound: properties.hash("inbound")?.map(rate).transpose()?,
        outbound: properties.hash("outbound")?.map(rate).transpose()?,
    };
    properties.end()?;
    Ok(bandwidth)
}

fn rate(mut properties: CloudProperties) -> Result<Rate> {
    let average = properties.integer("average", 1)?;
    let peak = properties.integer("peak", 1)?;
    let burst = properties.integer("burst", 1)?;
    let Some(average) = average else {
        return Err(properties.wrong("average", "given, in KiB/s"));
    };
    properties.end()?;
    Ok(Rate { average, peak, burst })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<(Link, NicProperties)> {
        let Value::Object(values) = value else {
            unreachable!()
        };
        parse("net".to_owned(), values, "default")
    }

    #[test]
    fn a_nic_goes_to_a_network_a_bridge_or_a_device() {
        let network = |name: &str, portgroup: Option<&str>| Link::Network {
            name: name.to_owned(),
            portgroup: portgroup.map(str::to_owned),
            vlan: None,
        };
        let bridge = |openvswitch, vlan| Link::Bridge {
            name: "br0".to_owned(),
            openvswitch,
            vlan,
        };
        let direct = |mode, vlan| Link::Direct {
            device: "eth0".to_owned(),
            mode,
            vlan,
        };
        for (value, expected) in [
            (json!({}), network("default", None)),
            (json!({"name": "x", "portgroup": "p"}), network("x", Some("p"))),
            (json!({"bridge": "br0"}), bridge(false, None)),
            (json!({"bridge": "br0", "openvswitch": true}), bridge(true, None)),
            (json!({"bridge": "br0", "vlan": 7}), bridge(true, Some(7))),
            (
                json!({"bridge": "br0", "vlan": 7, "openvswitch": false}),
                bridge(false, Some(7)),
            ),
            (
                json!({"direct": {"device": "eth0"}}),
                direct(DirectMode::Bridge, None),
            ),
            (
                json!({"direct": {"device": "eth0", "mode": "passthrough"}, "vlan": 7}),
                direct(DirectMode::Passthrough, Some(7)),
            ),
        ] {
            assert_eq!(read(value).unwrap().0, expected);
        }
        let (_, nic) = read(
            json!({"model": "e1000e", "mtu": 9000, "queues": 2, "filter": "clean-traffic",
            "bandwidth": {"inbound": {"average": 10, "peak": 20, "burst": 30}}}),
        )
        .unwrap();
        let inbound = Rate {
            average: 10,
            peak: Some(20),
            burst: Some(30),
        };
        let expected = NicProperties {
            model: Some("e1000e".to_owned()),
            mtu: Some(9000),
            queues: Some(2),
            filter: Some("clean-traffic".to_owned()),
            bandwidth: Some(Bandwidth {
                inbound: Some(inbound),
                outbound: None,
            }),
        };
        assert_eq!(nic, expected);
    }

    #[test]
    fn mistakes_name_the_property() {
        for (value, expected) in [
            (
                json!({"direct": {"device": "e"}, "filter": "clean-traffic"}),
                "net: filter does not go with direct",
            ),
            (
                json!({"name": "x", "bridge": "br0"}),
                "net: name, bridge and direct exclude each other",
            ),
            (
                json!({"openvswitch": true}),
                "net: openvswitch goes with bridge only",
            ),
            (
                json!({"bridge": "br0", "openvswitch": "yes"}),
                "net: openvswitch must be true or false",
            ),
            (
                json!({"bridge": "br0", "portgroup": "p"}),
                "net: portgroup goes with a libvirt network",
            ),
            (json!({"direct": "eth0"}), "net: direct must be an object"),
            (json!({"direct": {}}), "net: direct: device must be given"),
            (
                json!({"direct": {"device": "e", "mode": "x"}}),
                "net: direct: mode must be bridge, vepa",
            ),
            (
                json!({"direct": {"device": "e", "mod": "x"}}),
                "net: direct: unknown property mod; did you mean mode?",
            ),
            (
                json!({"direct": {"device": "e"}, "vlan": 5}),
                "net: vlan goes with direct in mode passthrough only",
            ),
            (
                json!({"vlan": 4095}),
                "net: vlan must be a whole number from 1 to 4094",
            ),
            (
                json!({"mtu": 9}),
                "net: mtu must be a whole number from 68 to 65535",
            ),
            (
                json!({"bandwidth": {"inbound": {"peak": 5}}}),
                "net: bandwidth: inbound: average must be given",
            ),
            (
                json!({"bandwidth": {"inbnd": {}}}),
                "net: bandwidth: unknown property inbnd; did you mean inbound?",
            ),
            (
                json!({"fliter": "x"}),
                "net: unknown property fliter; did you mean filter?",
            ),
        ] {
            let message = read(value).unwrap_err().message;
            assert!(message.starts_with(expected), "{message}");
        }
    }
}

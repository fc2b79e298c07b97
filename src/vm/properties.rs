//! A VM type's cloud properties.

use serde_json::{Map, Value, json};

use bosh_cpi::cloud_properties::CloudProperties;
use bosh_cpi::rpc::Result;
use cpi_config::{Firmware, is_cpu_mode};
use libvirt_xml::element::Element;
use libvirt_xml::platform::HugePages;

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
    /// None for this and the two after it: as the configuration says. `Some(None)` is `auto`: what the stemcell needs.
    pub firmware: Option<Option<Firmware>>,
    pub machine: Option<String>,
    pub cpu_mode: Option<String>,
    /// None: pages of the usual size.
    pub hugepages: Option<HugePages>,
    /// To be added to the domain's.
    pub devices: Vec<Element>,
    /// A template for this VM; None: the configuration's, or none.
    pub vm_domain: Option<String>,
}

impl VmProperties {
    /// Every property that `parse` knows.
    pub const NAMES: &[&str] = &[
        "cpu",
        "memory",
        "ephemeral_disk",
        "boot_disk",
        "storage_pool",
        "firmware",
        "machine",
        "cpu_mode",
        "hugepages",
        "devices",
        "vm_domain",
    ];

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
            firmware: firmware(&mut properties)?,
            machine: properties.string("machine")?,
            cpu_mode: cpu_mode(&mut properties)?,
            hugepages: hugepages(&mut properties)?,
            devices: devices(&mut properties)?,
            vm_domain: properties.string("vm_domain")?,
        };
        properties.end()?;
        Ok(parsed)
    }

    /// The cloud properties that ask for a VM of this size.
    pub fn of_size(cpu: u64, memory: u64, ephemeral_disk: u64) -> Value {
        json!({"cpu": cpu, "memory": memory, "ephemeral_disk": ephemeral_disk})
    }
}

fn firmware(properties: &mut CloudProperties) -> Result<Option<Option<Firmware>>> {
    let choice = properties.choice("firmware", &["auto", "bios", "efi"])?;
    Ok(choice.map(|choice| match choice.as_str() {
        "bios" => Some(Firmware::Bios),
        "efi" => Some(Firmware::Efi),
        _ => None,
    }))
}

fn cpu_mode(properties: &mut CloudProperties) -> Result<Option<String>> {
    match properties.string("cpu_mode")? {
        Some(mode) if !is_cpu_mode(&mode) => {
            Err(properties.wrong("cpu_mode", "a CPU mode or a model's name"))
        }
        mode => Ok(mode),
    }
}

fn hugepages(properties: &mut CloudProperties) -> Result<Option<HugePages>> {
    match properties.value("hugepages") {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(HugePages::Default)),
        Some(value) => match value.as_u64() {
            Some(size) if size > 0 => Ok(Some(HugePages::OfSize(size))),
            _ => Err(properties.wrong("hugepages", "true, false or the size of a page in MiB")),
        },
    }
}

/// Elements one after the other, with or without the `<devices>` around them.
fn devices(properties: &mut CloudProperties) -> Result<Vec<Element>> {
    let Some(text) = properties.string("devices")? else {
        return Ok(Vec::new());
    };
    let parsed = Element::parse(&format!("<devices>{text}</devices>"))
        .map_err(|e| properties.wrong("devices", &format!("XML, but is {e}")))?;
    let elements: Vec<Element> = parsed.elements().cloned().collect();
    if elements.is_empty() || elements.len() < parsed.children.len() {
        return Err(properties.wrong("devices", "XML elements, as a domain has them within <devices>"));
    }
    Ok(match <[Element; 1]>::try_from(elements) {
        Ok([whole]) if whole.name == "devices" => whole.elements().cloned().collect(),
        Ok([one]) => vec![one],
        Err(elements) => elements,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: Value) -> Result<VmProperties> {
        let Value::Object(values) = values else {
            unreachable!()
        };
        VmProperties::parse("x", values)
    }

    #[test]
    fn every_property_is_read_and_its_misspelling_refused() {
        let all = json!({"cpu": 2, "memory": 3, "ephemeral_disk": 4, "boot_disk": 5, "storage_pool": "p",
            "firmware": "efi", "machine": "q35", "cpu_mode": "host-model", "hugepages": 2,
            "devices": "<hostdev/>", "vm_domain": "<domain/>"});
        assert_eq!(
            parse(all.clone()).unwrap(),
            VmProperties {
                cpu: 2,
                memory: 3,
                ephemeral_disk: 4,
                boot_disk: Some(5),
                storage_pool: Some("p".to_owned()),
                firmware: Some(Some(Firmware::Efi)),
                machine: Some("q35".to_owned()),
                cpu_mode: Some("host-model".to_owned()),
                hugepages: Some(HugePages::OfSize(2)),
                devices: vec![Element::new("hostdev")],
                vm_domain: Some("<domain/>".to_owned()),
            }
        );
        let names: Vec<&String> = all.as_object().unwrap().keys().collect();
        assert_eq!(names, VmProperties::NAMES);
        for name in names {
            let mut misspelt = all.clone();
            let value = misspelt.as_object_mut().unwrap().remove(name).unwrap();
            misspelt[format!("{name}x")] = value;
            let message = parse(misspelt).unwrap_err().message;
            assert!(message.contains(&format!("did you mean {name}?")), "{message}");
        }
    }

    #[test]
    fn hugepages_are_a_switch_or_a_size() {
        for (value, expected) in [
            (json!(null), None),
            (json!(false), None),
            (json!(true), Some(HugePages::Default)),
            (json!(1024), Some(HugePages::OfSize(1024))),
        ] {
            assert_eq!(parse(json!({"hugepages": value})).unwrap().hugepages, expected);
        }
    }

    #[test]
    fn devices_are_elements() {
        let names = |text| {
            let devices = parse(json!({"devices": text})).unwrap().devices;
            devices.into_iter().map(|d| d.name).collect::<Vec<_>>()
        };
        assert_eq!(names("<hostdev/>\n<tpm model='tpm-crb'/>"), ["hostdev", "tpm"]);
        assert_eq!(names("<devices><hostdev/><tpm/></devices>"), ["hostdev", "tpm"]);
        assert_eq!(names("<!-- a GPU --><hostdev/>"), ["hostdev"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (values, expected) in [
            (
                json!({"firmware": "uefi"}),
                "firmware must be one of auto, bios, efi",
            ),
            (json!({"cpu_mode": "a'b"}), "cpu_mode must be"),
            (
                json!({"hugepages": "2M"}),
                "hugepages must be true, false or the size",
            ),
            (json!({"hugepages": 0}), "hugepages must be"),
            (
                json!({"devices": "<hostdev>"}),
                "devices must be XML, but is not well-formed",
            ),
            (json!({"devices": "gpu"}), "devices must be XML elements"),
            (json!({"devices": "<a/>gpu"}), "devices must be XML elements"),
            (
                json!({"devices": "</devices><os/><devices>"}),
                "devices must be XML, but is",
            ),
            (json!({"devices": ["<hostdev/>"]}), "devices must be a string"),
            (json!({"vm_domain": 5}), "vm_domain must be a string"),
        ] {
            let message = parse(values).unwrap_err().message;
            assert!(
                message.starts_with("x: ") && message.contains(expected),
                "{message}"
            );
        }
    }
}

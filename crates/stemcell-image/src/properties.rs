//! A stemcell's cloud properties.

use super::MIB;
use bosh_cpi::rpc::{Error, Result};
use serde_json::{Map, Value};

/// What a stemcell says about itself. Unknown keys are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StemcellProperties {
    pub name: Option<String>,
    pub version: Option<String>,
    pub infrastructure: Option<String>,
    pub hypervisor: Option<String>,
    /// The image's virtual size, in MiB.
    pub disk: Option<u64>,
    pub disk_format: Option<String>,
    pub container_format: Option<String>,
    pub os_type: Option<String>,
    pub os_distro: Option<String>,
    pub architecture: Option<String>,
    pub root_device_name: Option<String>,
    /// Of a light stemcell: the volume that it stands for.
    pub volume: Option<String>,
    /// The pool of that volume.
    pub pool: Option<String>,
}

impl StemcellProperties {
    /// The `cloud_properties` argument of `create_stemcell`.
    ///
    /// Errors: `CpiError`, naming the key whose value has the wrong type.
    pub fn parse(cloud_properties: &Value) -> Result<Self> {
        let Some(properties) = cloud_properties.as_object() else {
            return Err(Error::cpi("stemcell cloud properties must be a hash"));
        };
        let text = |key| text(properties, key);
        Ok(Self {
            name: text("name")?,
            version: version(properties)?,
            infrastructure: text("infrastructure")?,
            hypervisor: text("hypervisor")?,
            disk: disk(properties)?,
            disk_format: text("disk_format")?,
            container_format: text("container_format")?,
            os_type: text("os_type")?,
            os_distro: text("os_distro")?,
            architecture: text("architecture")?,
            root_device_name: text("root_device_name")?,
            volume: text("volume")?,
            pool: text("pool")?,
        })
    }

    /// Whether an image of `virtual_size` bytes is the one announced: at most `disk` MiB, give or take what
    /// rounding to a MiB loses. A smaller one will do, as `disk` may be rounded up to a GiB; the log tells of it.
    ///
    /// Errors: `CloudError`.
    pub fn check_size(&self, virtual_size: u64) -> Result<()> {
        match self.disk {
            Some(disk) if virtual_size > disk.saturating_add(1).saturating_mul(MIB) => {
                Err(Error::cloud(format!(
                    "the image's virtual size of {virtual_size} bytes disagrees with cloud property disk, {disk} MiB"
                )))
            }
            Some(disk) if virtual_size.saturating_add(MIB) < disk.saturating_mul(MIB) => {
                log::warn!(
                    "the image's virtual size of {virtual_size} bytes is less than cloud property disk, {disk} MiB"
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn given<'a>(properties: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    properties.get(key).filter(|value| !value.is_null())
}

fn refuse<T>(key: &str, wanted: &str, value: &Value) -> Result<T> {
    Err(Error::cpi(format!(
        "stemcell cloud property {key} must be {wanted}, not {value}"
    )))
}

fn text(properties: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match given(properties, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => refuse(key, "a string", other),
    }
}

/// A version written without quotes in `stemcell.MF` arrives as a number.
fn version(properties: &Map<String, Value>) -> Result<Option<String>> {
    match given(properties, "version") {
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        _ => text(properties, "version"),
    }
}

fn disk(properties: &Map<String, Value>) -> Result<Option<u64>> {
    let Some(value) = given(properties, "disk") else {
        return Ok(None);
    };
    let mib = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match mib {
        Some(mib) if mib > 0 => Ok(Some(mib)),
        _ => refuse("disk", "a positive number of MiB", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bosh_cpi::rpc::ErrorType;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_published_stemcells_properties() {
        let properties = StemcellProperties::parse(&json!({
            "name": "bosh-openstack-kvm-ubuntu-jammy-go_agent", "version": "1.404", "infrastructure": "openstack",
            "hypervisor": "kvm", "disk": 5120, "disk_format": "qcow2", "container_format": "bare",
            "os_type": "linux", "os_distro": "ubuntu", "architecture": "x86_64", "auto_disk_config": true,
            "root_device_name": null,
        }))
        .unwrap();
        assert_eq!(
            properties.name.as_deref(),
            Some("bosh-openstack-kvm-ubuntu-jammy-go_agent")
        );
        assert_eq!(properties.version.as_deref(), Some("1.404"));
        assert_eq!(properties.disk, Some(5120));
        assert_eq!(properties.architecture.as_deref(), Some("x86_64"));
        assert_eq!(properties.root_device_name, None);
        assert_eq!(
            StemcellProperties::parse(&json!({})).unwrap(),
            StemcellProperties::default()
        );
    }

    #[test]
    fn disk_and_version_come_in_several_shapes() {
        for (key, value, disk, version) in [
            ("disk", json!(5120), Some(5120), None),
            ("disk", json!("5120"), Some(5120), None),
            ("disk", json!(" 5120 "), Some(5120), None),
            ("disk", json!(null), None, None),
            ("version", json!("621.5"), None, Some("621.5")),
            ("version", json!(621.5), None, Some("621.5")),
            ("version", json!(3586), None, Some("3586")),
        ] {
            let properties = StemcellProperties::parse(&json!({key: value})).unwrap();
            assert_eq!(
                (properties.disk, properties.version.as_deref()),
                (disk, version),
                "{value}"
            );
        }
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        for (key, value) in [
            ("name", json!(1)),
            ("version", json!([])),
            ("disk", json!(0)),
            ("disk", json!(-1)),
            ("disk", json!(5.5)),
            ("disk", json!("5G")),
            ("disk", json!({})),
            ("architecture", json!(true)),
            ("root_device_name", json!({})),
        ] {
            let error = StemcellProperties::parse(&json!({key: value})).unwrap_err();
            assert_eq!(error.error_type, ErrorType::CpiError);
            assert!(
                error.message.contains(&format!(" {key} must")),
                "{}",
                error.message
            );
        }
        assert!(StemcellProperties::parse(&json!([])).is_err());
        assert!(StemcellProperties::parse(&json!(null)).is_err());
    }

    #[test]
    fn sizes_agree_within_a_mib() {
        for (disk, virtual_size, agrees) in [
            (Some(5120), 5120 * MIB, true),
            (Some(5120), 5121 * MIB, true),
            (Some(5120), 5121 * MIB + 1, false),
            (Some(5120), 6000 * MIB, false),
            (Some(5120), 2200 * MIB, true),
            (None, u64::MAX, true),
            (Some(u64::MAX), u64::MAX, true),
        ] {
            let properties = StemcellProperties {
                disk,
                ..Default::default()
            };
            assert_eq!(
                properties.check_size(virtual_size).is_ok(),
                agrees,
                "{disk:?} {virtual_size}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(key in "name|version|disk|architecture", number in any::<f64>(), text in ".*") {
            for value in [json!(number), json!(text), json!([number])] {
                let _ = StemcellProperties::parse(&json!({key.clone(): value}));
            }
        }
    }
}

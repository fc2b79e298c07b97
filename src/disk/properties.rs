//! A persistent disk's cloud properties: where and how its volume is made, and how a VM uses it.

use serde_json::{Map, Value};

use bosh_cpi::cloud_properties::CloudProperties;
use bosh_cpi::rpc::Result;
use libvirt_xml::disk::RunTimeOptions;
use libvirt_xml::volume::{Preallocation, VolumeFormat};

/// What `create_disk` and `update_disk` make of `cloud_properties`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskProperties {
    /// None: `settings.storage_pool_name`.
    pub storage_pool: Option<String>,
    pub format: VolumeFormat,
    pub preallocation: Preallocation,
    pub run_time: RunTimeOptions,
}

const CACHES: &[&str] = &["none", "writethrough", "writeback", "directsync", "unsafe"];
const IOS: &[&str] = &["threads", "native", "io_uring"];
const DISCARDS: &[&str] = &["unmap", "ignore"];
const LIMITS: &[&str] = &[
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
];

impl DiskProperties {
    /// # Errors
    /// `CloudError` naming the property that is wrong or unknown.
    pub fn parse(what: &str, values: Map<String, Value>) -> Result<Self> {
        let mut properties = CloudProperties::new(what, values);
        let storage_pool = properties.string("storage_pool")?;
        let format = match properties.choice("format", &["raw", "qcow2"])?.as_deref() {
            Some("qcow2") => VolumeFormat::Qcow2,
            _ => VolumeFormat::Raw,
        };
        let preallocation = match properties
            .choice("preallocation", &["off", "metadata", "full"])?
            .as_deref()
        {
            Some("metadata") => Preallocation::Metadata,
            Some("full") => Preallocation::Full,
            _ => Preallocation::Off,
        };
        let run_time = RunTimeOptions {
            cache: properties.choice("cache", CACHES)?,
            io: properties.choice("io", IOS)?,
            discard: properties.choice("discard", DISCARDS)?,
            iotune: properties.hash("iotune")?.map_or(Ok(Map::new()), limits)?,
        };
        properties.end()?;
        if preallocation == Preallocation::Metadata && format == VolumeFormat::Raw {
            return Err(bosh_cpi::rpc::Error::cloud(format!(
                "{what}: preallocation metadata needs format qcow2"
            )));
        }
        Ok(Self {
            storage_pool,
            format,
            preallocation,
            run_time,
        })
    }
}

fn limits(mut properties: CloudProperties) -> Result<Map<String, Value>> {
    let mut limits = Map::new();
    for name in LIMITS {
        if let Some(limit) = properties.integer(name, 1)? {
            limits.insert((*name).to_owned(), limit.into());
        }
    }
    properties.end()?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<DiskProperties> {
        let Value::Object(values) = value else {
            unreachable!()
        };
        DiskProperties::parse("argument 2 (cloud_properties)", values)
    }

    #[test]
    fn defaults_are_a_sparse_raw_disk() {
        let properties = parse(json!({})).unwrap();
        assert_eq!(properties.format, VolumeFormat::Raw);
        assert_eq!(properties.preallocation, Preallocation::Off);
        assert_eq!(properties.run_time, RunTimeOptions::default());
    }

    #[test]
    fn mistakes_name_the_property() {
        for (value, expected) in [
            (json!({"format": "vmdk"}), "format must be one of raw, qcow2"),
            (json!({"cache": "fast"}), "cache must be one of none"),
            (json!({"preallocation": "metadata"}), "needs format qcow2"),
            (json!({"iotune": 5}), "iotune must be an object"),
            (
                json!({"iotune": {"read_iops": 5}}),
                "iotune: unknown property read_iops; did you mean read_iops_sec?",
            ),
            (
                json!({"iotune": {"read_iops_sec": 0}}),
                "read_iops_sec must be a whole number from 1",
            ),
            (json!({"storage_pol": "x"}), "did you mean storage_pool?"),
        ] {
            let message = parse(value).unwrap_err().message;
            assert!(message.contains(expected), "{message}");
        }
    }
}

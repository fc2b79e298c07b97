//! What is remembered about a stemcell, in a record volume beside it: `<volume>.record`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sidecar;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::Result;
use cpi_config::Firmware;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Pool};
use stemcell_image::StemcellProperties;

/// The content of a stemcell's record volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The stemcell's cloud properties, as given.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// From `create_stemcell` of API version 3.
    #[serde(default)]
    pub tags: Map<String, Value>,
    /// What a light stemcell stands for; none for one that was uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<NamedVolume>,
    /// What starts the disk, `bios` or `efi`; none where that was not found out, as by earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
}

/// A volume of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedVolume {
    pub pool: String,
    pub volume: String,
}

impl Record {
    /// The stemcell's record in this pool, which must hold files, or what the seed's CPI has kept of it; an empty one
    /// when there is neither, as for stemcells of earlier versions.
    pub fn read(libvirt: &Connection, pool: &Pool, stemcell_cid: &Cid) -> Result<Self> {
        if let Some(record) = pool.volume(&record_name(stemcell_cid).to_string())? {
            return Ok(sidecar::read(libvirt, &record)?.unwrap_or_default());
        }
        let of_go_cpi = pool.volume(&go_cpi_record_name(stemcell_cid))?;
        let properties = of_go_cpi.map(|record| sidecar::read(libvirt, &record));
        Ok(Self {
            properties: properties.transpose()?.flatten().unwrap_or_default(),
            ..Self::default()
        })
    }

    pub fn write(&self, libvirt: &Connection, pool: &Pool, stemcell_cid: &Cid) -> Result<()> {
        sidecar::write(libvirt, pool, &record_name(stemcell_cid), self)
    }

    /// Forgets the record, the seed's too; none is fine.
    pub fn delete(pool: &Pool, stemcell_cid: &Cid) -> Result<()> {
        for name in [
            record_name(stemcell_cid).to_string(),
            go_cpi_record_name(stemcell_cid),
        ] {
            pool.volume(&name)?.map_or(Ok(()), |record| record.delete())?;
        }
        Ok(())
    }

    /// What starts the disk, if that is known.
    pub fn firmware(&self) -> Option<Firmware> {
        Firmware::from_name(self.firmware.as_deref()?)
    }

    /// The properties one by one; nothing where they are of a shape that `create_stemcell` would have refused.
    pub fn stemcell_properties(&self) -> StemcellProperties {
        StemcellProperties::parse(&Value::Object(self.properties.clone())).unwrap_or_default()
    }
}

/// The name of a stemcell's record volume.
pub(super) fn record_name(stemcell_cid: &Cid) -> VolumeName {
    VolumeName::Record(volume_name(stemcell_cid))
}

/// The name of the volume in which the Go CPI keeps a stemcell's cloud properties.
fn go_cpi_record_name(stemcell_cid: &Cid) -> String {
    format!("{}.json", volume_name(stemcell_cid))
}

/// The name of a stemcell's volume.
pub fn volume_name(stemcell_cid: &Cid) -> String {
    stemcell_cid
        .stemcell_volume()
        .unwrap_or_else(|| stemcell_cid.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_of_other_versions_are_read() {
        let read = |text: &str| serde_json::from_str::<Record>(text).unwrap();
        assert_eq!(read("{}"), Record::default());
        let record = read(
            r#"{"properties": {"infrastructure": "vsphere", "disk": "5120"}, "tags": {"a": 1},
                "volume": {"pool": "p", "volume": "v"}, "firmware": "efi", "from_the_future": true}"#,
        );
        assert_eq!(record.firmware(), Some(Firmware::Efi));
        assert_eq!(read(r#"{"firmware": "of the future"}"#).firmware(), None);
        assert_eq!(record.tags["a"], json!(1));
        assert_eq!(record.volume.as_ref().unwrap().volume, "v");
        let properties = record.stemcell_properties();
        assert_eq!(
            (properties.infrastructure.as_deref(), properties.disk),
            (Some("vsphere"), Some(5120))
        );
    }

    #[test]
    fn a_seeds_stemcell_has_its_record_beside_its_volume() {
        let uuid = "5f0bd1b5-5b3a-4b0e-9f0e-0123456789ab";
        for cid in [uuid.to_owned(), format!("sc-{uuid}")] {
            let cid = Cid::new(&cid).unwrap();
            assert_eq!(record_name(&cid).to_string(), format!("sc-{uuid}.record"));
            assert_eq!(go_cpi_record_name(&cid), format!("sc-{uuid}.json"));
        }
    }
}

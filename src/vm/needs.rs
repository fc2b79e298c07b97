//! What a VM needs for its stemcell to boot, and for the agent in it to find its settings and disks. The configuration
//! decides where it says so; what it leaves open follows from what the stemcell says about itself.

use super::{NewVm, domain};
use crate::stemcell::{self, Record};
use bosh_cpi::rpc::{Error, Result};
use cpi_config::{self, Config, ConfigDriveFormat, DiskBus, Firmware, StemcellType};
use libvirt_host::{Connection, Volume};
use libvirt_xml::disk::Device;
use stemcell_image::StemcellProperties;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    pub drive: SettingsDrive,
    pub bus: DiskBus,
    /// What the stemcell's disk is started by, where neither the configuration nor the VM says another.
    pub firmware: Firmware,
}

/// Where the agent looks for its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsDrive {
    ConfigDrive {
        label: String,
        /// None: what can hold the label.
        format: Option<ConfigDriveFormat>,
        metadata_path: String,
        userdata_path: String,
    },
    Cdrom {
        label: String,
        filename: String,
    },
}

impl SettingsDrive {
    pub fn device(&self) -> Device {
        match self {
            Self::ConfigDrive { .. } => Device::Disk,
            Self::Cdrom { .. } => Device::Cdrom,
        }
    }
}

/// The defaults of the agents in one infrastructure's stemcells, from the agent.json in them.
struct InfrastructureDefaults {
    drive: StemcellType,
    label: &'static str,
    metadata_path: &'static str,
    userdata_path: &'static str,
    bus: DiskBus,
}

const OPENSTACK: InfrastructureDefaults = InfrastructureDefaults {
    drive: StemcellType::ConfigDrive,
    label: "config-2",
    metadata_path: "ec2/latest/meta-data.json",
    userdata_path: "ec2/latest/user-data",
    bus: DiskBus::Virtio,
};
const VSPHERE: InfrastructureDefaults = InfrastructureDefaults {
    drive: StemcellType::Cdrom,
    bus: DiskBus::Scsi,
    ..OPENSTACK
};
const AZURE: InfrastructureDefaults = InfrastructureDefaults {
    drive: StemcellType::ConfigDrive,
    label: "azure_cfg_dsk",
    metadata_path: "configs/MetaData",
    userdata_path: "configs/UserData",
    bus: DiskBus::Scsi,
};

/// The file on every CD-ROM.
const FILENAME: &str = "env";

/// Their agents ask a metadata server of their cloud, over HTTP, and look nowhere else.
const METADATA_SERVER_ONLY: &[&str] = &["alicloud", "aws", "cloudstack", "google", "softlayer"];

/// What this VM needs of a stemcell with this volume and record.
///
/// # Errors
/// `CloudError` for a stemcell whose agent would never find its settings.
pub fn of_vm(
    libvirt: &Connection,
    vm: &NewVm,
    volume: &Volume,
    record: &Record,
    config: &Config,
) -> Result<Needs> {
    let firmware = if domain::leaves_firmware_open(vm, config) {
        stemcell::firmware(libvirt, volume, record)
    } else {
        Firmware::Bios
    };
    of(&record.stemcell_properties(), firmware, config)
}

/// What VMs need of a stemcell with these properties, whose disk is started by this firmware.
///
/// # Errors
/// As `of_vm`.
pub fn of(stemcell: &StemcellProperties, firmware: Firmware, config: &Config) -> Result<Needs> {
    let infrastructure = infrastructure(stemcell);
    let infrastructure = infrastructure.as_deref();
    let defaults = match (infrastructure, config.stemcell.stemcell_type) {
        (Some("vsphere" | "vcloud"), _) | (None, Some(StemcellType::Cdrom)) => VSPHERE,
        (Some("azure"), _) => AZURE,
        (Some(name), None) if METADATA_SERVER_ONLY.contains(&name) => {
            return Err(Error::cloud(format!(
                "the stemcell is made for {name}: its agent gets its settings from that cloud's metadata server and \
                 nowhere else, and there is none here; upload the openstack stemcell of the same version. For a \
                 stemcell that was changed to look on a drive, set stemcell.type"
            )));
        }
        _ => OPENSTACK,
    };
    Ok(Needs {
        drive: drive(&config.stemcell, &defaults),
        bus: config.settings.disk_bus.unwrap_or(defaults.bus),
        firmware,
    })
}

/// What the stemcell is made for; where it does not say so, its format may.
fn infrastructure(stemcell: &StemcellProperties) -> Option<String> {
    let by_format = || match stemcell.disk_format.as_deref()? {
        "ova" | "ovf" | "vmdk" => Some("vsphere".to_owned()),
        "vhd" => Some("azure".to_owned()),
        "rawdisk" => Some("google".to_owned()),
        _ => None,
    };
    let said = stemcell.infrastructure.as_deref().map(str::to_lowercase);
    said.or_else(by_format)
}

fn drive(configured: &cpi_config::Stemcell, defaults: &InfrastructureDefaults) -> SettingsDrive {
    let or =
        |configured: &str, habit: &str| if configured.is_empty() { habit } else { configured }.to_owned();
    let label = or(&configured.label, defaults.label);
    match configured.stemcell_type.unwrap_or(defaults.drive) {
        StemcellType::ConfigDrive => SettingsDrive::ConfigDrive {
            label,
            format: configured.config_drive_format,
            metadata_path: or(&configured.metadata_path, defaults.metadata_path),
            userdata_path: or(&configured.userdata_path, defaults.userdata_path),
        },
        StemcellType::Cdrom => SettingsDrive::Cdrom {
            label,
            filename: or(&configured.filename, FILENAME),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value, json};

    fn needs(stemcell: Value, config: Value) -> Result<Needs> {
        let stemcell = StemcellProperties::parse(&stemcell).unwrap();
        let config = Config::from_value("x", config, &Map::new()).unwrap();
        of(&stemcell, Firmware::Bios, &config)
    }

    fn config_drive(label: &str, metadata_path: &str, userdata_path: &str) -> SettingsDrive {
        SettingsDrive::ConfigDrive {
            label: label.to_owned(),
            format: None,
            metadata_path: metadata_path.to_owned(),
            userdata_path: userdata_path.to_owned(),
        }
    }

    fn cdrom(label: &str, filename: &str) -> SettingsDrive {
        SettingsDrive::Cdrom {
            label: label.to_owned(),
            filename: filename.to_owned(),
        }
    }

    #[test]
    fn each_stemcell_gets_what_its_agent_looks_for() {
        let openstack = config_drive("config-2", "ec2/latest/meta-data.json", "ec2/latest/user-data");
        let azure = config_drive("azure_cfg_dsk", "configs/MetaData", "configs/UserData");
        for (infrastructure, drive, bus) in [
            (json!("openstack"), openstack.clone(), DiskBus::Virtio),
            (json!("OpenStack"), openstack.clone(), DiskBus::Virtio),
            (json!("warden"), openstack.clone(), DiskBus::Virtio),
            // Uploaded by an earlier version, which remembered nothing.
            (Value::Null, openstack, DiskBus::Virtio),
            (json!("vsphere"), cdrom("config-2", "env"), DiskBus::Scsi),
            (json!("azure"), azure, DiskBus::Scsi),
        ] {
            let found = needs(json!({"infrastructure": infrastructure}), json!({})).unwrap();
            assert_eq!((found.drive, found.bus), (drive, bus), "{infrastructure}");
        }
    }

    #[test]
    fn a_format_tells_what_a_stemcell_is_made_for_that_does_not_say() {
        for (stemcell, bus) in [
            (json!({"disk_format": "ovf"}), DiskBus::Scsi),
            (json!({"disk_format": "vhd"}), DiskBus::Scsi),
            (json!({"disk_format": "raw"}), DiskBus::Virtio),
            (
                json!({"disk_format": "ovf", "infrastructure": "openstack"}),
                DiskBus::Virtio,
            ),
        ] {
            assert_eq!(needs(stemcell.clone(), json!({})).unwrap().bus, bus, "{stemcell}");
        }
        assert!(needs(json!({"disk_format": "rawdisk"}), json!({})).is_err());
    }

    #[test]
    fn what_is_configured_wins() {
        let drive_and_bus = |stemcell: &Value, config| {
            let found = needs(stemcell.clone(), config).unwrap();
            (found.drive, found.bus)
        };
        let vsphere = json!({"infrastructure": "vsphere"});
        let google = json!({"infrastructure": "google"});
        // As the seed's manifests have it.
        let openstack = json!({"stemcell": {"type": "ConfigDrive", "label": "config-2",
            "metadata_path": "ec2/latest/meta-data.json", "userdata_path": "ec2/latest/user-data"}});
        let drive = config_drive("config-2", "ec2/latest/meta-data.json", "ec2/latest/user-data");
        assert_eq!(
            drive_and_bus(&vsphere, openstack.clone()),
            (drive.clone(), DiskBus::Scsi)
        );
        assert_eq!(drive_and_bus(&google, openstack), (drive, DiskBus::Virtio));
        let some = json!({"settings": {"disk_bus": "virtio"}, "stemcell": {"label": "a", "filename": "b"}});
        assert_eq!(drive_and_bus(&vsphere, some), (cdrom("a", "b"), DiskBus::Virtio));
        let everything_on_cdrom = json!({"stemcell": {"type": "CDROM"}});
        let openstack = json!({"infrastructure": "openstack"});
        let seen = (cdrom("config-2", "env"), DiskBus::Virtio);
        assert_eq!(drive_and_bus(&openstack, everything_on_cdrom.clone()), seen);
        let seen = (cdrom("config-2", "env"), DiskBus::Scsi);
        assert_eq!(drive_and_bus(&json!({}), everything_on_cdrom), seen);
    }

    #[test]
    fn an_agent_that_would_wait_for_ever_is_not_started() {
        for infrastructure in METADATA_SERVER_ONLY {
            let stemcell = json!({"infrastructure": infrastructure});
            let message = needs(stemcell, json!({})).unwrap_err().message;
            assert!(
                message.contains(infrastructure) && message.contains("stemcell.type"),
                "{message}"
            );
        }
    }
}

//! The keys with a fixed set of values. Their spellings in cpi.json are the `Choice` lists of `schema.rs`.

use std::str::FromStr;

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer};

/// Reads a choice that can be left to the CPI: `auto` is None.
pub(super) fn unless_auto<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text == "auto" {
        Ok(None)
    } else {
        T::deserialize(text.into_deserializer()).map(Some)
    }
}

/// `log_level`: the least severe message that is written to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    None,
    Error,
    Warn,
    Info,
    Debug,
}

impl FromStr for LogLevel {
    type Err = String;

    /// Reads a level in any case, as `--log-level` gives it. The error is a sentence for the operator.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "NONE" => Ok(Self::None),
            "ERROR" => Ok(Self::Error),
            "WARN" => Ok(Self::Warn),
            "INFO" => Ok(Self::Info),
            "DEBUG" => Ok(Self::Debug),
            _ => Err("expected NONE, ERROR, WARN, INFO or DEBUG".to_owned()),
        }
    }
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::None => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

/// `libvirt.type`: how libvirtd is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LibvirtType {
    Socket,
    Tcp,
    Tls,
    Ssh,
    /// `libvirt.uri` says it all.
    Uri,
}

/// `settings.network_dhcp`: for which addresses of manual networks DHCP host entries are made, where the libvirt network
/// serves DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkDhcp {
    /// Those that the network's own DHCP would give to others, and those of NICs that ask by DHCP.
    Auto,
    Always,
    Never,
}

/// `settings.domain_type`: what runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainType {
    /// KVM where the host offers it, QEMU's emulation otherwise.
    Auto,
    Kvm,
    Qemu,
}

/// The bus a VM's disks sit on. `settings.disk_bus` can leave it to the stemcell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    Virtio,
    Scsi,
}

impl DiskBus {
    /// The bus as cpi.json and domain XML spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
        }
    }

    /// The bus of this name in domain XML, if it is one that we put disks on.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Virtio, Self::Scsi]
            .into_iter()
            .find(|bus| bus.name() == name)
    }
}

/// What starts the guest. `settings.firmware` can leave it to the stemcell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    Bios,
    /// UEFI.
    Efi,
}

impl Firmware {
    /// As cpi.json and records spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Efi => "efi",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Bios, Self::Efi]
            .into_iter()
            .find(|firmware| firmware.name() == name)
    }
}

/// `settings.graphics`: what shows a VM's screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Graphics {
    None,
    Vnc,
    Spice,
}

/// `settings.boot_disk_clone`: how a boot disk is made from its stemcell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootDiskClone {
    /// An overlay where the pool holds files, a full copy elsewhere.
    Auto,
    Overlay,
    Full,
}

/// Where the agent in the stemcell looks for its settings. `stemcell.type` can leave it to the stemcell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum StemcellType {
    /// A disk with a file system that is found by its label.
    ConfigDrive,
    /// An ISO 9660 CD-ROM.
    #[serde(rename = "CDROM")]
    Cdrom,
}

/// The file system on a config drive. `stemcell.config_drive_format` can leave it to the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigDriveFormat {
    /// FAT, whose labels have at most 11 bytes.
    Vfat,
    /// ISO 9660, whose labels have at most 32 bytes.
    Iso9660,
}

/// `throttle.name`: what keeps parallel calls from working on storage at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThrottleName {
    /// Nothing. Also spelled `none`.
    #[serde(alias = "none")]
    Noop,
    /// A lock on the file `throttle.path`.
    FileLock,
}

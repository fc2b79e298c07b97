//! The keys with a fixed set of values. Their spellings in cpi.json are the `Choice` lists of `schema.rs`.

use std::str::FromStr;

use serde::Deserialize;

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

/// `settings.domain_type`: what runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainType {
    /// KVM where the host offers it, QEMU's emulation otherwise.
    Auto,
    Kvm,
    Qemu,
}

/// `settings.disk_bus`: the bus disks sit on when no template says otherwise.
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

/// `stemcell.type`: where the agent in the stemcell looks for its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum StemcellType {
    /// A FAT disk found by its label.
    ConfigDrive,
    /// An ISO 9660 CD-ROM.
    #[serde(rename = "CDROM")]
    Cdrom,
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

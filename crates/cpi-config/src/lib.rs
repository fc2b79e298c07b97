//! cpi.json: the BOSH job's properties as a tree, with defaults, the overlay from a request's `context`, and
//! validation that reports every mistake at once. See docs/CONFIG.md.

mod choices;
mod kind;
mod mistakes;
mod overlay;
mod position;
pub mod schema;
mod secret;
mod validate;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

pub use choices::{
    BootDiskClone, ConfigDriveFormat, DiskBus, DomainType, Firmware, Graphics, LibvirtType, LogLevel,
    NetworkDhcp, StemcellType, ThrottleName,
};
pub use mistakes::Mistake;
pub use secret::{Secret, SecretHash};
pub use validate::is_cpu_mode;

use bosh_cpi::rpc::{Error, Result};
use choices::unless_auto;
use mistakes::{Layer, Mistakes};

/// A valid configuration. Every key has a value; `schema::KEYS` says what each one means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub log_level: LogLevel,
    pub libvirt: Libvirt,
    pub settings: Settings,
    pub stemcell: Stemcell,
    pub agent: Agent,
    pub vm_ssh_key: VmSshKey,
    pub throttle: Throttle,
}

/// Where libvirtd is and how to get in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Libvirt {
    #[serde(rename = "type")]
    pub libvirt_type: LibvirtType,
    /// Empty: libvirt's own default socket.
    pub socket: String,
    /// Not empty for tcp, tls and ssh, unless `uri` is given.
    pub host: String,
    /// Digits, 1 to 65535. Empty: the transport's own default.
    pub port: String,
    /// Not empty: overrides `libvirt_type`, `socket`, `host` and `port`.
    pub uri: String,
    pub client: Client,
    pub server_ca: ServerCa,
    pub username: String,
    pub password: Secret,
    pub ssh: Ssh,
    /// Seconds, 1 to 300.
    pub connect_timeout: u64,
    /// Seconds, 2 to 3600.
    pub keepalive_timeout: u64,
}

/// Keys for `ssh`, as text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// Empty: the keys of the user that the CPI runs as.
    pub private_key: Secret,
    /// Public keys of the host, one a line. Empty: that user's known hosts.
    pub host_key: String,
    /// `[USER@]HOST[:PORT]`, several with commas between; or empty.
    pub jump_host: String,
}

/// The TLS client certificate: both fields are PEM, or both are empty.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    pub certificate: String,
    pub private_key: Secret,
}

/// The authority that signed libvirtd's certificate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCa {
    /// PEM, or empty.
    pub certificate: String,
}

/// What is made in libvirt, and where.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Never empty.
    pub storage_pool_name: String,
    /// Empty: `storage_pool_name`; see [`Settings::stemcell_pool`].
    pub stemcell_pool_name: String,
    pub network_name: String,
    /// XML template; empty: built in. As are the four after it.
    pub vm_domain: String,
    pub disk_device: String,
    pub storage_volume: String,
    pub manual_network_interface: String,
    pub network_dhcp_ip: String,
    pub network_dhcp: NetworkDhcp,
    pub domain_type: DomainType,
    /// Empty: q35 with UEFI, else libvirt's default machine type.
    pub machine: String,
    /// None: what the stemcell boots by.
    #[serde(deserialize_with = "unless_auto")]
    pub firmware: Option<Firmware>,
    /// A mode or a model's name; empty: the host's own under KVM, a plain model under emulation.
    pub cpu_mode: String,
    pub graphics: Graphics,
    /// None: the bus where the stemcell's agent looks for disks.
    #[serde(deserialize_with = "unless_auto")]
    pub disk_bus: Option<DiskBus>,
    pub boot_disk_clone: BootDiskClone,
    /// Seconds, 1 to 3600.
    pub detach_timeout: u64,
    /// Absolute directory on the libvirt host; empty: consoles are not logged.
    pub console_log_dir: String,
    /// Whether volumes of pools that hand out raw blocks are wiped when deleted.
    pub wipe_block_volumes: bool,
    /// Whether libvirt starts VMs together with itself.
    pub vm_autostart: bool,
}

impl Settings {
    /// The pool for stemcells, boot overlays and config drives.
    pub fn stemcell_pool(&self) -> &str {
        if self.stemcell_pool_name.is_empty() {
            &self.storage_pool_name
        } else {
            &self.stemcell_pool_name
        }
    }
}

/// What the stemcells are and where their agent looks for its settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stemcell {
    /// Never empty, all in `schema::STEMCELL_FORMATS`.
    pub formats: Vec<String>,
    /// None: what the stemcell's agent looks for, as for all that follows.
    #[serde(rename = "type", deserialize_with = "unless_auto")]
    pub stemcell_type: Option<StemcellType>,
    /// At most 11 bytes on a FAT config drive, 32 on ISO 9660; or empty.
    pub label: String,
    /// None: FAT, unless it cannot hold the label.
    #[serde(deserialize_with = "unless_auto")]
    pub config_drive_format: Option<ConfigDriveFormat>,
    /// Relative, without `..`, or empty, as are the two after it.
    pub metadata_path: String,
    pub userdata_path: String,
    pub filename: String,
}

/// What every agent is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// URL with credentials; may be empty.
    pub mbus: Secret,
    pub ntp: Vec<String>,
    pub blobstore: Blobstore,
}

/// The blobstore every agent is told of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blobstore {
    pub provider: String,
    pub options: SecretHash,
}

/// The SSH key for the user `vcap` of VMs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSshKey {
    /// Empty: none.
    pub public_key: String,
}

/// What keeps parallel calls from working on storage at the same time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    pub name: ThrottleName,
    /// Absolute when `name` is `FileLock`.
    pub path: PathBuf,
    /// Calls that may work at once, 1 to 1000.
    pub limit: u64,
    /// Seconds to wait for a turn, up to a day; 0: for ever.
    pub timeout: u64,
}

impl Config {
    /// Reads `path` and lays `context`, that of the request, over it.
    ///
    /// # Errors
    /// `CpiError` when the file can't be read or is not JSON, or with all mistakes in it and the context.
    pub fn load(path: &Path, context: &Map<String, Value>) -> Result<Self> {
        let source = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|error| Error::cpi(format!("configuration {source} can't be read: {error}")))?;
        let file = serde_json::from_slice(&bytes)
            .map_err(|error| Error::cpi(format!("configuration {source} is not JSON: {error}")))?;
        Self::from_value(&source, file, context)
    }

    /// The configuration that `file`, read from `source`, and `context` make together.
    ///
    /// Keys of `context` that cpi.json doesn't know are ignored.
    ///
    /// # Errors
    /// `CpiError` with all mistakes in both.
    pub fn from_value(source: &str, file: Value, context: &Map<String, Value>) -> Result<Self> {
        let (config, mistakes) = Self::read(file, context)?;
        mistakes.into_result(source)?;
        Ok(config)
    }

    /// Reads `path` by itself, for a person who mends it: all mistakes with their places, or the configuration.
    ///
    /// # Errors
    /// `CpiError` when the file can't be read.
    pub fn check(path: &Path) -> Result<std::result::Result<Self, Vec<Mistake>>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::cpi(format!("configuration {} can't be read: {error}", path.display()))
        })?;
        Self::check_text(&text)
    }

    /// As `check`, of a file with this text.
    #[doc(hidden)]
    pub fn check_text(text: &str) -> Result<std::result::Result<Self, Vec<Mistake>>> {
        let file = match serde_json::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                return Ok(Err(vec![Mistake {
                    message: format!("not JSON: {error}"),
                    position: Some((error.line(), error.column())),
                }]));
            }
        };
        let (config, mistakes) = Self::read(file, &Map::new())?;
        let mistakes = mistakes.located_in(text);
        Ok(if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(mistakes)
        })
    }

    fn read(file: Value, context: &Map<String, Value>) -> Result<(Self, Mistakes)> {
        let mut mistakes = Mistakes::default();
        // serde's messages may show values, so none of them gets into an error; only a wrong table causes one.
        let wrong_table = |_| Error::cpi("the table of configuration keys and the program differ: a bug");
        let mut tree = overlay::defaults().map_err(wrong_table)?;
        if let Some(file) = overlay::section_at(Layer::File, "", &file, &mut mistakes) {
            overlay::apply(&mut tree, Layer::File, file, &mut mistakes);
        }
        overlay::apply(&mut tree, Layer::Context, context, &mut mistakes);
        let config: Self = serde_json::from_value(Value::Object(tree)).map_err(wrong_table)?;
        validate::cross_checks(&config, &mut mistakes);
        Ok((config, mistakes))
    }
}

//! The table of all keys of cpi.json: what is known, of which kind, and what holds when it is absent.
//! Unknown-key detection, type errors, defaults and the key table in docs/CONFIG.md all follow from it.

/// One key of cpi.json.
#[derive(Debug)]
pub struct Key {
    /// The full path, segments joined with dots: `libvirt.port`.
    pub path: &'static str,
    pub kind: Kind,
    /// The value that holds when the key is absent, as a JSON literal.
    pub default: &'static str,
    /// One or two sentences for operators, with units.
    pub description: &'static str,
}

/// What a key's value may be, and what it is normalised to.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    String,
    /// A string that is never shown.
    Secret,
    /// A whole number within these bounds.
    Integer {
        min: u64,
        max: u64,
    },
    /// 1 to 65535 as a number or as a string of digits, or `""`; normalised to a string.
    Port,
    Boolean,
    /// A list of strings.
    Strings,
    /// One of these, in any case; normalised to the spelling listed here.
    Choice(&'static [&'static str]),
    /// An XML template that may use these placeholders; empty means none.
    Template(&'static [&'static str]),
    /// A free-form object that is never shown.
    SecretHash,
}

/// Placeholders of `settings.vm_domain`.
pub const VM_DOMAIN_PLACEHOLDERS: &[&str] = &["Name", "UUID", "Memory", "CPU"];
/// Placeholders of `settings.disk_device`.
pub const DISK_DEVICE_PLACEHOLDERS: &[&str] = &["Device", "TargetPath", "TargetDevice", "TargetBus"];
/// Placeholders of `settings.storage_volume`.
pub const STORAGE_VOLUME_PLACEHOLDERS: &[&str] = &["Name", "Unit", "Size"];
/// Placeholders of `settings.manual_network_interface` and `settings.network_dhcp_ip`.
pub const NETWORK_PLACEHOLDERS: &[&str] = &["NetworkName", "MacAddress", "IpAddress", "VmName"];

/// The stemcell formats that `stemcell.formats` may name.
pub const STEMCELL_FORMATS: &[&str] = &[
    "openstack-qcow2",
    "openstack-raw",
    "vsphere-ova",
    "vsphere-ovf",
    "azure-vhd",
    "google-rawdisk",
];

const fn key(path: &'static str, kind: Kind, default: &'static str, description: &'static str) -> Key {
    Key {
        path,
        kind,
        default,
        description,
    }
}

/// All keys, in the order in which they are documented.
pub const KEYS: &[Key] = &[
    key(
        "log_level",
        Kind::Choice(&["NONE", "ERROR", "WARN", "INFO", "DEBUG"]),
        r#""INFO""#,
        "Level of the CPI's log on stderr.",
    ),
    key(
        "libvirt.type",
        Kind::Choice(&["socket", "tcp", "tls", "ssh", "uri"]),
        r#""socket""#,
        "Transport of the connection to libvirtd.",
    ),
    key(
        "libvirt.socket",
        Kind::String,
        r#""""#,
        "Path of libvirtd's UNIX socket. Empty: libvirt's own default socket.",
    ),
    key(
        "libvirt.host",
        Kind::String,
        r#""""#,
        "Host name or address of libvirtd for `tcp`, `tls` and `ssh`.",
    ),
    key(
        "libvirt.port",
        Kind::Port,
        r#""""#,
        "Port of libvirtd. Empty: the transport's own (`tcp` 16509, `tls` 16514, `ssh` 22).",
    ),
    key(
        "libvirt.uri",
        Kind::String,
        r#""""#,
        "A libvirt connection URI. Overrides `libvirt.type`, `socket`, `host` and `port`.",
    ),
    key(
        "libvirt.client.certificate",
        Kind::String,
        r#""""#,
        "TLS client certificate, PEM.",
    ),
    key(
        "libvirt.client.private_key",
        Kind::Secret,
        r#""""#,
        "Private key of the client certificate, PEM.",
    ),
    key(
        "libvirt.server_ca.certificate",
        Kind::String,
        r#""""#,
        "Certificate of the authority that signed libvirtd's certificate, PEM.",
    ),
    key(
        "libvirt.username",
        Kind::String,
        r#""""#,
        "User name, where libvirtd asks for one (SASL), or the login name for `ssh` (empty: `root`).",
    ),
    key(
        "libvirt.password",
        Kind::Secret,
        r#""""#,
        "Password, where libvirtd asks for one (SASL).",
    ),
    key(
        "libvirt.ssh.private_key",
        Kind::Secret,
        r#""""#,
        "Private key for `ssh`, without a passphrase. Empty: the keys in `~/.ssh` of the CPI's own user.",
    ),
    key(
        "libvirt.ssh.host_key",
        Kind::String,
        r#""""#,
        "Public keys of the host for `ssh`, one a line, as `ssh-ed25519 AAAA...` or as lines of a known_hosts file. \
         Empty: the known hosts of the CPI's own user.",
    ),
    key(
        "libvirt.ssh.jump_host",
        Kind::String,
        r#""""#,
        "Jump host for `ssh`: `[USER@]HOST[:PORT]`, several separated by commas. Same private key; \
         its host key is a line of `host_key` that starts with its name. Empty: none.",
    ),
    key(
        "libvirt.connect_timeout",
        Kind::Integer { min: 1, max: 300 },
        "10",
        "Seconds after which an attempt to connect to libvirtd times out.",
    ),
    key(
        "libvirt.keepalive_timeout",
        Kind::Integer { min: 2, max: 3600 },
        "30",
        "Seconds without an answer during a call, after which the host counts as lost.",
    ),
    key(
        "settings.storage_pool_name",
        Kind::String,
        r#""default""#,
        "The libvirt storage pool for disks, of any type.",
    ),
    key(
        "settings.stemcell_pool_name",
        Kind::String,
        r#""""#,
        "The storage pool for stemcells, boot overlays and config drives. It must hold files (dir, fs, netfs). \
         Empty: `settings.storage_pool_name`.",
    ),
    key(
        "settings.network_name",
        Kind::String,
        r#""default""#,
        "The libvirt network for BOSH networks that name none.",
    ),
    key(
        "settings.vm_domain",
        Kind::Template(VM_DOMAIN_PLACEHOLDERS),
        r#""""#,
        "Template of the domain XML. Empty: built in.",
    ),
    key(
        "settings.disk_device",
        Kind::Template(DISK_DEVICE_PLACEHOLDERS),
        r#""""#,
        "Template of a disk's XML. Empty: built in.",
    ),
    key(
        "settings.storage_volume",
        Kind::Template(STORAGE_VOLUME_PLACEHOLDERS),
        r#""""#,
        "Template of a storage volume's XML. Empty: built in.",
    ),
    key(
        "settings.manual_network_interface",
        Kind::Template(NETWORK_PLACEHOLDERS),
        r#""""#,
        "Template of a network interface's XML. Empty: built in.",
    ),
    key(
        "settings.network_dhcp_ip",
        Kind::Template(NETWORK_PLACEHOLDERS),
        r#""""#,
        "Template of a DHCP host entry in a libvirt network. Empty: built in.",
    ),
    key(
        "settings.network_dhcp",
        Kind::Choice(&["auto", "always", "never"]),
        r#""auto""#,
        "Addresses of manual networks with a DHCP host entry, if the libvirt network serves DHCP. `auto`: those in \
         its DHCP range. `true` and `false` mean `always` and `never`.",
    ),
    key(
        "settings.domain_type",
        Kind::Choice(&["auto", "kvm", "qemu"]),
        r#""auto""#,
        "Type of the domains. `auto`: `kvm` if the host offers it, else `qemu` (emulation).",
    ),
    key(
        "settings.machine",
        Kind::String,
        r#""""#,
        "Machine type, such as `pc` or `q35`. Empty: `q35` with UEFI, libvirt's default with BIOS.",
    ),
    key(
        "settings.firmware",
        Kind::Choice(&["auto", "bios", "efi"]),
        r#""auto""#,
        "Firmware of the VMs. `auto`: as the stemcell's `.ovf` or partitions require. `efi` is without secure \
         boot.",
    ),
    key(
        "settings.cpu_mode",
        Kind::String,
        r#""""#,
        "The guest's CPU: `host-passthrough`, `host-model`, `maximum`, or the name of a model such as `Skylake-Server`. \
         Empty: `host-passthrough` with KVM, a plain model in emulation.",
    ),
    key(
        "settings.graphics",
        Kind::Choice(&["none", "vnc", "spice"]),
        r#""none""#,
        "The VMs' screen, on a port of the host's loopback interface that libvirt chooses (`virsh domdisplay`).",
    ),
    key(
        "settings.disk_bus",
        Kind::Choice(&["auto", "virtio", "scsi"]),
        r#""auto""#,
        "Bus of a new VM's disks. `auto`: the bus that the stemcell's agent expects.",
    ),
    key(
        "settings.boot_disk_clone",
        Kind::Choice(&["auto", "overlay", "full"]),
        r#""auto""#,
        "How a boot disk is created from its stemcell. `auto`: a qcow2 overlay in pools of files, a full copy in \
         others.",
    ),
    key(
        "settings.detach_timeout",
        Kind::Integer { min: 1, max: 3600 },
        "60",
        "Seconds to wait for a guest to release a disk that is detached.",
    ),
    key(
        "settings.console_log_dir",
        Kind::String,
        r#""""#,
        "Directory on the libvirt host for the logs of the VMs' serial consoles, `<vm cid>.log`. Empty: no logs. A \
         `vm_domain` of your own needs its own log.",
    ),
    key(
        "settings.vm_autostart",
        Kind::Boolean,
        "true",
        "Whether VMs start with libvirtd, as after a reboot of the host. False: they stay off until BOSH's \
         resurrector or `bosh cck` recreates or reboots them. Applies to new VMs.",
    ),
    key(
        "settings.wipe_block_volumes",
        Kind::Boolean,
        "true",
        "Whether volumes of pools of block devices (logical, disk, iscsi) are wiped when deleted. Files are never \
         wiped.",
    ),
    key(
        "stemcell.formats",
        Kind::Strings,
        r#"["openstack-qcow2","openstack-raw","vsphere-ova","vsphere-ovf","azure-vhd","google-rawdisk"]"#,
        "The stemcell formats that `info` reports. The Director passes only stemcells with one of these in their \
         `stemcell_formats`.",
    ),
    key(
        "stemcell.type",
        Kind::Choice(&["auto", "ConfigDrive", "CDROM"]),
        r#""auto""#,
        "Where the stemcell's agent reads its settings: a config drive, found by label, or a CD-ROM. `auto`: by the \
         stemcell's `infrastructure`.",
    ),
    key(
        "stemcell.label",
        Kind::String,
        r#""""#,
        "Label of the config drive or CD-ROM, at most 32 bytes. Empty: by the stemcell's `infrastructure`; the same \
         for the paths and the name below.",
    ),
    key(
        "stemcell.config_drive_format",
        Kind::Choice(&["auto", "vfat", "iso9660"]),
        r#""auto""#,
        "The file system on a config drive. `auto`: `vfat`, or `iso9660` for a label of more than 11 bytes.",
    ),
    key(
        "stemcell.metadata_path",
        Kind::String,
        r#""""#,
        "Path of the metadata file on the config drive.",
    ),
    key(
        "stemcell.userdata_path",
        Kind::String,
        r#""""#,
        "Path of the agent settings file on the config drive.",
    ),
    key(
        "stemcell.filename",
        Kind::String,
        r#""""#,
        "Name of the agent settings file on the CD-ROM.",
    ),
    key(
        "agent.mbus",
        Kind::Secret,
        r#""""#,
        "URL of the message bus, for agents whose `env` has none.",
    ),
    key("agent.ntp", Kind::Strings, "[]", "Time servers for the agents."),
    key(
        "agent.blobstore.provider",
        Kind::String,
        r#""local""#,
        "Blobstore provider for the agents.",
    ),
    key(
        "agent.blobstore.options",
        Kind::SecretHash,
        "{}",
        "Options of this provider, passed to the agents unchanged.",
    ),
    key(
        "vm_ssh_key.public_key",
        Kind::String,
        r#""""#,
        "SSH public key for the user `vcap` of VMs, in addition to `authorized_keys` of their `env.bosh`. Empty: none.",
    ),
    key(
        "throttle.name",
        Kind::Choice(&["noop", "none", "file-lock"]),
        r#""noop""#,
        "Limits the calls that work on storage at the same time. `noop` and `none`: no limit; `file-lock`: locks on \
         files.",
    ),
    key(
        "throttle.path",
        Kind::String,
        r#""/var/lock/libvirt-storage-volume.lock""#,
        "Absolute path of the lock file of `file-lock`. A `throttle.limit` above 1 uses further files, with `.2`, \
         `.3`, ... and `.queue` appended.",
    ),
    key(
        "throttle.limit",
        Kind::Integer { min: 1, max: 1000 },
        "1",
        "Number of calls that hold locks of `file-lock` at the same time.",
    ),
    key(
        "throttle.timeout",
        Kind::Integer { min: 0, max: 86400 },
        "0",
        "Seconds after which a call that waits for `file-lock` fails with a retryable error. 0: no timeout.",
    ),
];

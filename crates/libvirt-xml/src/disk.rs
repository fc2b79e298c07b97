//! `<disk>`: a volume as a VM sees it.

use super::element::Element;
use super::template;
use super::volume::VolumeFormat;
use bosh_cpi::rpc::Result;
use cpi_config::DiskBus;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What can be changed without touching the disk's data; remembered with the disk, used by every attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTimeOptions {
    /// QEMU's cache mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// QEMU's way of doing I/O.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
    /// What becomes of the guest's discard requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<String>,
    /// Limits by their libvirt names, in operations or bytes per second.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub iotune: Map<String, Value>,
}

/// What a volume looks like to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Disk,
    /// Read-only, and the guest may eject it.
    Cdrom,
}

impl Device {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Cdrom => "cdrom",
        }
    }
}

/// Where a disk's bytes are, as a domain names it. Never `type='volume'`: the files of such a disk are missing in the
/// AppArmor profile that libvirt makes for the VM, and QEMU cannot open them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// The file at the disk's path.
    File,
    /// The block device at the disk's path.
    Block,
    /// The `<source>` of a `type='network'` disk, whole.
    Network(Element),
}

/// One layer below a disk in its backing chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingFile {
    /// On the host.
    pub path: String,
    pub format: VolumeFormat,
}

impl BackingFile {
    /// `file` or `block`. Block devices are below `/dev` on every host.
    fn kind(&self) -> (&'static str, &'static str) {
        if self.path.starts_with("/dev/") {
            ("block", "dev")
        } else {
            ("file", "file")
        }
    }
}

/// One disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec<'a> {
    pub source: DiskSource,
    /// Path on the host.
    pub path: &'a str,
    /// The whole backing chain from the top, empty for a disk without one. It is written into the domain because
    /// AppArmor keeps libvirt from reading it out of the files. None: libvirt reads it out of the files.
    pub backing: Option<&'a [BackingFile]>,
    /// What is really in the volume, whatever a template says.
    pub format: VolumeFormat,
    pub bus: DiskBus,
    /// Position on the bus: 0 is `vda` or `sda`.
    pub position: usize,
    /// What the guest finds the disk by; 20 bytes at most.
    pub serial: &'a str,
    pub device: Device,
    /// The disk's own options; they win over a template's.
    pub options: RunTimeOptions,
}

impl DiskSpec<'_> {
    /// There are no virtio CD-ROMs. virtio-scsi is on every machine, and more guests know it than know AHCI.
    fn own_bus(&self) -> DiskBus {
        match self.device {
            Device::Cdrom => DiskBus::Scsi,
            Device::Disk => self.bus,
        }
    }
}

/// The `<disk>` from the operator's `settings.disk_device`, or our own when that is empty.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered.
pub fn render(spec: &DiskSpec<'_>, template: &str) -> Result<Element> {
    let target = target_name(spec.own_bus(), spec.position);
    let mut disk = if template.is_empty() {
        Element::new("disk").with_child(Element::new("driver").with_attribute("discard", "unmap"))
    } else {
        let values = [
            ("Device", spec.device.name()),
            ("TargetPath", spec.path),
            ("TargetDevice", target.as_str()),
            ("TargetBus", spec.own_bus().name()),
        ];
        template::render("settings.disk_device", template, &values)?
    };
    enforce(&mut disk, spec, &target);
    set_options(&mut disk, &spec.options);
    Ok(disk)
}

fn set_options(disk: &mut Element, options: &RunTimeOptions) {
    let driver = disk.child_or_new("driver");
    for (name, value) in [
        ("cache", &options.cache),
        ("io", &options.io),
        ("discard", &options.discard),
    ] {
        if let Some(value) = value {
            driver.set_attribute(name, value);
        }
    }
    if !options.iotune.is_empty() {
        disk.remove_children("iotune");
        let mut iotune = Element::new("iotune");
        for (name, limit) in &options.iotune {
            iotune.push(Element::new(name).with_text(limit.to_string()));
        }
        disk.push(iotune);
    }
}

fn enforce(disk: &mut Element, spec: &DiskSpec<'_>, target: &str) {
    disk.set_attribute("device", spec.device.name());
    let driver = disk.child_or_new("driver");
    driver.set_attribute("name", "qemu");
    driver.set_attribute("type", spec.format.name());
    // Replacing the source drops a template's file, dev or name, and a leftover backing chain with it.
    disk.remove_children("source");
    disk.remove_children("backingStore");
    let (kind, source) = match &spec.source {
        DiskSource::File => ("file", Element::new("source").with_attribute("file", spec.path)),
        DiskSource::Block => ("block", Element::new("source").with_attribute("dev", spec.path)),
        DiskSource::Network(source) => ("network", source.clone()),
    };
    disk.set_attribute("type", kind);
    disk.push(source);
    if let Some(chain) = spec.backing {
        disk.push(backing_store(chain));
    }
    let target_element = disk.child_or_new("target");
    target_element.set_attribute("dev", target);
    target_element.set_attribute("bus", spec.own_bus().name());
    disk.child_or_new("serial").set_text(spec.serial);
    disk.remove_children("readonly");
    if spec.device == Device::Cdrom {
        disk.push(Element::new("readonly"));
    }
    // A template is used for several disks, and an alias or address can be given once.
    disk.remove_children("alias");
    disk.remove_children("address");
    if spec.own_bus() == DiskBus::Scsi {
        disk.push(
            Element::new("address")
                .with_attribute("type", "drive")
                .with_attribute("controller", "0")
                .with_attribute("bus", "0")
                .with_attribute("target", spec.position.to_string())
                .with_attribute("unit", "0"),
        );
    }
}

/// The layers from this one down. An empty `<backingStore/>` ends the chain.
fn backing_store(chain: &[BackingFile]) -> Element {
    let element = Element::new("backingStore");
    let Some((layer, below)) = chain.split_first() else {
        return element;
    };
    let (kind, attribute) = layer.kind();
    element
        .with_attribute("type", kind)
        .with_child(Element::new("format").with_attribute("type", layer.format.name()))
        .with_child(Element::new("source").with_attribute(attribute, &layer.path))
        .with_child(backing_store(below))
}

/// `vda`, ... `vdz`, `vdaa`, ...; `sda` and so on for SCSI.
pub fn target_name(bus: DiskBus, position: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = position + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + u8::try_from(rest % 26).unwrap_or(0)));
        rest /= 26;
    }
    let prefix = match bus {
        DiskBus::Virtio => "vd",
        DiskBus::Scsi => "sd",
    };
    prefix.chars().chain(letters.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SEED: &str = "<disk type='file' device='{{.Device}}'><driver name='qemu' type='raw' cache='none'/>\
        <source file='{{.TargetPath}}'/><target dev='{{.TargetDevice}}' bus='{{.TargetBus}}'/></disk>";

    fn spec() -> DiskSpec<'static> {
        DiskSpec {
            source: DiskSource::File,
            path: "/p/v",
            backing: None,
            format: VolumeFormat::Qcow2,
            bus: DiskBus::Virtio,
            position: 3,
            serial: "s",
            device: Device::Disk,
            options: RunTimeOptions::default(),
        }
    }

    #[test]
    fn the_seeds_template_cannot_turn_qcow2_into_garbage() {
        assert_eq!(
            render(&spec(), SEED).unwrap().to_string(),
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>\
             <target dev='vdd' bus='virtio'/><source file='/p/v'/><serial>s</serial></disk>"
        );
    }

    #[test]
    fn the_whole_backing_chain_is_written_down() {
        let layer = |path: &str, format| BackingFile {
            path: path.to_owned(),
            format,
        };
        let chain = [
            layer("/p/sc", VolumeFormat::Qcow2),
            layer("/dev/vg/base", VolumeFormat::Raw),
        ];
        let backing = |backing| {
            let disk = render(&DiskSpec { backing, ..spec() }, "").unwrap();
            disk.child("backingStore").map(ToString::to_string)
        };
        assert_eq!(
            backing(Some(&chain)).as_deref(),
            Some(
                "<backingStore type='file'><format type='qcow2'/><source file='/p/sc'/>\
                 <backingStore type='block'><format type='raw'/><source dev='/dev/vg/base'/>\
                 <backingStore/></backingStore></backingStore>"
            )
        );
        assert_eq!(backing(Some(&[])).as_deref(), Some("<backingStore/>"));
        assert_eq!(backing(None), None);
    }

    #[test]
    fn blocks_are_named_as_devices() {
        let block = DiskSpec {
            source: DiskSource::Block,
            path: "/dev/vg/v",
            ..spec()
        };
        let disk = render(&block, SEED).unwrap();
        assert_eq!(disk.attribute("type"), Some("block"));
        assert_eq!(
            disk.child("source").unwrap().to_string(),
            "<source dev='/dev/vg/v'/>"
        );
    }

    #[test]
    fn the_default_discards_what_the_guest_frees() {
        let disk = render(&spec(), "").unwrap();
        assert_eq!(disk.child("driver").unwrap().attribute("discard"), Some("unmap"));
        assert!(disk.child("readonly").is_none());
    }

    #[test]
    fn a_cdrom_is_read_only_and_on_a_bus_that_has_them() {
        for bus in [DiskBus::Virtio, DiskBus::Scsi] {
            let disk = render(
                &DiskSpec {
                    device: Device::Cdrom,
                    bus,
                    ..spec()
                },
                SEED,
            )
            .unwrap();
            assert_eq!(disk.attribute("device"), Some("cdrom"));
            assert_eq!(disk.child("target").unwrap().attribute("bus"), Some("scsi"));
            assert_eq!(disk.child("address").unwrap().attribute("target"), Some("3"));
            assert_eq!(disk.child("target").unwrap().attribute("dev"), Some("sdd"));
            assert!(disk.child("readonly").is_some());
        }
    }

    #[test]
    fn target_names_go_on_after_z() {
        for (position, name) in [
            (0, "vda"),
            (25, "vdz"),
            (26, "vdaa"),
            (27, "vdab"),
            (701, "vdzz"),
            (702, "vdaaa"),
        ] {
            assert_eq!(target_name(DiskBus::Virtio, position), name);
        }
        let names: HashSet<String> = (0..2000).map(|n| target_name(DiskBus::Scsi, n)).collect();
        assert_eq!(names.len(), 2000);
    }
}

//! `<domainbackup>`: which disk of a running VM is copied, and where to.

use super::element::Element;
use super::volume::VolumeFormat;

/// Where QEMU writes the copy to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Path of a file on the host.
    File(&'a str),
    /// Path of a block device on the host.
    Block(&'a str),
}

/// A copy of the disk of this name (`vda`, ...) to what exists already, in this format. All other disks have to be named
/// too: libvirt copies what it is not told about.
pub fn push<'a>(
    disks: impl Iterator<Item = &'a str>,
    wanted: &str,
    format: VolumeFormat,
    target: Target<'_>,
) -> Element {
    let (kind, attribute, path) = match target {
        Target::File(path) => ("file", "file", path),
        Target::Block(path) => ("block", "dev", path),
    };
    let mut all = Element::new("disks");
    for name in disks {
        let disk = Element::new("disk").with_attribute("name", name);
        all.push(if name == wanted {
            disk.with_attribute("backup", "yes")
                .with_attribute("type", kind)
                .with_child(Element::new("driver").with_attribute("type", format.name()))
                .with_child(Element::new("target").with_attribute(attribute, path))
        } else {
            disk.with_attribute("backup", "no")
        });
    }
    Element::new("domainbackup")
        .with_attribute("mode", "push")
        .with_child(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disk_is_copied_to_a_file_or_a_device_and_no_other() {
        for (format, target, expected) in [
            (
                VolumeFormat::Qcow2,
                // Not every file below /dev is a device.
                Target::File("/dev/shm/pool/snap1"),
                "<disk name='vdb' backup='yes' type='file'><driver type='qcow2'/>\
                 <target file='/dev/shm/pool/snap1'/></disk>",
            ),
            (
                VolumeFormat::Raw,
                Target::Block("/dev/group/snap1"),
                "<disk name='vdb' backup='yes' type='block'><driver type='raw'/>\
                 <target dev='/dev/group/snap1'/></disk>",
            ),
        ] {
            let backup = push(["vda", "vdb", "sda"].into_iter(), "vdb", format, target);
            let whole = format!(
                "<domainbackup mode='push'><disks><disk name='vda' backup='no'/>{expected}\
                 <disk name='sda' backup='no'/></disks></domainbackup>"
            );
            assert_eq!(backup, Element::parse(&whole).unwrap());
        }
    }
}

//! Which disk of ours a `<disk>` of a domain is, and which layer of it our volume is. A disk is known by its serial and
//! by its whole backing chain: backup tools put overlays on a disk, operators move it to another file.

use bosh_cpi::cid::{Cid, names_disk};
use libvirt_xml::element::Element;

/// Where our volume is in a VM's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// The VM reads and writes our volume.
    Top,
    /// The VM writes to this overlay; our volume is a backing file below it, without the newest data.
    Below(String),
    /// The disk has our volume's serial, but all its data is in this file.
    Elsewhere(String),
}

/// Where the volume of this name is in the disk; None in a disk of another volume.
pub fn layer_of(disk: &Element, volume: &str) -> Option<Layer> {
    let top = || {
        disk.child("source")
            .and_then(place)
            .unwrap_or("no file")
            .to_owned()
    };
    if name_of(disk) == Some(volume) {
        return Some(Layer::Top);
    }
    if disk
        .child("backingStore")
        .is_some_and(|below| refers_to(below, volume))
    {
        return Some(Layer::Below(top()));
    }
    let is_serial =
        |serial: &Element| Cid::new(volume).is_ok_and(|cid| cid.disk_serial() == serial.text().trim());
    let has_serial = names_disk(volume) && disk.child("serial").is_some_and(is_serial);
    (has_serial || refers_to(disk, volume)).then(|| Layer::Elsewhere(top()))
}

/// The cid of the persistent disk that this is: by the first of its layers that is a disk of ours, else by its serial.
pub fn cid_of(disk: &Element) -> Option<String> {
    let mut layer = Some(disk);
    while let Some(at) = layer {
        if let Some(name) = name_of(at).filter(|name| names_disk(name)) {
            return Some(name.to_owned());
        }
        layer = at.child("backingStore");
    }
    // A serial of the Go CPI's disks does not tell their cid.
    let serial = disk.child("serial")?.text().trim().to_owned();
    names_disk(&serial).then_some(serial)
}

/// Cids of a domain's persistent disks, in their order there.
pub fn disk_cids_in(domain: &Element) -> Vec<String> {
    disks(domain).filter_map(cid_of).collect()
}

/// The `<disk>`s of a domain.
pub fn disks(domain: &Element) -> impl Iterator<Item = &Element> {
    domain
        .child("devices")
        .into_iter()
        .flat_map(|devices| devices.children_named("disk"))
}

/// The name of the volume a layer's data is in, also where it is named by a path.
pub fn name_of(layer: &Element) -> Option<&str> {
    place(layer.child("source")?)?.rsplit('/').next()
}

/// Names of all volumes that a domain's disks refer to: the disks, their backing files, mirrors.
pub fn volumes_of(domain: &Element) -> Vec<String> {
    fn collect(element: &Element, names: &mut Vec<String>) {
        names.extend(name_of(element).map(str::to_owned));
        element.elements().for_each(|child| collect(child, names));
    }
    let mut names = Vec::new();
    disks(domain).for_each(|disk| collect(disk, &mut names));
    names
}

/// Whether any layer from this one down is the volume, or a mirror of it.
fn refers_to(element: &Element, volume: &str) -> bool {
    name_of(element) == Some(volume) || element.elements().any(|child| refers_to(child, volume))
}

fn place(source: &Element) -> Option<&str> {
    ["volume", "file", "dev", "name"]
        .iter()
        .find_map(|key| source.attribute(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = "disk0123456789abcdef";

    #[test]
    fn a_volume_is_found_in_every_spelling_and_layer() {
        let below = |file: &str| Some(Layer::Below(file.to_owned()));
        let elsewhere = |file: &str| Some(Layer::Elsewhere(file.to_owned()));
        for (disk, expected) in [
            (format!("<source pool='p' volume='{DISK}'/>"), Some(Layer::Top)),
            (format!("<source file='/a/b/{DISK}'/>"), Some(Layer::Top)),
            (format!("<source dev='/dev/vg/{DISK}'/>"), Some(Layer::Top)),
            (
                format!("<source protocol='rbd' name='pool/{DISK}'/>"),
                Some(Layer::Top),
            ),
            (
                format!(
                    "<source file='/o'/><backingStore type='file'><format type='raw'/><source file='/a/{DISK}'/>\
                     <backingStore/></backingStore>"
                ),
                below("/o"),
            ),
            (
                format!(
                    "<source file='/a/{DISK}.bak2'/><backingStore><source file='/a/{DISK}.bak'/>\
                     <backingStore><source file='/a/{DISK}'/></backingStore></backingStore><serial>{DISK}</serial>"
                ),
                below(&format!("/a/{DISK}.bak2")),
            ),
            (
                format!("<source file='/elsewhere'/><serial>{DISK}</serial>"),
                elsewhere("/elsewhere"),
            ),
            // On its way back.
            (
                format!("<source file='/elsewhere'/><mirror><source file='/a/{DISK}'/></mirror>"),
                elsewhere("/elsewhere"),
            ),
            (
                format!("<source file='/a/{DISK}'/><mirror><source file='/elsewhere'/></mirror>"),
                Some(Layer::Top),
            ),
            (format!("<source file='/a/{DISK}.record'/>"), None),
            ("<source file='/a/other'/><serial>other</serial>".to_owned(), None),
            (String::new(), None),
        ] {
            let disk = Element::parse(&format!("<disk>{disk}</disk>")).unwrap();
            assert_eq!(layer_of(&disk, DISK), expected, "{disk}");
            // A mirror alone does not make it the disk: it is a copy so far.
            let is_disk = expected.is_some() && !disk.to_string().contains("elsewhere'/><mirror>");
            assert_eq!(cid_of(&disk).as_deref(), is_disk.then_some(DISK), "{disk}");
        }
    }

    #[test]
    fn a_disk_of_the_go_cpi_is_known_by_its_chain_and_serial() {
        let cid = "pdisk-5f0bd1b5-5b3a-4b0e-9f0e-0123456789ab";
        let parse = |disk: &str| Element::parse(&format!("<disk>{disk}</disk>")).unwrap();
        let overlay = format!("<source file='/o'/><backingStore><source file='/a/{cid}'/></backingStore>");
        assert_eq!(cid_of(&parse(&overlay)).as_deref(), Some(cid));
        let moved = parse("<source file='/o'/><serial>5f0bd1b55b3a4b0e9f0e</serial>");
        assert_eq!(layer_of(&moved, cid), Some(Layer::Elsewhere("/o".to_owned())));
        assert_eq!(cid_of(&moved), None);
    }

    #[test]
    fn all_volumes_of_a_domain_are_found_and_an_empty_drive_has_none() {
        let xml = "<domain><devices><disk><source file='/p/overlay'/><backingStore><source file='/p/base'/>\
                   </backingStore></disk><disk device='cdrom'><source startupPolicy='optional'/></disk>\
                   <disk device='cdrom'/></devices></domain>";
        assert_eq!(volumes_of(&Element::parse(xml).unwrap()), ["overlay", "base"]);
    }
}

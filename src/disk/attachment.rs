//! Which VMs refer to a disk, and how: read from the domains' XML, running and defined.

use std::sync::mpsc::channel;
use std::thread;

use crate::cid::{Cid, names_disk};
use crate::config::DiskBus;
use crate::libvirt::{Connection, Domain};
use crate::rpc::{ErrorType, Result};
use crate::vm::BOOT;
use crate::xml::disk::target_name;
use crate::xml::element::Element;

/// More disks than any bus has places for.
const MAX_POSITIONS: usize = 1000;

/// How many VMs are asked for at once. Libvirtd works on 5 requests of a connection at a time (`max_client_requests`).
const LOOKS_AT_ONCE: usize = 4;

/// As many VMs are not worth a thread.
const SMALLEST_SHARE: usize = 16;

/// A VM's disks, as its running self and its next start see them.
pub struct Attachments {
    /// None when the VM does not run.
    pub live: Option<Element>,
    pub persistent: Element,
}

impl Attachments {
    pub fn of(domain: &Domain) -> Result<Self> {
        let live = if domain.is_active()? {
            Some(domain.xml()?)
        } else {
            None
        };
        Ok(Self {
            live,
            persistent: domain.persistent_xml()?,
        })
    }

    /// The `<disk>` of this volume in the running VM.
    pub fn live_disk(&self, volume: &str) -> Option<&Element> {
        self.live.as_ref().and_then(|xml| disk_of(xml, volume))
    }

    /// The `<disk>` of this volume in the next start's description.
    pub fn persistent_disk(&self, volume: &str) -> Option<&Element> {
        disk_of(&self.persistent, volume)
    }

    /// The names (`vda`, ...) of the running VM's disks.
    pub fn live_targets(&self) -> impl Iterator<Item = &str> {
        self.live.iter().flat_map(disks).filter_map(target_of)
    }

    /// The bus that the volume is on or would be put on: that of the boot disk, on which the agent in the VM looks for
    /// all its disks, whatever the configuration says by now. None where it is no bus of ours.
    pub fn bus_for(&self, volume: &str) -> Option<DiskBus> {
        let boot_disk = || {
            let all = || disks(&self.persistent).filter(|disk| disk.attribute("device") != Some("cdrom"));
            let is_boot_disk = |disk: &&Element| disk.child("serial").is_some_and(|s| s.text() == BOOT);
            // The seed's VMs have no serials; their boot disk is the first.
            all().find(is_boot_disk).or_else(|| all().next())
        };
        self.live_disk(volume)
            .or(self.persistent_disk(volume))
            .or_else(boot_disk)
            .and_then(|disk| DiskBus::from_name(disk.child("target")?.attribute("bus")?))
    }

    /// Where the guest finds the volume if it was attached without a serial, as the seed's CPI does: by its place then,
    /// as the seed's CPI says itself. None where it has a serial, or will get one because it is not attached yet.
    pub fn path_without_serial(&self, volume: &str) -> Option<String> {
        let disk = match self.live {
            Some(_) => self.live_disk(volume)?,
            None => self.persistent_disk(volume)?,
        };
        let target = disk.child("target")?;
        let is_virtio = target.attribute("bus") == Some("virtio");
        (is_virtio && disk.child("serial").is_none())
            .then(|| target.attribute("dev").map(|name| format!("/dev/{name}")))
            .flatten()
    }

    /// Where on the bus the volume is or can be: the position it has in one of the descriptions, if it is free in
    /// the other, or else the first that is free in both.
    pub fn position_of(&self, volume: &str, bus: DiskBus) -> usize {
        let taken_by_others: Vec<&str> = [self.live.as_ref(), Some(&self.persistent)]
            .into_iter()
            .flatten()
            .flat_map(disks)
            .filter(|disk| volume_name(disk) != Some(volume))
            .filter_map(target_of)
            .collect();
        let is_free = |position: &usize| !taken_by_others.contains(&target_name(bus, *position).as_str());
        let has = self
            .live_disk(volume)
            .or(self.persistent_disk(volume))
            .and_then(target_of);
        has.and_then(|has| (0..MAX_POSITIONS).find(|position| target_name(bus, *position) == has))
            .filter(is_free)
            .or_else(|| (0..).find(is_free))
            .unwrap_or_default()
    }
}

/// Names of all VMs that refer to the volume, running or only defined, through whatever spelling.
pub fn users(libvirt: &Connection, volume: &str) -> Result<Vec<String>> {
    users_among(libvirt.all_domains()?, volume)
}

/// As `users`, but only of VMs whose names are cids of ours: those that another call may be attaching the disk to.
pub fn users_of_ours(libvirt: &Connection, volume: &str) -> Result<Vec<String>> {
    let mut domains = libvirt.all_domains()?;
    domains.retain(|domain| Cid::new(&domain.name).is_ok_and(|cid| cid.names_vm()));
    users_among(domains, volume)
}

/// Where there are many VMs, several are asked for at once: each is a way to the host and back. Once one look has failed,
/// the others are not waited for: where a connection is given up with several calls on their way, libvirt's client ends
/// one of them and lets the others wait for answers that cannot come.
fn users_among(mut domains: Vec<Domain>, volume: &str) -> Result<Vec<String>> {
    let share = domains.len().div_ceil(LOOKS_AT_ONCE).max(SMALLEST_SHARE);
    if domains.len() <= share {
        return users_in_turn(&domains, volume);
    }
    let (sender, found) = channel();
    let mut looks = 0;
    while !domains.is_empty() {
        let part = domains.split_off(domains.len().saturating_sub(share));
        let (sender, volume) = (sender.clone(), volume.to_owned());
        looks += 1;
        thread::spawn(move || {
            // Nobody listens any more where another look has failed.
            let _ = sender.send(users_in_turn(&part, &volume));
        });
    }
    drop(sender);
    let outcomes = found.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(outcomes.len(), looks, "a look at VMs panicked");
    let mut users = outcomes.concat();
    users.sort();
    Ok(users)
}

fn users_in_turn(domains: &[Domain], volume: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for domain in domains {
        match refers(domain, volume) {
            Ok(true) => users.push(domain.name.clone()),
            Ok(false) => {}
            // Somebody else's VM may be deleted while we look.
            Err(error) if error.error_type == ErrorType::VmNotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(users)
}

fn refers(domain: &Domain, volume: &str) -> Result<bool> {
    // Hosts have many VMs, and hardly any has the disk: their XML is not worth parsing.
    if !domain.mentions(volume)? {
        return Ok(false);
    }
    let attachments = Attachments::of(domain)?;
    let in_disks = |xml: &Element| disks(xml).any(|disk| refers_to(disk, volume));
    Ok(attachments.live.as_ref().is_some_and(in_disks) || in_disks(&attachments.persistent))
}

/// Cids of the persistent disks in a domain's XML, in their order there.
pub fn attached_disk_cids(xml: &Element) -> Vec<String> {
    disks(xml)
        .filter_map(volume_name)
        .filter(|name| names_disk(name))
        .map(str::to_owned)
        .collect()
}

/// Names of all volumes that a domain's XML refers to: of its disks, their backing files, mirrors.
pub fn volumes_of(xml: &Element) -> Vec<String> {
    fn collect(element: &Element, names: &mut Vec<String>) {
        for child in element.elements() {
            if child.name == "source"
                && let Some(name) = source_name(child)
            {
                names.push(name.to_owned());
            }
            collect(child, names);
        }
    }
    let mut names = Vec::new();
    disks(xml).for_each(|disk| collect(disk, &mut names));
    names
}

fn disks(xml: &Element) -> impl Iterator<Item = &Element> {
    xml.child("devices")
        .into_iter()
        .flat_map(|devices| devices.children_named("disk"))
}

fn target_of(disk: &Element) -> Option<&str> {
    disk.child("target")?.attribute("dev")
}

fn disk_of<'a>(xml: &'a Element, volume: &str) -> Option<&'a Element> {
    disks(xml).find(|disk| volume_name(disk) == Some(volume))
}

/// The name of the volume a disk's data is in, also where the domain names a path instead of a volume.
fn volume_name(disk: &Element) -> Option<&str> {
    source_name(disk.child("source")?)
}

fn source_name(source: &Element) -> Option<&str> {
    let place = ["volume", "file", "dev", "name"]
        .iter()
        .find_map(|key| source.attribute(key))?;
    place.rsplit('/').next()
}

/// Whether any layer of the disk is this volume: the disk itself, a backing file, a mirror.
fn refers_to(element: &Element, volume: &str) -> bool {
    element.elements().any(|child| {
        (child.name == "source" && source_name(child) == Some(volume)) || refers_to(child, volume)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_seen_through_every_spelling() {
        for disk in [
            "<disk type='volume'><source pool='p' volume='disk0123456789abcdef'/></disk>",
            "<disk type='file'><source file='/a/b/disk0123456789abcdef'/></disk>",
            "<disk type='block'><source dev='/dev/vg/disk0123456789abcdef'/></disk>",
            "<disk type='network'><source protocol='rbd' name='pool/disk0123456789abcdef'/></disk>",
            "<disk type='file'><source file='/o'/><backingStore type='file'><format type='raw'/>\
             <source file='/a/disk0123456789abcdef'/><backingStore/></backingStore></disk>",
        ] {
            assert!(
                refers_to(&Element::parse(disk).unwrap(), "disk0123456789abcdef"),
                "{disk}"
            );
        }
        let other = "<disk type='file'><source file='/a/disk0123456789abcdef.record'/></disk>";
        assert!(!refers_to(
            &Element::parse(other).unwrap(),
            "disk0123456789abcdef"
        ));
    }

    #[test]
    fn all_volumes_of_a_domain_are_found_and_an_empty_drive_has_none() {
        let xml = "<domain><devices><disk><source file='/p/overlay'/><backingStore><source file='/p/base'/>\
                   </backingStore></disk><disk device='cdrom'><source startupPolicy='optional'/></disk>\
                   <disk device='cdrom'/></devices></domain>";
        assert_eq!(volumes_of(&Element::parse(xml).unwrap()), ["overlay", "base"]);
    }

    #[test]
    fn free_positions_count_both_descriptions() {
        let xml = |devices: &[&str]| {
            let disks: String = devices
                .iter()
                .map(|d| format!("<disk><target dev='{d}'/></disk>"))
                .collect();
            Element::parse(&format!("<domain><devices>{disks}</devices></domain>")).unwrap()
        };
        let attachments = Attachments {
            live: Some(xml(&["vda", "vdb"])),
            persistent: xml(&["vda", "vdc"]),
        };
        assert_eq!(attachments.position_of("v", DiskBus::Virtio), 3);
        assert_eq!(attachments.position_of("v", DiskBus::Scsi), 0);
    }

    #[test]
    fn a_disk_without_a_serial_is_where_it_is() {
        let xml = |disk: &str| {
            Element::parse(&format!(
                "<domain><devices><disk><source file='/p/v'/>{disk}</disk></devices></domain>"
            ))
            .unwrap()
        };
        let seeds = || xml("<target dev='vdd' bus='virtio'/>");
        let ours = || xml("<target dev='vdd' bus='virtio'/><serial>s</serial>");
        let without = || Element::parse("<domain><devices/></domain>").unwrap();
        let path = |live: Option<Element>, persistent: Element| {
            Attachments { live, persistent }.path_without_serial("v")
        };
        assert_eq!(path(Some(seeds()), ours()).as_deref(), Some("/dev/vdd"));
        assert_eq!(path(None, seeds()).as_deref(), Some("/dev/vdd"));
        // By place only on the bus that the seed's CPI uses.
        assert_eq!(path(None, xml("<target dev='sdd' bus='scsi'/>")), None);
        assert_eq!(path(Some(ours()), seeds()), None);
        // It gets one in the running VM, where it is not yet.
        assert_eq!(path(Some(without()), seeds()), None);
        assert_eq!(path(None, without()), None);
    }

    #[test]
    fn the_bus_is_the_vms_own() {
        let disk = |serial: &str, bus: &str, volume: &str| {
            format!(
                "<disk device='disk'><source volume='{volume}'/><target dev='x' bus='{bus}'/>\
                 <serial>{serial}</serial></disk>"
            )
        };
        let cdrom = "<disk device='cdrom'><target dev='sda' bus='sata'/></disk>";
        let bus = |disks: &str| {
            let xml = format!("<domain><devices>{disks}</devices></domain>");
            let persistent = Element::parse(&xml).unwrap();
            Attachments {
                live: None,
                persistent,
            }
            .bus_for("v")
        };
        let boot = disk("boot", "scsi", "b");
        for (disks, expected) in [
            (
                format!("{cdrom}{}{boot}", disk("o", "virtio", "o")),
                Some(DiskBus::Scsi),
            ),
            (
                format!("{boot}{}", disk("v", "virtio", "v")),
                Some(DiskBus::Virtio),
            ),
            (
                format!("{cdrom}{}", disk("", "virtio", "b")),
                Some(DiskBus::Virtio),
            ),
            (disk("", "ide", "b"), None),
            (cdrom.to_owned(), None),
        ] {
            assert_eq!(bus(&disks), expected, "{disks}");
        }
    }
}

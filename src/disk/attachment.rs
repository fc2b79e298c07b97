//! A VM's disks, as its live XML, its persistent XML and its saved state see them.

use super::layers::{Layer, disk_cids_in, disks, layer_of};
use bosh_cpi::rpc::{Error, Result};
use cpi_config::DiskBus;
use libvirt_host::Domain;
use libvirt_host::volume_name::BOOT;
use libvirt_xml::disk::target_name;
use libvirt_xml::element::Element;

/// More disks than any bus has places for.
const MAX_POSITIONS: usize = 1000;

/// A VM's disks.
#[derive(Debug, Clone, Default)]
pub struct Attachments {
    /// None when the VM does not run.
    pub live: Option<Element>,
    /// What the next boot uses. None for a transient domain, which ends when it stops.
    pub persistent: Option<Element>,
    /// What a VM with a managed save image resumes with.
    pub saved: Option<Element>,
}

impl Attachments {
    pub fn of(domain: &Domain) -> Result<Self> {
        if !domain.is_active()? {
            return Ok(Self {
                live: None,
                persistent: Some(domain.persistent_xml()?),
                saved: domain.saved_xml()?,
            });
        }
        let persistent = domain.is_persistent()?.then(|| domain.persistent_xml());
        Ok(Self {
            live: Some(domain.xml()?),
            persistent: persistent.transpose()?,
            saved: None,
        })
    }

    fn views(&self) -> impl Iterator<Item = &Element> {
        [&self.live, &self.persistent, &self.saved].into_iter().flatten()
    }

    /// The `<disk>` of this volume, at whatever layer, in the running VM.
    pub fn live_disk(&self, volume: &str) -> Option<&Element> {
        disk_of(self.live.as_ref()?, volume)
    }

    /// The `<disk>` of this volume, at whatever layer, for the next boot.
    pub fn persistent_disk(&self, volume: &str) -> Option<&Element> {
        disk_of(self.persistent.as_ref()?, volume)
    }

    /// Whether a running, booting or resuming VM has the volume in one of its disks.
    pub fn has(&self, volume: &str) -> bool {
        self.views().any(|view| disk_of(view, volume).is_some())
    }

    /// Whether each of them has: nothing is to be attached any more.
    pub fn all_have(&self, volume: &str) -> bool {
        self.views().all(|view| disk_of(view, volume).is_some())
    }

    /// Cids of the persistent disks: of the running VM, else of what the next start boots or resumes with.
    pub fn disk_cids(&self) -> Vec<String> {
        match &self.live {
            Some(live) => disk_cids_in(live),
            None => self.all_disk_cids(),
        }
    }

    /// Cids of the persistent disks in the live XML, the persistent XML or the managed save image.
    pub fn all_disk_cids(&self) -> Vec<String> {
        let mut cids = Vec::new();
        for cid in self.views().flat_map(disk_cids_in) {
            if !cids.contains(&cid) {
                cids.push(cid);
            }
        }
        cids
    }

    /// Which of these volumes have an overlay on them, and its file.
    pub fn overlays_on<'a>(&self, volumes: &'a [String]) -> Vec<(&'a str, String)> {
        let overlay = |volume: &'a String| {
            let mut layers = self
                .views()
                .flat_map(disks)
                .filter_map(|disk| layer_of(disk, volume));
            layers.find_map(|layer| match layer {
                Layer::Below(file) => Some((volume.as_str(), file)),
                Layer::Top | Layer::Elsewhere(_) => None,
            })
        };
        volumes.iter().filter_map(overlay).collect()
    }

    /// Refuses a volume that is not the top layer of its disk: the newest data is elsewhere.
    ///
    /// # Errors
    /// `CloudError` naming the file that has the data, and the command that brings it back; `path` is the volume's.
    pub fn require_top_layer(
        &self,
        domain: &Domain,
        volume: &str,
        path: impl Fn() -> Result<String>,
    ) -> Result<()> {
        for disk in self.views().filter_map(|view| disk_of(view, volume)) {
            let vm = &domain.name;
            let target = target_of(disk).unwrap_or("TARGET");
            // What the file is an overlay on, libvirt tells of a running VM.
            let start = || format!("virsh start {vm}, then repeat the call, which says how");
            let (what, remedy) = match layer_of(disk, volume) {
                None | Some(Layer::Top) => continue,
                Some(Layer::Below(file)) => (
                    format!("an overlay, {file}"),
                    if self.live.is_some() {
                        format!("virsh blockcommit {vm} {target} --active --wait --pivot, then delete {file}")
                    } else {
                        start()
                    },
                ),
                Some(Layer::Elsewhere(file)) => (
                    format!("another file, {file}"),
                    if self.live.is_some() {
                        let path = path()?;
                        format!(
                            "virsh blockcopy {vm} {target} {path} --reuse-external --transient-job --wait --pivot, \
                             then delete {file}"
                        )
                    } else {
                        start()
                    },
                ),
            };
            return Err(Error::cloud(format!(
                "VM {vm} has the newest data of disk {volume} in {what} (bring it back: {remedy})"
            )));
        }
        Ok(())
    }

    /// Refuses a VM that would resume from a managed save image: what is changed now is not in that image.
    ///
    /// # Errors
    /// `CloudError` with the commands that end this.
    pub fn require_not_saved(&self, domain: &Domain) -> Result<()> {
        if self.saved.is_none() {
            return Ok(());
        }
        let vm = &domain.name;
        Err(Error::cloud(format!(
            "VM {vm} is saved and resumes with the disks it had then (resume it: virsh start {vm}; or drop its memory: \
             virsh managedsave-remove {vm})"
        )))
    }

    /// The names (`vda`, ...) of the running VM's disks.
    pub fn live_targets(&self) -> impl Iterator<Item = &str> {
        self.live.iter().flat_map(disks).filter_map(target_of)
    }

    /// The bus that the volume is on or would be put on: that of the boot disk, on which the agent in the VM looks for
    /// all its disks, whatever the configuration says by now. None where it is no bus of ours.
    pub fn bus_for(&self, volume: &str) -> Option<DiskBus> {
        let boot_disk = || {
            let definition = self.persistent.as_ref().or(self.live.as_ref())?;
            let all = || disks(definition).filter(|disk| disk.attribute("device") != Some("cdrom"));
            let is_boot_disk = |disk: &&Element| disk.child("serial").is_some_and(|s| s.text() == BOOT);
            // The Go CPI's VMs have no serials; their boot disk is the first.
            all().find(is_boot_disk).or_else(|| all().next())
        };
        self.live_disk(volume)
            .or(self.persistent_disk(volume))
            .or_else(boot_disk)
            .and_then(|disk| DiskBus::from_name(disk.child("target")?.attribute("bus")?))
    }

    /// Where the guest finds the volume if it was attached without a serial, as the Go CPI does: by its place then, as the
    /// Go CPI says itself. None where it has a serial, or will get one because it is not attached yet.
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

    /// Where on the bus the volume is or can be: the position it has in the live or the persistent XML, if it is free in
    /// the other, or else the first that is free in both.
    pub fn position_of(&self, volume: &str, bus: DiskBus) -> usize {
        let taken_by_others: Vec<&str> = self
            .views()
            .flat_map(disks)
            .filter(|disk| layer_of(disk, volume).is_none())
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

fn target_of(disk: &Element) -> Option<&str> {
    disk.child("target")?.attribute("dev")
}

/// The disk that has the volume as its top layer, else the one that has it in some other way.
fn disk_of<'a>(domain: &'a Element, volume: &str) -> Option<&'a Element> {
    let of = |wanted: fn(&Layer) -> bool| {
        disks(domain).find(move |disk| layer_of(disk, volume).is_some_and(|layer| wanted(&layer)))
    };
    of(|layer| *layer == Layer::Top).or_else(|| of(|_| true))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            persistent: Some(xml(&["vda", "vdc"])),
            saved: None,
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
            let persistent = Some(persistent);
            Attachments {
                live,
                persistent,
                saved: None,
            }
            .path_without_serial("v")
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
            Attachments {
                persistent: Element::parse(&xml).ok(),
                ..Attachments::default()
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

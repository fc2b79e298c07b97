//! What a volume's name says of it. A name that fits none of these is somebody else's.

use super::probe;
use crate::cid::{Cid, names_disk};
use crate::disk::DELETING_SUFFIX;
use crate::partial;
use crate::record_volume::of_record;
use crate::vm::{BOOT, EPHEMERAL, SETTINGS};

/// A volume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeName {
    /// By its cid with `sc-` in front, which the seed's do not have.
    Stemcell(String),
    Disk(String),
    Snapshot(String),
    /// The VM's cid, and which of its volumes: `boot`, `ephemeral`, `config`.
    OfVm(String, &'static str),
    /// What is remembered of the disk, snapshot or stemcell of this cid.
    Record(String),
    /// The disk, snapshot or stemcell of this cid is not complete.
    Partial(String),
    /// The disk or snapshot of this cid is being deleted.
    Deleting(String),
    /// Made by an operator's command, to see whether that works.
    Probe,
}

impl VolumeName {
    /// Whether this is the volume of the stemcell, disk or snapshot of this cid.
    pub fn is_thing(&self, cid: &str) -> bool {
        matches!(self, Self::Stemcell(own) | Self::Disk(own) | Self::Snapshot(own) if own == cid)
    }

    pub fn of(name: &str) -> Option<Self> {
        let cid = Cid::new(name).ok()?;
        if let Some(of) = of_record(name) {
            return is_thing(of).then(|| Self::Record(of.to_owned()));
        }
        if let Some(of) = name.strip_suffix(partial::SUFFIX) {
            return is_thing(of).then(|| Self::Partial(of.to_owned()));
        }
        if let Some(of) = name.strip_suffix(DELETING_SUFFIX) {
            return names_disk(of).then(|| Self::Deleting(of.to_owned()));
        }
        if cid.names_snapshot() {
            return Some(Self::Snapshot(name.to_owned()));
        }
        if cid.names_disk() {
            return Some(Self::Disk(name.to_owned()));
        }
        if is_stemcell(name) {
            return Some(Self::Stemcell(name.to_owned()));
        }
        if name
            .strip_prefix(probe::PREFIX)
            .is_some_and(|rest| uuid::Uuid::try_parse(rest).is_ok())
        {
            return Some(Self::Probe);
        }
        of_vm(name)
    }
}

fn is_stemcell(name: &str) -> bool {
    // Without the prefix it would be any uuid.
    name.starts_with("sc-") && Cid::new(name).is_ok_and(|cid| cid.stemcell_volume().is_some())
}

fn is_thing(name: &str) -> bool {
    names_disk(name) || is_stemcell(name)
}

fn of_vm(name: &str) -> Option<VolumeName> {
    let of = |cid: String, part| {
        Cid::new(&cid)
            .is_ok_and(|cid| cid.names_vm())
            .then_some(VolumeName::OfVm(cid, part))
    };
    for (part, seeds) in [(BOOT, "bdisk-"), (EPHEMERAL, "edisk-"), (SETTINGS, "cdisk-")] {
        if let Some(cid) = name.strip_suffix(part).and_then(|rest| rest.strip_suffix('-')) {
            return of(cid.to_owned(), part);
        }
        if let Some(uuid) = name.strip_prefix(seeds) {
            return of(format!("vm-{uuid}"), part);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_recognised() {
        let uuid = "12345678-9abc-4def-8123-456789abcdef";
        let vm = format!("vm-{uuid}");
        for (name, expected) in [
            (
                format!("sc-{uuid}"),
                Some(VolumeName::Stemcell(format!("sc-{uuid}"))),
            ),
            (uuid.to_owned(), None),
            (format!("sc-{uuid}.qcow2"), None),
            (
                format!("sc-{uuid}.record"),
                Some(VolumeName::Record(format!("sc-{uuid}"))),
            ),
            (
                format!("sc-{uuid}.partial"),
                Some(VolumeName::Partial(format!("sc-{uuid}"))),
            ),
            (
                "disk0123456789abcdef".to_owned(),
                Some(VolumeName::Disk("disk0123456789abcdef".to_owned())),
            ),
            (
                format!("pdisk-{uuid}"),
                Some(VolumeName::Disk(format!("pdisk-{uuid}"))),
            ),
            (
                "snap0123456789abcdef".to_owned(),
                Some(VolumeName::Snapshot("snap0123456789abcdef".to_owned())),
            ),
            (
                "snap0123456789abcdef.partial".to_owned(),
                Some(VolumeName::Partial("snap0123456789abcdef".to_owned())),
            ),
            (
                "disk0123456789abcdef.deleting".to_owned(),
                Some(VolumeName::Deleting("disk0123456789abcdef".to_owned())),
            ),
            (format!("sc-{uuid}.deleting"), None),
            (
                "disk0123456789abcdef.record".to_owned(),
                Some(VolumeName::Record("disk0123456789abcdef".to_owned())),
            ),
            (format!("{vm}-boot"), Some(VolumeName::OfVm(vm.clone(), "boot"))),
            (
                format!("{vm}-config"),
                Some(VolumeName::OfVm(vm.clone(), "config")),
            ),
            (
                format!("edisk-{uuid}"),
                Some(VolumeName::OfVm(vm.clone(), "ephemeral")),
            ),
            (format!("{vm}-data"), None),
            (vm, None),
            ("vm-web-boot".to_owned(), None),
            ("bdisk-1".to_owned(), None),
            (format!("cpi-probe-{uuid}"), Some(VolumeName::Probe)),
            ("cpi-probe-x".to_owned(), None),
            ("debian.qcow2".to_owned(), None),
            ("notes.record".to_owned(), None),
            ("x.partial".to_owned(), None),
        ] {
            assert_eq!(VolumeName::of(&name), expected, "{name}");
        }
    }
}

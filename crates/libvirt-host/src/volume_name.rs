//! The names of all volumes of ours, the Go CPI's included. A name that fits none of these is somebody else's.

use std::fmt;
use std::str::FromStr;

use bosh_cpi::cid::{Cid, names_disk};

/// Which of a VM's own volumes: also the serial that the guest finds the volume by.
pub const BOOT: &str = "boot";
pub const EPHEMERAL: &str = "ephemeral";
/// Config drive or settings CD-ROM.
pub const SETTINGS: &str = "config";

/// The Go CPI's prefixes for the same volumes; the VM's uuid follows.
const PREFIXES: [(&str, &str); 3] = [(BOOT, "bdisk-"), (EPHEMERAL, "edisk-"), (SETTINGS, "cdisk-")];

const PROBE: &str = "cpi-probe-";
const RECORD: &str = ".record";
const INCOMPLETE: &str = ".partial";
const DELETING: &str = ".deleting";

/// A volume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeName {
    /// By its cid with `sc-` in front, which the Go CPI's cids do not have.
    Stemcell(String),
    Disk(String),
    Snapshot(String),
    /// The VM's cid, and which of its volumes: `boot`, `ephemeral`, `config`.
    OfVm(String, &'static str),
    /// The sidecar record of the disk, snapshot or stemcell of this cid.
    Record(String),
    /// The marker volume of an incomplete disk, snapshot or stemcell of this cid.
    Incomplete(String),
    /// The marker volume of a disk, snapshot or stemcell of this cid that is being deleted or replaced.
    Deleting(String),
    /// Made by an operator's command to try the pool; a uuid.
    Probe(String),
}

impl VolumeName {
    /// Whether this is the volume of the stemcell, disk or snapshot of this cid.
    pub fn is_thing(&self, cid: &str) -> bool {
        matches!(self, Self::Stemcell(own) | Self::Disk(own) | Self::Snapshot(own) if own == cid)
    }

    /// What this name says; None for a name of somebody else's.
    pub fn of(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stemcell(cid) | Self::Disk(cid) | Self::Snapshot(cid) => f.write_str(cid),
            Self::OfVm(vm, part) => write!(f, "{vm}-{part}"),
            Self::Record(of) => write!(f, "{of}{RECORD}"),
            Self::Incomplete(of) => write!(f, "{of}{INCOMPLETE}"),
            Self::Deleting(of) => write!(f, "{of}{DELETING}"),
            Self::Probe(uuid) => write!(f, "{PROBE}{uuid}"),
        }
    }
}

/// The name is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

impl FromStr for VolumeName {
    type Err = NotOurs;

    fn from_str(name: &str) -> Result<Self, NotOurs> {
        let cid = Cid::new(name).map_err(|_| NotOurs)?;
        for (suffix, kind) in [
            (RECORD, Self::Record as fn(String) -> Self),
            (INCOMPLETE, Self::Incomplete),
            (DELETING, Self::Deleting),
        ] {
            if let Some(of) = name.strip_suffix(suffix) {
                return (names_disk(of) || names_stemcell(of))
                    .then(|| kind(of.to_owned()))
                    .ok_or(NotOurs);
            }
        }
        if cid.names_snapshot() {
            return Ok(Self::Snapshot(name.to_owned()));
        }
        if cid.names_disk() {
            return Ok(Self::Disk(name.to_owned()));
        }
        if names_stemcell(name) {
            return Ok(Self::Stemcell(name.to_owned()));
        }
        if let Some(uuid) = name.strip_prefix(PROBE) {
            return uuid::Uuid::try_parse(uuid)
                .map(|_| Self::Probe(uuid.to_owned()))
                .map_err(|_| NotOurs);
        }
        of_vm(name).ok_or(NotOurs)
    }
}

/// Every name that a volume of this VM may have, the Go CPI's included.
pub fn all_of_vm(vm: &Cid) -> Vec<String> {
    let own = PREFIXES.map(|(part, _)| VolumeName::OfVm(vm.to_string(), part).to_string());
    let of_go_cpi = |uuid: &str| PREFIXES.map(|(_, prefix)| format!("{prefix}{uuid}"));
    own.into_iter()
        .chain(vm.vm_uuid().into_iter().flat_map(of_go_cpi))
        .collect()
}

fn names_stemcell(name: &str) -> bool {
    // Without the prefix it would be any uuid.
    name.starts_with("sc-") && Cid::new(name).is_ok_and(|cid| cid.stemcell_volume().is_some())
}

fn of_vm(name: &str) -> Option<VolumeName> {
    PREFIXES.iter().find_map(|(part, prefix)| {
        let vm = match (name.strip_prefix(prefix), name.strip_suffix(part)) {
            (Some(uuid), _) => format!("vm-{uuid}"),
            (None, Some(rest)) => rest.strip_suffix('-')?.to_owned(),
            (None, None) => return None,
        };
        let names_vm = Cid::new(&vm).is_ok_and(|cid| cid.names_vm());
        names_vm.then_some(VolumeName::OfVm(vm, part))
    })
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
                Some(VolumeName::Incomplete(format!("sc-{uuid}"))),
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
                Some(VolumeName::Incomplete("snap0123456789abcdef".to_owned())),
            ),
            (
                "disk0123456789abcdef.deleting".to_owned(),
                Some(VolumeName::Deleting("disk0123456789abcdef".to_owned())),
            ),
            (
                format!("sc-{uuid}.deleting"),
                Some(VolumeName::Deleting(format!("sc-{uuid}"))),
            ),
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
            (
                format!("cpi-probe-{uuid}"),
                Some(VolumeName::Probe(uuid.to_owned())),
            ),
            ("cpi-probe-x".to_owned(), None),
            ("debian.qcow2".to_owned(), None),
            ("notes.record".to_owned(), None),
            ("x.partial".to_owned(), None),
        ] {
            assert_eq!(VolumeName::of(&name), expected, "{name}");
            // The Go CPI's names of a VM's volumes are read, not written.
            if let Some(expected) = expected.filter(|_| !name.starts_with("edisk-")) {
                assert_eq!(expected.to_string(), name);
            }
        }
    }
}

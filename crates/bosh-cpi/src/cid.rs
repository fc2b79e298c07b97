//! Cloud ids: what the Director calls our things, and what libvirt calls them.

use std::fmt;

/// A name that is safe to hand to libvirt: it becomes a file name in a directory pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cid(String);

/// Volume names derive from a cid by a short suffix, and file names end at 255 bytes.
const MAX_BYTES: usize = 200;

/// Length of a disk's cid: what a virtio-blk serial holds, and what the agent needs to look it up by.
pub const DISK_CID_BYTES: usize = 20;

impl Cid {
    /// Takes a caller's cid.
    ///
    /// # Errors
    /// Why it cannot be a cid of ours.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = if text.is_empty() {
            "a cid must not be empty"
        } else if text.len() > MAX_BYTES {
            "a cid is at most 200 bytes long"
        } else if text.starts_with('.') {
            "a cid must not start with a dot"
        } else if text.contains('/') {
            "a cid must not contain a slash"
        } else if text.chars().any(char::is_control) {
            "a cid must not contain control characters"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(wrong.to_owned())
    }

    /// A new VM's cid and the uuid in it.
    pub fn new_vm() -> (Self, uuid::Uuid) {
        let uuid = uuid::Uuid::new_v4();
        (Self(format!("vm-{uuid}")), uuid)
    }

    /// A new stemcell's cid, which is its volume's name.
    pub fn new_stemcell() -> Self {
        Self(format!("sc-{}", uuid::Uuid::new_v4()))
    }

    /// A new persistent disk's cid: exactly 20 characters and no dash, so that it can be the disk's serial on
    /// every bus.
    pub fn new_disk() -> Self {
        Self(format!("disk{}", random_lower_alphanumeric(DISK_CID_BYTES - 4)))
    }

    /// A new snapshot's cid, of the same shape as a disk's, since it can be attached as one.
    pub fn new_snapshot() -> Self {
        Self(format!("snap{}", random_lower_alphanumeric(DISK_CID_BYTES - 4)))
    }

    /// The id of a network that `create_network` makes, which is its name in libvirt.
    pub fn new_network() -> (Self, uuid::Uuid) {
        let uuid = uuid::Uuid::new_v4();
        (Self(format!("net-{uuid}")), uuid)
    }

    /// Whether this can be a network that `create_network` made. Other networks of the host are none of our business.
    pub fn names_network(&self) -> bool {
        self.0.strip_prefix("net-").is_some_and(is_uuid)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this can be a VM of ours: `vm-<uuid>`, as the seed's CPI named them too. Other domains of the host
    /// are none of our business.
    pub fn names_vm(&self) -> bool {
        self.vm_uuid().is_some()
    }

    /// The uuid in a VM's cid.
    pub fn vm_uuid(&self) -> Option<&str> {
        self.0.strip_prefix("vm-").filter(|rest| is_uuid(rest))
    }

    /// Whether this can be a persistent disk or a snapshot of ours: 20 characters, or the seed's `pdisk-<uuid>`.
    /// Other volumes of a pool are none of our business.
    pub fn names_disk(&self) -> bool {
        names_disk(&self.0)
    }

    /// Whether this can be a snapshot of ours.
    pub fn names_snapshot(&self) -> bool {
        self.names_disk() && self.0.starts_with("snap")
    }

    /// What the guest finds the disk by, on every bus: at most 20 bytes, no dash. The cid itself, but for the
    /// seed's disks, whose cid is too long.
    pub fn disk_serial(&self) -> String {
        match self.0.strip_prefix("pdisk-") {
            Some(uuid) => uuid.replace('-', "").chars().take(DISK_CID_BYTES).collect(),
            None => self.0.clone(),
        }
    }

    /// The name of a stemcell's volume: `sc-<uuid>` for a cid with or (the seed's) without `sc-` in front.
    pub fn stemcell_volume(&self) -> Option<String> {
        let uuid = self.0.strip_prefix("sc-").unwrap_or(&self.0);
        is_uuid(uuid).then(|| format!("sc-{uuid}"))
    }
}

/// Whether a volume of this name can be a persistent disk or a snapshot of ours.
pub fn names_disk(name: &str) -> bool {
    let is_ours = |prefix| {
        name.len() == DISK_CID_BYTES
            && name
                .strip_prefix(prefix)
                .is_some_and(|rest: &str| rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    };
    is_ours("disk") || is_ours("snap") || name.strip_prefix("pdisk-").is_some_and(is_uuid)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `length` characters of [0-9a-z], each equally likely: random bytes that would favour some are dropped.
fn random_lower_alphanumeric(length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        for (position, byte) in uuid::Uuid::new_v4().into_bytes().into_iter().enumerate() {
            // A version 4 uuid has fixed bits in bytes 6 and 8; 252 is the largest multiple of 36 below 256.
            if text.len() < length && position != 6 && position != 8 && byte < 252 {
                text.push(char::from(ALPHABET[usize::from(byte % 36)]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_libvirt_must_never_see() {
        for text in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/etc/passwd",
            "a\nb",
            "a\0b",
            "a\u{7f}",
            &"x".repeat(201),
        ] {
            assert!(Cid::new(text).is_err(), "{text:?} was accepted");
        }
        for text in [
            "vm-1",
            "disk0123456789abcdef",
            "a b",
            "pdisk-ö",
            "$(reboot)",
            "<a>&'\"",
        ] {
            assert_eq!(Cid::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn knows_its_own_and_the_seeds_names() {
        let uuid = "5f0bd1b5-5b3a-4b0e-9f0e-0123456789ab";
        let cid = |text: String| Cid::new(&text).unwrap();
        assert!(cid(format!("vm-{uuid}")).names_vm());
        assert!(!cid("webserver".into()).names_vm());
        assert!(!cid("vm-1".into()).names_vm());
        assert!(cid("disk0123456789abcdef".into()).names_disk());
        assert!(cid(format!("pdisk-{uuid}")).names_disk());
        for other in [
            "debian.qcow2",
            "disk0123456789abcde",
            "disk0123456789ABCDEF",
            &format!("vm-{uuid}-boot"),
        ] {
            assert!(!cid(other.to_owned()).names_disk(), "{other}");
        }
        assert_eq!(cid(format!("pdisk-{uuid}")).disk_serial(), "5f0bd1b55b3a4b0e9f0e");
        assert_eq!(
            cid("disk0123456789abcdef".into()).disk_serial(),
            "disk0123456789abcdef"
        );
        for stemcell in [format!("sc-{uuid}"), uuid.to_owned()] {
            assert_eq!(cid(stemcell).stemcell_volume().unwrap(), format!("sc-{uuid}"));
        }
        assert_eq!(cid("debian.qcow2".into()).stemcell_volume(), None);
    }

    #[test]
    fn disk_cids_fit_a_serial_and_hold_no_dash() {
        for cid in (0..200).flat_map(|_| [Cid::new_disk(), Cid::new_snapshot()]) {
            assert_eq!(cid.as_str().len(), DISK_CID_BYTES);
            assert!(
                cid.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            );
        }
    }
}

//! A volume made to see whether and when that works.

use std::time::{Duration, SystemTime};

use bosh_cpi::interrupt;
use bosh_cpi::rpc::Result;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Pool, Volume};
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, plain};

/// Bytes of a probe without content.
const SIZE: u64 = 1024 * 1024;

/// A small raw volume. It goes with the value, and by `cpi prune` if the process is killed.
pub struct Probe {
    pub volume: Volume,
    /// Our clock just before the volume was made, and just after.
    before: SystemTime,
    after: SystemTime,
}

impl Probe {
    /// # Errors
    /// `NoDiskSpace`, `CloudError`.
    pub fn new(pool: &Pool) -> Result<Self> {
        Self::made(|name| {
            let spec = VolumeSpec {
                name,
                capacity: SIZE,
                format: VolumeFormat::Raw,
                backing: None,
            };
            pool.create_volume(&plain(&spec), name)
        })
    }

    /// One with this content, in a pool that holds files.
    ///
    /// # Errors
    /// As for `new`.
    pub fn with_content(libvirt: &Connection, pool: &Pool, content: &[u8]) -> Result<Self> {
        Self::made(|name| {
            let made = pool.create_with_content(libvirt, name, content);
            if made.is_err()
                && let Ok(Some(half)) = pool.volume(name)
            {
                discard(&half);
            }
            made
        })
    }

    fn made(make: impl FnOnce(&str) -> Result<Volume>) -> Result<Self> {
        let name = VolumeName::Probe(uuid::Uuid::new_v4().to_string()).to_string();
        let before = SystemTime::now();
        Ok(Self {
            volume: make(&name)?,
            before,
            after: SystemTime::now(),
        })
    }

    /// How far the clock of who keeps the pool's files is ahead of ours (true) or behind it. None where the pool does
    /// not tell times.
    pub fn clock_difference(&self) -> Result<Option<(bool, Duration)>> {
        let Some(theirs) = self.volume.state()?.modified else {
            return Ok(None);
        };
        let ahead = theirs
            .duration_since(self.after)
            .map(|difference| (true, difference));
        let behind = self
            .before
            .duration_since(theirs)
            .map(|difference| (false, difference));
        Ok(Some(ahead.or(behind).unwrap_or((true, Duration::ZERO))))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        discard(&self.volume);
    }
}

fn discard(volume: &Volume) {
    // On Ctrl-C, too.
    let _rolling_back = interrupt::rolling_back();
    if let Err(e) = volume.delete() {
        log::warn!("volume {} is orphaned: {e}", volume.name);
    }
}

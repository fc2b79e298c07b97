//! A volume made to see whether and when that works.

use std::time::{Duration, SystemTime};

use crate::libvirt::{Pool, Volume};
use crate::rpc::Result;
use crate::xml::volume::{VolumeFormat, VolumeSpec, plain};

/// What such volumes are called; a uuid follows.
pub const PREFIX: &str = "cpi-probe-";

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
        let name = format!("{PREFIX}{}", uuid::Uuid::new_v4());
        let spec = VolumeSpec {
            name: &name,
            capacity: 1024 * 1024,
            format: VolumeFormat::Raw,
            backing: None,
        };
        let before = SystemTime::now();
        let volume = pool.create_volume(&plain(&spec), &name)?;
        Ok(Self {
            volume,
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
        if let Err(e) = self.volume.delete() {
            log::warn!("volume {} is left over: {e}", self.volume.name);
        }
    }
}

//! Pools as their storage is now: what libvirt remembers is as old as its last look.

use super::busy::when_pool_is_idle;
use super::errors::{cpi_error, means_pool_at_work};
use super::{Pool, PoolKind};
use bosh_cpi::logging;
use bosh_cpi::rpc::{Cause, Error, Result};

/// What uploads leave of a pool's room, bytes: file systems keep account of blocks in blocks.
const KEPT_FREE: u64 = 1024 * 1024;

impl Pool {
    /// Has libvirt read the pool anew: what others have put there is known only then. Waits for other jobs on the pool.
    ///
    /// # Errors
    /// `CloudError`, retryable where another job goes on for longer than a call waits.
    pub fn refresh(&self) -> Result<()> {
        let _step = logging::step(format!("refreshing pool {}", self.name));
        self.require_answers()?;
        when_pool_is_idle(|| self.pool.refresh(0)).map_err(|e| self.refresh_failed(e))
    }

    /// As `refresh`, but at once: None while another job works in the pool.
    ///
    /// # Errors
    /// As for `refresh`.
    pub fn refresh_if_idle(&self) -> Result<Option<()>> {
        self.require_answers()?;
        match self.pool.refresh(0) {
            Ok(()) => Ok(Some(())),
            Err(e) if means_pool_at_work(&e) => Ok(None),
            Err(e) => Err(self.refresh_failed(e)),
        }
    }

    /// Libvirt stops a pool that it fails to read. A Ceph that says nothing for a while is no reason for that.
    fn require_answers(&self) -> Result<()> {
        // Libvirt answers this from memory. Of an empty pool nothing can be read.
        let is_empty = || self.volumes().map(|volumes| volumes.is_empty());
        if self.kind()? != PoolKind::Rbd || is_empty()? || self.answers_reads() {
            return Ok(());
        }
        let message = format!(
            "refreshing pool {}: Ceph did not answer; see `ceph health detail`",
            self.name
        );
        Err(Error::cloud(message).because(Cause::SilentCeph))
    }

    fn refresh_failed(&self, e: virt::error::Error) -> Error {
        let at_work = means_pool_at_work(&e);
        let error = cpi_error(e);
        let error = if at_work {
            error.because(Cause::Busy)
        } else {
            error
        };
        error.during(format!("refreshing pool {}", self.name))
    }

    /// Bytes that may still be written to the pool, by what its storage says now: what libvirt remembers is as old as its
    /// last look.
    pub fn room(&self) -> Result<u64> {
        // While something is copied into the pool, libvirt does not look. What it remembers must do then.
        if let Err(e) = self.refresh_if_idle() {
            log::debug!("what libvirt remembers of pool {} must do: {e}", self.name);
        }
        let info = self
            .pool
            .info()
            .map_err(|e| cpi_error(e).during(format!("reading the free space of pool {}", self.name)))?;
        Ok(info.available.saturating_sub(KEPT_FREE))
    }
}

//! Keeps slow hosts from being swamped: lock files that are held during the heavy parts of calls.

mod lock_file;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use self::lock_file::{LockFile, holder};
use bosh_cpi::interrupt;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::{Throttle, ThrottleName};

/// How often the first call in the queue checks for a free slot, where there are several.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Held during heavy work. The kernel releases the lock when the process ends, however it ends.
pub struct ThrottleGuard(Option<LockFile>);

impl Drop for ThrottleGuard {
    fn drop(&mut self) {
        if let Some(lock) = &self.0
            && let Err(e) = lock.clear()
        {
            log::debug!("emptying the lock file: {e}");
        }
    }
}

/// Waits for the lock; returns at once when nothing is throttled.
///
/// # Errors
/// `CpiError` naming the lock file when it cannot be opened or locked; `CloudError`, ok to retry, that names the lock
/// holder and since when it holds the lock, after `throttle.timeout`.
pub fn acquire(config: &Throttle) -> Result<ThrottleGuard> {
    match config.name {
        ThrottleName::Noop => Ok(ThrottleGuard(None)),
        ThrottleName::FileLock => {
            let lock = Wait::new(config).for_slot()?;
            lock.sign().map_err(|e| failed(&config.path, &e))?;
            Ok(ThrottleGuard(Some(lock)))
        }
    }
}

/// Checks whether the lock file can be opened, as a call does. The result is the lock holder, None when it is free.
///
/// # Errors
/// `CpiError` naming the file.
pub fn probe(path: &Path) -> Result<Option<String>> {
    let lock = open(path)?;
    if lock.try_lock().map_err(|e| failed(path, &e))? {
        return Ok(None);
    }
    let holder = holder(path).unwrap_or_else(|| "an unknown process; see /proc/locks".to_owned());
    Ok(Some(format!("held by {holder}")))
}

fn open(path: &Path) -> Result<LockFile> {
    LockFile::open(path).map_err(|e| failed(path, &e))
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::cpi(format!(
        "locking throttle.path {}: {e} (set throttle.path to a regular file that the CPI's user can open)",
        path.display()
    ))
}

/// One call's waiting, which may take as long as `throttle.timeout` in all.
struct Wait<'a> {
    config: &'a Throttle,
    started: Instant,
}

impl<'a> Wait<'a> {
    fn new(config: &'a Throttle) -> Self {
        Self {
            config,
            started: Instant::now(),
        }
    }

    /// The locked file of one slot.
    fn for_slot(&self) -> Result<LockFile> {
        let path = &self.config.path;
        let _step = logging::step(format!("waiting for the lock {}", path.display()));
        if self.config.limit == 1 {
            return self.for_lock(path);
        }
        let slots = (1..=self.config.limit)
            .map(|n| self.slot(n))
            .collect::<Vec<PathBuf>>();
        // No call can wait for one of several locks at once: the first in the queue polls all of them, and the others
        // sleep until it has one.
        let _first_in_queue = self.for_lock(&suffixed(path, "queue"))?;
        loop {
            for slot in &slots {
                let lock = open(slot)?;
                let is_held = lock.try_lock().and_then(|held| Ok(held && lock.is_at(slot)?));
                if is_held.map_err(|e| failed(slot, &e))? {
                    return Ok(lock);
                }
            }
            match self.left() {
                Some(left) if left.is_zero() => return Err(self.timed_out()),
                left => {
                    interrupt::check()?;
                    thread::sleep(left.unwrap_or(POLL_INTERVAL).min(POLL_INTERVAL));
                }
            }
        }
    }

    /// The first slot is the file itself, so that calls with another limit, and older CPIs, count too.
    fn slot(&self, n: u64) -> PathBuf {
        match n {
            1 => self.config.path.clone(),
            n => suffixed(&self.config.path, &n.to_string()),
        }
    }

    /// The lock of this file, once it is free.
    fn for_lock(&self, path: &Path) -> Result<LockFile> {
        loop {
            let lock = self.for_open_lock(path, open(path)?)?;
            if lock.is_at(path).map_err(|e| failed(path, &e))? {
                return Ok(lock);
            }
        }
    }

    /// Sleeps in the kernel until this lock is free.
    fn for_open_lock(&self, path: &Path, lock: LockFile) -> Result<LockFile> {
        if lock.try_lock().map_err(|e| failed(path, &e))? {
            return Ok(lock);
        }
        let (sender, outcome) = channel();
        // The kernel has no bound for this wait. A thread that waits in vain ends with the process, soon.
        thread::Builder::new()
            .name("throttle".into())
            .spawn(move || {
                let locked = lock.lock().map(|()| lock);
                // Nobody listens any more after the timeout.
                let _ = sender.send(locked);
            })
            .map_err(|e| failed(path, &e))?;
        match interrupt::receive(&outcome, self.left())? {
            Ok(locked) => locked.map_err(|e| failed(path, &e)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(self.timed_out()),
        }
    }

    /// None: for ever.
    fn left(&self) -> Option<Duration> {
        (self.config.timeout > 0)
            .then(|| Duration::from_secs(self.config.timeout).saturating_sub(self.started.elapsed()))
    }

    fn timed_out(&self) -> Error {
        let holders: Vec<String> = (1..=self.config.limit)
            .filter_map(|n| holder(&self.slot(n)))
            .collect();
        let holders = if holders.is_empty() {
            "held by an unknown process; see /proc/locks".to_owned()
        } else {
            format!("held by {}", holders.join("; "))
        };
        Error::cloud(format!(
            "waiting for the lock {}: not released within {} s: {holders} (raise throttle.timeout or throttle.limit)",
            self.config.path.display(),
            self.config.timeout
        ))
        .retryable()
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

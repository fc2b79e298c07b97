//! Keeps slow hosts from being swamped: lock files that the heavy parts of calls are done under.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fs2::FileExt;

use crate::config::{Throttle, ThrottleName};
use crate::interrupt;
use crate::logging;
use crate::rpc::{Error, Result};

/// How often the first one in the queue looks for a free slot, where there are several.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Bytes of a lock file that an error shows. Ours are shorter.
const SHOWN_BYTES: u64 = 200;

/// Held while heavy work is done. The kernel lets go of the lock when the process ends, however it ends.
pub struct Turn(Option<File>);

impl Drop for Turn {
    fn drop(&mut self) {
        // Whoever locks the file next may be no CPI, and says nothing of itself.
        if let Some(file) = &self.0
            && let Err(e) = file.set_len(0)
        {
            log::debug!("emptying the lock file: {e}");
        }
    }
}

/// Waits for this process' turn; at once when nothing is throttled.
///
/// # Errors
/// `CpiError` naming the lock file when it cannot be opened or locked; `CloudError`, ok to retry, that says who has
/// the turn and since when, after `throttle.timeout`.
pub fn wait(config: &Throttle) -> Result<Turn> {
    match config.name {
        ThrottleName::Noop => Ok(Turn(None)),
        ThrottleName::FileLock => {
            let mut file = Wait::new(config).for_turn()?;
            sign(&mut file).map_err(|e| failed(&config.path, &e))?;
            Ok(Turn(Some(file)))
        }
    }
}

/// Looks whether the lock file can be opened, as a call does, and who has it: None when it is free.
///
/// # Errors
/// `CpiError` naming the file.
pub fn probe(path: &Path) -> Result<Option<String>> {
    let file = open(path)?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(()) => Ok(None),
        Err(e) if e.kind() == fs2::lock_contended_error().kind() => {
            let holder = holder(path).unwrap_or_else(|| "somebody who does not say who it is".to_owned());
            Ok(Some(format!("held by {holder}")))
        }
        Err(e) => Err(failed(path, &e)),
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::cpi(format!("locking throttle.path {}: {e}", path.display()))
}

/// Opened for writing, as NFS wants it for an exclusive lock; to be read by whoever waits in vain.
fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| failed(path, &e))
}

/// Says in the file who has locked it.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let now = logging::timestamp(SystemTime::now());
    let (pid, request) = (std::process::id(), logging::request_id());
    file.write_all(format!("process {pid}, request {request}, since {now}\n").as_bytes())
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
    fn for_turn(&self) -> Result<File> {
        let path = &self.config.path;
        let _step = logging::step(format!("waiting for the lock {}", path.display()));
        if self.config.limit == 1 {
            return self.for_lock(path);
        }
        let slots = (1..=self.config.limit)
            .map(|n| self.slot(n))
            .collect::<Vec<PathBuf>>();
        // No call waits for one of several locks at once: one looks at all of them in turn, and the others sleep
        // until it has one.
        let _first_in_queue = self.for_lock(&suffixed(path, "queue"))?;
        loop {
            for slot in &slots {
                let file = open(slot)?;
                match FileExt::try_lock_exclusive(&file) {
                    Ok(()) => return Ok(file),
                    Err(e) if e.kind() == fs2::lock_contended_error().kind() => {}
                    Err(e) => return Err(failed(slot, &e)),
                }
            }
            match self.left() {
                Some(left) if left.is_zero() => return Err(self.in_vain()),
                left => {
                    interrupt::check()?;
                    thread::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY));
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

    /// Sleeps in the kernel until this lock is free.
    fn for_lock(&self, path: &Path) -> Result<File> {
        let file = open(path)?;
        match FileExt::try_lock_exclusive(&file) {
            Ok(()) => return Ok(file),
            Err(e) if e.kind() == fs2::lock_contended_error().kind() => {}
            Err(e) => return Err(failed(path, &e)),
        }
        let (sender, outcome) = channel();
        // The kernel has no bound for this wait. A thread that waits in vain ends with the process, soon.
        thread::Builder::new()
            .name("throttle".into())
            .spawn(move || {
                let locked = FileExt::lock_exclusive(&file).map(|()| file);
                // Nobody listens any more after the timeout.
                let _ = sender.send(locked);
            })
            .map_err(|e| failed(path, &e))?;
        match interrupt::receive(&outcome, self.left())? {
            Ok(locked) => locked.map_err(|e| failed(path, &e)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(self.in_vain()),
        }
    }

    /// None: for ever.
    fn left(&self) -> Option<Duration> {
        (self.config.timeout > 0)
            .then(|| Duration::from_secs(self.config.timeout).saturating_sub(self.started.elapsed()))
    }

    fn in_vain(&self) -> Error {
        let holders: Vec<String> = (1..=self.config.limit)
            .filter_map(|n| holder(&self.slot(n)))
            .collect();
        let holders = if holders.is_empty() {
            "the holder has not said who it is; see /proc/locks".to_owned()
        } else {
            format!("held by {}", holders.join("; "))
        };
        Error::cloud(format!(
            "waiting for a turn to work on storage: {} was not free within {} s (throttle.timeout): {holders}",
            self.config.path.display(),
            self.config.timeout
        ))
        .retryable()
    }
}

/// What the holder of this lock says of itself.
fn holder(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(SHOWN_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    let text = logging::on_one_line(String::from_utf8_lossy(&bytes).trim());
    (!text.is_empty()).then_some(text)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

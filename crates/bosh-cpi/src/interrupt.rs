//! Signals that end the process. A call that is told to end takes no further step, rolls back and answers; whatever
//! else happens, no private key stays behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::signal::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, signal_name};

use crate::rpc::{Error, Result};

/// Signals that end a process which does nothing about them.
const ENDING: [i32; 8] = [
    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU,
];
/// Those of them that ask; a second one insists.
const ASKING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// How often a wait looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether somebody waits for an answer.
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// The signal that asked for the end, 0 while none did.
static ASKED: AtomicI32 = AtomicI32::new(0);
/// How many roll-backs are going on: their steps are taken all the same.
static ROLLING_BACK: AtomicUsize = AtomicUsize::new(0);
/// What goes with the process.
static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From here on a signal that asks for the end makes `check` fail instead of ending the process.
pub fn answer_first() {
    ANSWERING.store(true, SeqCst);
    if let Err(e) = watch() {
        log::warn!("signals end this call without roll-back: {e}");
    }
}

/// To be asked before each step that makes something, and in each wait.
///
/// # Errors
/// `CloudError` once the process was asked to end, except to steps of a roll-back.
pub fn check() -> Result<()> {
    match ASKED.load(SeqCst) {
        signal if signal != 0 && ROLLING_BACK.load(SeqCst) == 0 => Err(Error::cloud(format!(
            "interrupted by {} before it was done",
            signal_name(signal).unwrap_or("a signal")
        ))),
        _ => Ok(()),
    }
}

/// What comes through the channel within this time; for ever without one.
///
/// # Errors
/// As `check`.
pub fn receive<T>(
    from: &Receiver<T>,
    within: Option<Duration>,
) -> Result<std::result::Result<T, RecvTimeoutError>> {
    let started = Instant::now();
    loop {
        let left = within.map_or(LOOK_EVERY, |within| within.saturating_sub(started.elapsed()));
        match from.recv_timeout(left.min(LOOK_EVERY)) {
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => check()?,
            outcome => return Ok(outcome),
        }
    }
}

/// A roll-back, for as long as it lives.
pub struct RollingBack(());

/// Lets steps be taken although the process was asked to end.
pub fn rolling_back() -> RollingBack {
    ROLLING_BACK.fetch_add(1, SeqCst);
    RollingBack(())
}

impl Drop for RollingBack {
    fn drop(&mut self) {
        ROLLING_BACK.fetch_sub(1, SeqCst);
    }
}

/// Makes a directory that goes with the process, however that ends short of SIGKILL.
///
/// # Errors
/// What `make` says, and when signals cannot be watched.
pub fn with_directory<T: AsRef<Path>>(make: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    watch()?;
    // Held until the directory is known: a signal must not come between making it and knowing of it.
    let mut known = DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = make()?;
    *known = Some(directory.as_ref().to_owned());
    Ok(directory)
}

/// The directory is gone.
pub fn forget_directory() {
    *DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn watch() -> std::io::Result<()> {
    static INSTALLED: Once = Once::new();
    if INSTALLED.is_completed() {
        return Ok(());
    }
    // The thread comes first: a signal that is caught, and has nobody to look at it, would end nothing any more.
    let (sender, caught) = channel();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || match catch_signals() {
            Ok(signals) => {
                // Whoever started this thread waits for it.
                let _ = sender.send(Ok(()));
                act_on(signals);
            }
            Err(e) => {
                let _ = sender.send(Err(e));
            }
        })?;
    caught.recv().map_err(std::io::Error::other)??;
    INSTALLED.call_once(|| {});
    Ok(())
}

fn catch_signals() -> std::io::Result<Signals> {
    let ignored = ignored_signals();
    Signals::new(ENDING.iter().filter(|signal| ignored & (1 << (*signal - 1)) == 0))
}

fn act_on(mut signals: Signals) {
    for signal in signals.forever() {
        if ASKING.contains(&signal) && ANSWERING.load(SeqCst) && ASKED.swap(signal, SeqCst) == 0 {
            log::info!("{}: rolling back", signal_name(signal).unwrap_or("a signal"));
        } else {
            end(signal);
        }
    }
}

/// The process ends by the signal, as whoever sent it expects.
fn end(signal: i32) {
    let directory = DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = directory.as_deref()
        && let Err(e) = fs::remove_dir_all(path)
    {
        log::warn!("removing {}: {e}", path.display());
    }
    // Fails for signals that cannot be emulated, which are not among ours.
    let _ = emulate_default_handler(signal);
}

/// Signals that our caller has us ignore, as `nohup` does with SIGHUP, one bit each: they must not end us now.
fn ignored_signals() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        })
        .unwrap_or(0)
}

//! How far something long has come: a bar for people on a terminal, a log line every few seconds for everybody else.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::measures::{size, span};

/// How often a bar is drawn, and how often a line is logged.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Columns of the bar itself, and of all beside it: rates and times have at most so many.
const BAR: usize = 20;
const NUMBERS: usize = 34;
const DEFAULT_WIDTH: usize = 80;

/// Whether a bar stands on the terminal's last line.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// To be called before a log line is written: it must not stand behind a bar.
pub fn make_room() {
    if DRAWN.swap(false, SeqCst) {
        erase();
    }
}

fn erase() {
    // Nobody is left to tell when stderr is closed.
    let _ = std::io::stderr().write_all(b"\r\x1b[K");
}

/// The progress of one thing, from when it is made until it is dropped.
pub struct Progress {
    what: String,
    /// Bytes in all; 0 when nobody knows.
    total: u64,
    started: Instant,
    shown: Mutex<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        let now = Instant::now();
        Self {
            what: what.into(),
            total,
            started: now,
            shown: Mutex::new(now),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// So many bytes are done; shows it if that has not just been done. Any number of times, from any thread.
    pub fn at(&self, done: u64) {
        let every = if self.is_terminal { DRAW_EVERY } else { LOG_EVERY };
        // Another thread is at it.
        let Ok(mut shown) = self.shown.try_lock() else {
            return;
        };
        if shown.elapsed() < every {
            return;
        }
        *shown = Instant::now();
        let numbers = numbers(done, self.total, self.started.elapsed());
        if self.is_terminal {
            let width = terminal_width(&std::io::stderr()).unwrap_or(DEFAULT_WIDTH);
            let line = bar_line(&self.what, &numbers, done, self.total, width);
            DRAWN.store(true, SeqCst);
            let _ = std::io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
        } else {
            log::info!("{}: {numbers}", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        make_room();
    }
}

/// Columns of the terminal that this is; None for what is no terminal, or does not know.
pub fn terminal_width(output: &(impl AsFd + IsTerminal)) -> Option<usize> {
    let size = output
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(output))?
        .ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// `512M of 3G, 120M/s, 20s left`.
fn numbers(done: u64, total: u64, elapsed: Duration) -> String {
    let rate = u64::try_from(u128::from(done) * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
    let mut text = size(done);
    if total > 0 {
        text.push_str(&format!(" of {}", size(total)));
    }
    text.push_str(&format!(", {}/s", size(rate)));
    let left = total.saturating_sub(done);
    if left > 0 && rate > 0 {
        text.push_str(&format!(
            ", {} left",
            span(Duration::from_secs(left.div_ceil(rate)))
        ));
    }
    text
}

/// One column less than there are, so that no terminal begins another line.
fn bar_line(what: &str, numbers: &str, done: u64, total: u64, width: usize) -> String {
    let filled =
        usize::try_from(u128::from(done.min(total)) * BAR as u128 / u128::from(total.max(1))).unwrap_or(0);
    let bar = match total {
        0 => String::new(),
        _ => format!("[{}{}] ", "#".repeat(filled), " ".repeat(BAR - filled)),
    };
    let room = width.saturating_sub(bar.len() + NUMBERS + 2);
    let what: String = if what.chars().count() <= room {
        what.to_owned()
    } else {
        what.chars().take(room.saturating_sub(1)).chain(['…']).collect()
    };
    let line = format!("{what} {bar}{numbers}");
    line.chars().take(width.saturating_sub(1)).collect()
}

/// A file, or whatever is read from its beginning to its end, that tells how far it was read.
pub struct Reading<R> {
    source: R,
    done: u64,
    progress: Progress,
}

impl<R: Read> Reading<R> {
    pub fn new(source: R, progress: Progress) -> Self {
        Self {
            source,
            done: 0,
            progress,
        }
    }
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(into)?;
        self.done += read as u64;
        self.progress.at(self.done);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left() {
        for (done, total, milliseconds, expected) in [
            (0, 1 << 30, 0, "0 of 1G, 0/s"),
            (256 << 20, 1 << 30, 2000, "256M of 1G, 128M/s, 6s left"),
            (1 << 30, 1 << 30, 8000, "1G of 1G, 128M/s"),
            (5 << 20, 0, 1000, "5M, 5M/s"),
            (1, u64::MAX, 1000, "1 of 16383P, 1/s, 213503982334601d left"),
        ] {
            assert_eq!(
                numbers(done, total, Duration::from_millis(milliseconds)),
                expected
            );
        }
    }

    #[test]
    fn a_bar_never_fills_the_line() {
        let numbers = "256M of 1G, 128M/s, 6s left";
        assert_eq!(
            bar_line("copying", numbers, 256, 1024, 80),
            "copying [#####               ] 256M of 1G, 128M/s, 6s left"
        );
        for width in [10, 40, 79, 80, 200] {
            for (done, total) in [(0, 0), (5, 10), (10, 10), (11, 10)] {
                let line = bar_line(&"long ".repeat(30), numbers, done, total, width);
                assert!(line.chars().count() < width, "{line}");
            }
        }
    }
}

//! Log lines on stderr, each with the request's id; the Director copies them to the task's CPI log.

use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::progress;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::FileType;

/// What the response's `log` holds of a call at most, where nobody reads stderr, bytes; the newest lines win.
const KEPT_BYTES: usize = 64 * 1024;

struct Logger {
    request_id: OnceLock<String>,
    kept: Mutex<String>,
}

static LOGGER: Logger = Logger {
    request_id: OnceLock::new(),
    kept: Mutex::new(String::new()),
};

/// Installs the logger; until `set_level` says otherwise everything up to INFO is written.
pub fn init() {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Puts this id on every line from now on.
pub fn set_request_id(id: &str) {
    // Only the first id counts: one process, one request.
    let _ = LOGGER.request_id.set(on_one_line(id));
}

/// The id that is put on every line, `-` when there is none.
pub fn request_id() -> &'static str {
    LOGGER
        .request_id
        .get()
        .map_or("-", |id| if id.is_empty() { "-" } else { id })
}

/// What was logged so far, for the response of a failed call, where nobody reads stderr; else nothing. The Director puts
/// both into the same log of its task.
pub fn unread_lines() -> String {
    if is_read() {
        return String::new();
    }
    LOGGER.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether somebody may keep what is logged: stderr does not lead to `/dev/null`, where it also leads when it was closed.
fn is_read() -> bool {
    let (stderr, nowhere) = (
        rustix::fs::fstat(rustix::stdio::stderr()),
        rustix::fs::stat("/dev/null"),
    );
    match (stderr, nowhere) {
        (Ok(stderr), Ok(nowhere)) => {
            let is_device = FileType::from_raw_mode(stderr.st_mode) == FileType::CharacterDevice;
            !is_device || stderr.st_rdev != nowhere.st_rdev
        }
        (stderr, _) => stderr.is_ok(),
    }
}

/// Logs at INFO what a step was and how long it took, when the value is dropped.
pub struct Step {
    what: String,
    started: Instant,
}

/// Starts the clock for one step of a call.
pub fn step(what: impl Into<String>) -> Step {
    let step = Step {
        what: what.into(),
        started: Instant::now(),
    };
    log::debug!("{} ...", step.what);
    step
}

impl Drop for Step {
    fn drop(&mut self) {
        log::info!("{} ({} ms)", self.what, self.started.elapsed().as_millis());
    }
}

/// The crates of this project. `tests/architecture.rs` holds that none is missing.
pub const CRATES: [&str; 7] = [
    "agent_drive",
    "bosh_cpi",
    "cpi_config",
    "libvirt_bosh_cpi",
    "libvirt_host",
    "libvirt_xml",
    "stemcell_image",
];

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Template engine and others log through the same facade; only our own lines are meant for operators.
        let krate = metadata.target().split("::").next().unwrap_or_default();
        CRATES.contains(&krate) && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!(
            "{} {:5} [{}] {}\n",
            timestamp(SystemTime::now()),
            record.level(),
            request_id(),
            on_one_line(&record.args().to_string())
        );
        progress::make_room();
        // Nobody is left to tell when stderr is closed.
        let _ = std::io::stderr().write_all(line.as_bytes());
        if record.level() <= Level::Info {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_str(&line);
            if kept.len() > KEPT_BYTES {
                let surplus = kept.len() - KEPT_BYTES;
                let cut = kept[surplus..]
                    .find('\n')
                    .map_or(kept.len(), |end| surplus + end + 1);
                kept.drain(..cut);
            }
        }
    }

    fn flush(&self) {}
}

/// A caller's text must not be able to fake a log line, by its end or by turning around what is read.
pub fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || ends_or_turns_a_line(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Unicode's own line ends, and what changes the direction of writing.
fn ends_or_turns_a_line(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// UTC in RFC 3339 with milliseconds.
pub fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date by Howard Hinnant's civil_from_days, for days since 1970 only; years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn no_text_makes_a_second_line() {
        assert_eq!(on_one_line("a\nb\r\u{1b}[1m"), "a\\nb\\r\\u{1b}[1m");
        assert_eq!(on_one_line("a\u{2028}b\u{202e}c"), "a\\u{2028}b\\u{202e}c");
    }
}

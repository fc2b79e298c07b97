//! Sizes and times as people read them.

use std::time::{Duration, SystemTime};

const KIB: u64 = 1024;

/// Bytes with one letter for the power of 1024: `512M`, `1.5G`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    for unit in ["", "K", "M", "G", "T", "P"] {
        // The first decimal only where it says something.
        let tenths = rest * 10 / KIB;
        if value < KIB || unit == "P" {
            return match (value, tenths, unit) {
                (_, 0, _) | (_, _, "") | (10.., _, _) => format!("{value}{unit}"),
                _ => format!("{value}.{tenths}{unit}"),
            };
        }
        (value, rest) = (value / KIB, value % KIB);
    }
    unreachable!("the last unit returns")
}

/// How long ago, in the largest unit that is not 0: `45s`, `12m`, `3h`, `40d`; `-` when nobody knows.
pub fn age(of: Option<SystemTime>) -> String {
    of.map_or_else(|| "-".to_owned(), |time| span(time.elapsed().unwrap_or_default()))
}

pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans() {
        for (bytes, expected) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1536, "1.5K"),
            (10 * 1024 + 900, "10K"),
            (3 << 20, "3M"),
            ((3 << 30) + (512 << 20), "3.5G"),
            (5 << 40, "5T"),
            (u64::MAX, "16383P"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (90_000, "1d")] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}

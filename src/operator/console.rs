//! `cpi console VM`: what the guest wrote to its serial console, the first thing one wants to see when the agent does
//! not answer.

use std::io::IsTerminal;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::print_while_read;
use super::show::console_log;
use crate::vm;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::Connection;

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub fn run(vm: &str, follow: bool, lines: Option<usize>, config: &Config) -> Result<()> {
    let cid = Cid::new(vm).map_err(Error::cpi)?;
    let libvirt = Connection::open(&config.libvirt)?;
    let domain = vm::get(&libvirt, &cid)?;
    let xml = domain.xml()?;
    let Some(path) = console_log(&xml) else {
        if follow {
            return domain.follow_console(&libvirt, out);
        }
        return Err(Error::cpi(format!(
            "the console of VM {cid} has no log: it was made without settings.console_log_dir; \
             `cpi console --follow {cid}` shows what it writes from now on"
        )));
    };
    let path = Path::new(path);
    let Some(log) = libvirt.read_file(path, 0)? else {
        return Err(Error::cpi(format!(
            "the console log of VM {cid} is {} on {}, but there is no such file",
            path.display(),
            libvirt.uri
        )));
    };
    let is_read = out(lines.map_or(&log[..], |lines| last_lines(&log, lines)))?;
    if follow && is_read {
        follow_log(&libvirt, &cid, path, log.len() as u64)?;
    }
    Ok(())
}

/// Prints what is added to the log, for as long as the VM is there.
fn follow_log(libvirt: &Connection, cid: &Cid, path: &Path, mut offset: u64) -> Result<()> {
    loop {
        sleep(LOOK_EVERY);
        let gone = match vm::get(libvirt, cid) {
            Err(e) if e.error_type == ErrorType::VmNotFound => true,
            domain => domain.map(|_| false)?,
        };
        // The log's end, where nothing has been added: what is there before it tells whether it was begun anew.
        let from = offset.saturating_sub(1);
        match libvirt.read_file(path, from)? {
            Some(added) if !added.is_empty() || offset == 0 => {
                let seen = usize::try_from(offset - from).unwrap_or(0);
                if !out(&added[seen..])? {
                    return Ok(());
                }
                offset = from + added.len() as u64;
            }
            // Shorter than it was: libvirt has put the full log aside and begun another.
            Some(_) => offset = 0,
            None => {}
        }
        if gone {
            return Ok(());
        }
    }
}

fn last_lines(log: &[u8], lines: usize) -> &[u8] {
    let ends = log.strip_suffix(b"\n").unwrap_or(log);
    let mut newlines = ends.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => newlines.nth(before).map_or(log, |(at, _)| &log[at + 1..]),
    }
}

/// On a terminal, a guest gets no say but in letters and line breaks. Returns whether it is still being read.
fn out(bytes: &[u8]) -> Result<bool> {
    if !std::io::stdout().is_terminal() {
        return print_while_read(bytes);
    }
    print_while_read(&harmless(bytes))
}

fn harmless(bytes: &[u8]) -> Vec<u8> {
    // Without the escape character, sequences are but text; C1 controls are two bytes in UTF-8, the first of them this.
    let is_harmful = |byte: u8| (byte < b' ' && !matches!(byte, b'\n' | b'\r' | b'\t')) || byte == 0x7f;
    let text = String::from_utf8_lossy(bytes);
    let plain: String = text
        .chars()
        .map(|c| match u8::try_from(c) {
            Ok(byte) if is_harmful(byte) => '·',
            _ if c.is_control() && !c.is_ascii() => '·',
            _ => c,
        })
        .collect();
    plain.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        let log = b"one\ntwo\nthree\n";
        for (lines, expected) in [
            (0, &b""[..]),
            (1, b"three\n"),
            (2, b"two\nthree\n"),
            (3, log),
            (9, log),
        ] {
            assert_eq!(last_lines(log, lines), expected, "{lines}");
        }
        assert_eq!(last_lines(b"one\ntw", 1), b"tw");
        assert_eq!(last_lines(b"", 5), b"");
    }

    #[test]
    fn guests_do_not_steer_terminals() {
        let said = "a\tb\r\n\u{1b}]0;title\u{7}\u{9b}31m ü".as_bytes();
        assert_eq!(harmless(said), "a\tb\r\n·]0;title··31m ü".as_bytes());
    }
}

//! The booted guest: what it says on its console, and what it answers to shell commands over the network.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Sandbox, wait_for};

/// Booting under emulation, with a machine full of other guests that boot too.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);

impl Sandbox {
    /// Waits until the guest has said this on its console, `times` times.
    #[track_caller]
    pub fn wait_for_console(&self, vm: &str, text: &str, times: usize) {
        let what = format!("{text:?} on the console of {vm}");
        wait_for(&what, BOOT_LIMIT, || {
            self.console(vm).matches(text).count() >= times
        });
    }

    /// Waits until the guest is up for the n-th time.
    #[track_caller]
    pub fn wait_until_ready(&self, vm: &str, times: usize) {
        self.wait_for_console(vm, "GUEST: ready", times);
    }

    /// The settings as the guest read them at its last boot.
    #[track_caller]
    pub fn settings_seen_by(&self, vm: &str) -> Value {
        self.wait_for_console(vm, "GUEST: settings {", 1);
        let console = self.console(vm);
        let line = console
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("GUEST: settings {"))
            .unwrap();
        serde_json::from_str(&format!("{{{}", line.trim_end())).unwrap()
    }
}

/// Runs shell commands in the guest at this address and returns what they print.
#[track_caller]
pub fn shell(address: &str, commands: &str) -> String {
    let address: SocketAddr = if address.contains(':') {
        format!("[{address}]:7000").parse().unwrap()
    } else {
        format!("{address}:7000").parse().unwrap()
    };
    let limit = Duration::from_secs(60);
    let mut stream =
        TcpStream::connect_timeout(&address, limit).unwrap_or_else(|e| panic!("guest {address}: {e}"));
    stream.set_read_timeout(Some(limit)).unwrap();
    writeln!(stream, "{commands}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut output = String::new();
    stream.read_to_string(&mut output).unwrap();
    output
}

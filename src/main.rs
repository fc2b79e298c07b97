//! `cpi`: one BOSH CPI call per process, JSON on stdin, JSON on stdout; with a command, what an operator asks for.

use std::io::Write;

fn main() {
    libvirt_bosh_cpi::become_client_if_asked();
    let status = libvirt_bosh_cpi::run(&libvirt_bosh_cpi::cli::parse());
    // Nobody is left to tell when stdout is closed.
    let _ = std::io::stdout().flush();
    // Past the exit handlers: OpenSSL's take away what libvirt's event loop still uses to close an SSH connection.
    // One call in eight was killed by SIGSEGV that way, after its response, and the bosh CLI takes that for a failure.
    signal_hook::low_level::exit(status);
}

//! `cpi --version --verbose`: this executable, the client library that it has loaded, and the SSH client.

use std::fmt::Write as _;

use libvirt_host::{Library, ssh_client};

/// What is printed.
pub fn text(verbose: bool) -> String {
    let mut text = concat!("cpi ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    if verbose {
        match Library::loaded() {
            Ok(library) => {
                let _ = writeln!(
                    text,
                    "libvirt client {} ({})",
                    library.version(),
                    library.path.display()
                );
                for (name, version) in library.parts {
                    let _ = writeln!(text, "  {name} {version}");
                }
            }
            Err(e) => {
                let _ = writeln!(text, "libvirt client: unknown: {e}");
            }
        }
        let ssh = ssh_client().unwrap_or_else(|e| format!("none in PATH: {e}"));
        let _ = writeln!(text, "ssh client {ssh}");
    }
    text
}

//! Certificates and keys that the configuration brings as text, and libvirt reads from files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::ssh;
use bosh_cpi::interrupt;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::{Libvirt, LibvirtType};

/// Directories of this name under TMPDIR hold private keys of calls that are just connecting, or were killed.
pub const PRIVATE_DIRECTORY_PREFIX: &str = "libvirt-bosh-cpi-pki-";

/// A directory that only this user can enter. It goes when the value is dropped, or with the process, however that
/// ends short of SIGKILL.
pub(super) struct PrivateFiles(TempDir);

impl PrivateFiles {
    /// Writes what the configuration brings for its kind of connection; None when that is nothing.
    ///
    /// # Errors
    /// `CpiError` when TMPDIR takes no files.
    pub fn write(config: &Libvirt) -> Result<Option<Self>> {
        let over_ssh = config.libvirt_type == LibvirtType::Ssh;
        let files = match config.libvirt_type {
            LibvirtType::Tls => vec![
                ("cacert.pem", config.server_ca.certificate.clone()),
                ("clientcert.pem", config.client.certificate.clone()),
                ("clientkey.pem", config.client.private_key.expose().to_owned()),
            ],
            LibvirtType::Ssh => vec![
                (ssh::KEY, with_final_newline(config.ssh.private_key.expose())),
                (ssh::KNOWN_HOSTS, ssh::known_hosts(config)),
            ],
            LibvirtType::Socket | LibvirtType::Tcp | LibvirtType::Uri => return Ok(None),
        };
        if !config.uri.is_empty() || !over_ssh && files.iter().all(|(_, text)| text.is_empty()) {
            return Ok(None);
        }
        let failed = |e: std::io::Error| {
            Error::cpi(format!(
                "writing certificates and keys to a directory in TMPDIR: {e}"
            ))
        };
        let directory = interrupt::with_directory(|| {
            tempfile::Builder::new()
                .prefix(PRIVATE_DIRECTORY_PREFIX)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir()
        })
        .map_err(failed)?;
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        };
        for (name, text) in files.iter().filter(|(_, text)| !text.is_empty()) {
            write(name, text).map_err(failed)?;
        }
        if over_ssh {
            ssh::configuration(config, directory.path())
                .and_then(|text| write(ssh::CONFIGURATION, &text))
                .and_then(|()| ssh::link(directory.path()))
                .map_err(failed)?;
        }
        Ok(Some(Self(directory)))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for PrivateFiles {
    fn drop(&mut self) {
        // The directory itself goes with the field.
        interrupt::forget_directory();
    }
}

/// OpenSSH's format has one, and its readers insist.
fn with_final_newline(text: &str) -> String {
    match text.trim_end() {
        "" => String::new(),
        text => format!("{text}\n"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::uri;
    use cpi_config::Config;
    use serde_json::{Map, json};

    /// The `libvirt` part of a configuration.
    pub fn libvirt(value: serde_json::Value) -> Libvirt {
        Config::from_value("test", json!({ "libvirt": value }), &Map::new())
            .unwrap()
            .libvirt
    }

    #[test]
    fn files_are_private_and_go_with_the_guard() {
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        let config = libvirt(json!({"type": "tls", "host": "h",
            "client": {"certificate": pem("CERTIFICATE"), "private_key": pem("PRIVATE KEY")},
            "server_ca": {"certificate": pem("CERTIFICATE")}}));
        let guard = PrivateFiles::write(&config).unwrap().unwrap();
        let path = guard.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let key = path.join("clientkey.pem");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(key).unwrap(), pem("PRIVATE KEY"));
        assert_eq!(
            uri::of(&config, Some(&path)),
            format!("qemu+tls://h/system?pkipath={}", path.display())
        );
        drop(guard);
        assert!(!path.exists());
        assert!(PrivateFiles::write(&libvirt(json!({}))).unwrap().is_none());
    }
}

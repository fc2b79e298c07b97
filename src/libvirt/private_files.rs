//! Certificates and keys that the configuration brings as text, and libvirt reads from files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::uri::known_hosts_name;
use crate::config::{Libvirt, LibvirtType};
use crate::interrupt;
use crate::rpc::{Error, Result};

/// Directories of this name under TMPDIR hold private keys of calls that are just connecting, or were killed.
pub const PRIVATE_DIRECTORY_PREFIX: &str = "libvirt-bosh-cpi-pki-";

/// The client's private key for SSH, within the directory.
pub(super) const SSH_KEY: &str = "ssh_key";
/// The keys that the host may identify itself with for SSH, within the directory.
pub(super) const SSH_KNOWN_HOSTS: &str = "ssh_known_hosts";

/// A directory that only this user can enter. It goes when the value is dropped, or with the process, however that
/// ends short of SIGKILL.
pub(super) struct PrivateFiles(TempDir);

impl PrivateFiles {
    /// Writes what the configuration brings for its kind of connection; None when that is nothing.
    ///
    /// # Errors
    /// `CpiError` when TMPDIR takes no files.
    pub fn write(config: &Libvirt) -> Result<Option<Self>> {
        let files = match config.libvirt_type {
            LibvirtType::Tls => vec![
                ("cacert.pem", config.server_ca.certificate.clone()),
                ("clientcert.pem", config.client.certificate.clone()),
                ("clientkey.pem", config.client.private_key.expose().to_owned()),
            ],
            LibvirtType::Ssh => vec![
                (SSH_KEY, with_final_newline(config.ssh.private_key.expose())),
                (SSH_KNOWN_HOSTS, known_hosts(config)),
            ],
            LibvirtType::Socket | LibvirtType::Tcp | LibvirtType::Uri => return Ok(None),
        };
        if !config.uri.is_empty() || files.iter().all(|(_, text)| text.is_empty()) {
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
        for (name, text) in files.iter().filter(|(_, text)| !text.is_empty()) {
            let path = directory.path().join(name);
            fs::write(&path, text).map_err(failed)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
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

/// `libvirt.ssh.host_key` as a known_hosts file: a bare key, as ssh-keyscan's last two columns, gets the host's name.
fn known_hosts(config: &Libvirt) -> String {
    let host = known_hosts_name(config);
    config
        .ssh
        .host_key
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            if ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .any(|kind| line.starts_with(kind))
            {
                format!("{host} {line}\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Config;
    use crate::libvirt::uri;
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

    #[test]
    fn bare_host_keys_get_the_name_of_the_host() {
        for (config, expected) in [
            (
                json!({"host": "h", "ssh": {"host_key": "ssh-ed25519 AAAA\n\n# c\nother ssh-rsa BBBB"}}),
                "h ssh-ed25519 AAAA\nother ssh-rsa BBBB\n",
            ),
            (
                json!({"host": "fd00::1", "port": 2222, "ssh": {"host_key": "ecdsa-sha2-nistp256 AAAA"}}),
                "[fd00::1]:2222 ecdsa-sha2-nistp256 AAAA\n",
            ),
        ] {
            let mut config = config;
            config["type"] = json!("ssh");
            assert_eq!(known_hosts(&libvirt(config)), expected);
        }
    }
}

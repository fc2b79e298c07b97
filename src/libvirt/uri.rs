//! Connection URIs, and the certificates that a TLS connection reads from a directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::config::{Libvirt, LibvirtType};
use crate::rpc::{Error, Result};

/// Directories of this name under TMPDIR hold private keys of calls that run, or were killed.
pub const CERTIFICATE_DIRECTORY_PREFIX: &str = "libvirt-bosh-cpi-pki-";

/// The URI to open: `libvirt.uri` as it is, or one made from the other `libvirt` keys.
pub fn of(config: &Libvirt, certificates: Option<&Path>) -> String {
    if !config.uri.is_empty() {
        return config.uri.clone();
    }
    let mut parameters: Vec<(&str, String)> = Vec::new();
    let (transport, remote) = match config.libvirt_type {
        LibvirtType::Socket | LibvirtType::Uri => {
            if config.socket.is_empty() {
                return "qemu:///system".to_owned();
            }
            parameters.push(("socket", config.socket.clone()));
            ("unix", false)
        }
        LibvirtType::Tcp => ("tcp", true),
        LibvirtType::Tls => ("tls", true),
        LibvirtType::Ssh => {
            parameters.push(("no_tty", "1".to_owned()));
            ("ssh", true)
        }
    };
    if let Some(directory) = certificates {
        parameters.push(("pkipath", directory.display().to_string()));
    }
    let authority = if remote { authority(config) } else { String::new() };
    let query: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", percent_encode(value)))
        .collect();
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{}", query.join("&"))
    };
    format!("qemu+{transport}://{authority}/system{query}")
}

fn authority(config: &Libvirt) -> String {
    let user = if config.username.is_empty() || config.libvirt_type != LibvirtType::Ssh {
        String::new()
    } else {
        format!("{}@", percent_encode(&config.username))
    };
    // An IPv6 address has colons of its own.
    let host = if config.host.contains(':') && !config.host.starts_with('[') {
        format!("[{}]", config.host)
    } else {
        config.host.clone()
    };
    let port = if config.port.is_empty() {
        String::new()
    } else {
        format!(":{}", config.port)
    };
    format!("{user}{host}{port}")
}

/// The URI as messages show it: parameters may name keys, or hold whatever an operator put there.
pub fn without_parameters(uri: &str) -> &str {
    uri.split('?').next().unwrap_or(uri)
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Writes the PEM texts of the configuration where libvirt looks for them, readable by this user only. The
/// directory goes when the returned guard does. None when the configuration brings no certificates.
pub fn write_certificates(config: &Libvirt) -> Result<Option<TempDir>> {
    let files = [
        ("cacert.pem", config.server_ca.certificate.as_str()),
        ("clientcert.pem", config.client.certificate.as_str()),
        ("clientkey.pem", config.client.private_key.expose()),
    ];
    if config.libvirt_type != LibvirtType::Tls || files.iter().all(|(_, text)| text.is_empty()) {
        return Ok(None);
    }
    let failed = |e: std::io::Error| {
        Error::cpi(format!(
            "writing the TLS certificates to a directory in TMPDIR: {e}"
        ))
    };
    let directory = tempfile::Builder::new()
        .prefix(CERTIFICATE_DIRECTORY_PREFIX)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(failed)?;
    for (name, text) in files.iter().filter(|(_, text)| !text.is_empty()) {
        fs::write(directory.path().join(name), text).map_err(failed)?;
    }
    Ok(Some(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::{Map, json};

    fn libvirt(value: serde_json::Value) -> Libvirt {
        Config::from_value("test", json!({ "libvirt": value }), &Map::new())
            .unwrap()
            .libvirt
    }

    #[test]
    fn every_transport_has_its_uri() {
        for (config, expected) in [
            (json!({}), "qemu:///system"),
            (
                json!({"socket": "/run/my sock"}),
                "qemu+unix:///system?socket=/run/my%20sock",
            ),
            (
                json!({"type": "tcp", "host": "h", "port": "16509"}),
                "qemu+tcp://h:16509/system",
            ),
            (
                json!({"type": "tcp", "host": "fd00::1", "port": 16509}),
                "qemu+tcp://[fd00::1]:16509/system",
            ),
            (json!({"type": "tls", "host": "h"}), "qemu+tls://h/system"),
            (
                json!({"type": "ssh", "host": "h", "username": "me"}),
                "qemu+ssh://me@h/system?no_tty=1",
            ),
            (
                json!({"type": "tcp", "host": "h", "uri": "test:///default"}),
                "test:///default",
            ),
        ] {
            assert_eq!(of(&libvirt(config), None), expected);
        }
    }

    #[test]
    fn certificates_are_private_and_go_with_the_guard() {
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        let config = libvirt(json!({"type": "tls", "host": "h",
            "client": {"certificate": pem("CERTIFICATE"), "private_key": pem("PRIVATE KEY")},
            "server_ca": {"certificate": pem("CERTIFICATE")}}));
        let guard = write_certificates(&config).unwrap().unwrap();
        let path = guard.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            fs::read_to_string(path.join("clientkey.pem")).unwrap(),
            pem("PRIVATE KEY")
        );
        assert_eq!(
            of(&config, Some(&path)),
            format!("qemu+tls://h/system?pkipath={}", path.display())
        );
        drop(guard);
        assert!(!path.exists());
    }
}

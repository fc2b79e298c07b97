//! Connection URIs.

use std::path::Path;

use super::ssh;
use cpi_config::{Libvirt, LibvirtType};

/// The URI to open: `libvirt.uri` as it is, or one made from the other `libvirt` keys and the directory that their
/// certificates and keys were written to.
pub fn of(config: &Libvirt, private: Option<&Path>) -> String {
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
            if let Some(directory) = private {
                let program = directory.join(ssh::PROGRAM).display().to_string();
                parameters.push(("command", program));
            }
            parameters.push(("no_tty", "1".to_owned()));
            ("ssh", true)
        }
    };
    if let (LibvirtType::Tls, Some(directory)) = (config.libvirt_type, private) {
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

/// The host as a known_hosts file names it.
pub fn known_hosts_name(config: &Libvirt) -> String {
    let host = config.host.trim_start_matches('[').trim_end_matches(']');
    match config.port.as_str() {
        "" | "22" => host.to_owned(),
        port => format!("[{host}]:{port}"),
    }
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

/// Whether libvirtd is reached by a socket of this machine, so that most likely it runs here.
pub fn is_local(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return false;
    };
    let over_socket = !scheme.contains('+') || scheme.ends_with("+unix");
    over_socket && rest.starts_with('/')
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_files::tests::libvirt;
    use serde_json::json;

    #[test]
    fn sockets_of_this_machine_are_local() {
        for (uri, local) in [
            ("qemu:///system", true),
            ("qemu+unix:///system", true),
            ("qemu+tcp://h/system", false),
            ("qemu+ssh:///system", false),
            ("qemu://h/system", false),
            ("qemu", false),
        ] {
            assert_eq!(is_local(uri), local, "{uri}");
        }
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
}

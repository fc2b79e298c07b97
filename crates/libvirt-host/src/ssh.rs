//! The OpenSSH client, which libvirt's `ssh` transport runs. Libvirt passes host, port and user; all else is in a
//! configuration file in the private directory, which is all that the client reads.
//!
//! Libvirt runs the file that the URI names as `command`: a symbolic link `ssh` in the private directory to this
//! executable, which becomes the real client. Why not a script there: a stemcell mounts /tmp with `noexec`.

use std::env::vars_os;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal, setsid};

use super::uri::known_hosts_name;
use cpi_config::Libvirt;

/// Within the private directory: what libvirt runs.
pub(super) const PROGRAM: &str = "ssh";
/// Within the private directory: the client's configuration.
pub(super) const CONFIGURATION: &str = "ssh_config";
/// Within the private directory: the private key.
pub(super) const KEY: &str = "ssh_key";
/// Within the private directory: the host keys that are accepted.
pub(super) const KNOWN_HOSTS: &str = "ssh_known_hosts";

/// What the client gets of the environment: no agent, no prompt, no other configuration.
const ENVIRONMENT: [&str; 2] = ["HOME", "PATH"];

/// Puts the link into the private directory.
pub(super) fn link(directory: &Path) -> io::Result<()> {
    symlink("/proc/self/exe", directory.join(PROGRAM))
}

/// The client's configuration, which holds for jump hosts, too.
///
/// # Errors
/// `InvalidInput` for a directory whose name cannot be written in such a file.
pub(super) fn configuration(config: &Libvirt, directory: &Path) -> io::Result<String> {
    let mut text = String::from(
        "BatchMode yes\nStrictHostKeyChecking yes\nUpdateHostKeys no\nIdentityAgent none\n\
         PreferredAuthentications publickey\nLogLevel ERROR\n",
    );
    if config.username.is_empty() {
        text.push_str("User root\n");
    }
    if !config.ssh.private_key.is_empty() {
        let _ = writeln!(text, "IdentityFile {}", quoted(&directory.join(KEY))?);
        text.push_str("IdentitiesOnly yes\n");
    }
    if !config.ssh.host_key.is_empty() {
        text.push_str("GlobalKnownHostsFile /dev/null\n");
        let _ = writeln!(
            text,
            "UserKnownHostsFile {}",
            quoted(&directory.join(KNOWN_HOSTS))?
        );
    }
    if !config.ssh.jump_host.is_empty() {
        // For this host only: the jump host's client reads the same file.
        let host = config.host.trim_start_matches('[').trim_end_matches(']');
        let _ = writeln!(text, "Host {host}\nProxyJump {}", config.ssh.jump_host);
    }
    Ok(text)
}

/// A path as ssh_config(5) reads it: in quotes, `%` doubled.
fn quoted(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '$', '\n']) => {
            Ok(format!("\"{}\"", text.replace('%', "%%")))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "its name has characters that ssh_config cannot hold; set TMPDIR to another directory",
        )),
    }
}

/// `libvirt.ssh.host_key` as a known_hosts file: a bare key, as ssh-keyscan's last two columns, gets the host's name.
pub(super) fn known_hosts(config: &Libvirt) -> String {
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

/// Becomes the OpenSSH client if this process was started through the link; returns otherwise.
///
/// The client has a session of its own, so that signals for the process group do not end the connection that a
/// roll-back needs, and gets SIGTERM when the thread that started it ends, so that it never outlives the call.
pub fn become_client_if_asked() {
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else {
        return;
    };
    let program = Path::new(&program);
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else {
        return;
    };
    let configuration = directory.join(CONFIGURATION);
    if name != PROGRAM || !configuration.is_file() {
        return;
    }
    let failed = client(&configuration, arguments);
    eprintln!("starting the OpenSSH client (ssh): {failed}");
    signal_hook::low_level::exit(127);
}

/// Returns only if there is no client.
fn client(configuration: &Path, arguments: impl Iterator<Item = OsString>) -> io::Error {
    // Fails only for the leader of a process group, which libvirt's child never is.
    let _ = setsid();
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    Command::new(PROGRAM)
        .arg(OsStr::new("-F"))
        .arg(configuration)
        .args(arguments)
        .env_clear()
        .envs(vars_os().filter(|(name, _)| ENVIRONMENT.iter().any(|kept| name == kept)))
        .exec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_files::tests::libvirt;
    use serde_json::json;

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

    #[test]
    fn paths_are_written_as_ssh_config_reads_them() {
        assert_eq!(quoted(Path::new("/tmp/a b%h")).unwrap(), "\"/tmp/a b%%h\"");
        for path in ["/tmp/a\"b", "/tmp/${HOME}", "/tmp/a\nProxyCommand id"] {
            assert!(quoted(Path::new(path)).is_err(), "{path}");
        }
    }
}

//! Why no connection came about, in words that say what to mend.
//!
//! GnuTLS, OpenSSH and SASL have no numbers that reach the CPI. Their texts are made in this process, which sets no locale,
//! so they are English. What libvirtd itself refuses a login for has numbers, for daemons that speak another language.

use super::errors::Refusal;
use bosh_cpi::rpc::{Cause, Error};
use cpi_config::{Libvirt, LibvirtType};

/// What libvirt says where it did not take the server's certificate. The reason is only in its warnings.
const CERTIFICATE_REFUSED: &str = "Failed to verify peer's certificate";

const PASSWORD_REFUSED: &str = "libvirtd did not accept libvirt.username and libvirt.password (SASL); if they are right, \
                                libvirtd's log says what is wrong with its SASL set-up";

/// By libvirtd's default, polkit decides about its socket. Without D-Bus there is no polkit to ask.
const USER_REFUSED: &str = "this user may not use libvirtd's socket: put it into the group libvirt on the host, which \
                            polkit lets in; without polkit, set unix_sock_group, unix_sock_rw_perms and auth_unix_rw in \
                            libvirtd.conf";

/// Words of libvirt, GnuTLS, OpenSSH or SASL, one set of which is all in a message, and what that means here. The
/// first that fits counts.
const REASONS: &[(&[&[&str]], &str)] = &[
    (
        &[&["The client certificate", "has expired"]],
        "libvirt.client.certificate has expired",
    ),
    (
        &[&["The CA certificate", "has expired"]],
        "libvirt.server_ca.certificate has expired",
    ),
    (
        &[&["Our own certificate", "failed validation"]],
        "libvirt.client.certificate is not signed by the CA in libvirt.server_ca.certificate, or is not valid now; is \
         each of the two the one for this host?",
    ),
    (
        &[&["does not match the hostname"]],
        "the server's certificate is for another host name; set libvirt.host to a name in the certificate, or give \
         the host one for this name (subjectAltName)",
    ),
    (
        &[&["hasn't got a known issuer"]],
        "the server's certificate is not signed by the CA in libvirt.server_ca.certificate; is that the CA of this \
         host?",
    ),
    (
        &[&["certificate has been revoked"], &["certificate is revoked"]],
        "the server's certificate is revoked",
    ),
    (
        &[&["uses an insecure algorithm"]],
        "the server's certificate is signed with an algorithm that is no longer safe",
    ),
    (
        // What libvirt leaves of GnuTLS's reasons once the issuer is known.
        &[
            &["The certificate is not trusted"],
            &["server certificate", "has expired"],
        ],
        "the server's certificate has expired, or is not valid yet: see its dates and both machines' clocks",
    ),
    (
        &[
            &["Unable to read TLS confirmation"],
            &["server verification (of our certificate or IP address) failed"],
            &["Certificate is required"],
        ],
        "the server wants a client certificate and did not accept ours, or got none; set libvirt.client.certificate \
         and private_key to a pair that the CA of this host has signed",
    ),
    (
        &[
            &["Unable to import"],
            &["Unable to set x509"],
            &["Cannot read CA certificate"],
            &["usage does not permit"],
            &["purpose does not allow"],
            &["basic constraints do not show a CA"],
        ],
        "libvirt cannot use the certificates of libvirt.client and libvirt.server_ca; are they whole PEM texts, and \
         does the private key belong to the certificate?",
    ),
    (
        &[&["SASL(-4)"], &["no mechanism available"]],
        "libvirtd offers no way of logging in (SASL mechanism) that this machine knows; are the SASL plugins \
         (libsasl2-modules) installed?",
    ),
    (
        &[
            &["authentication failed: authentication failed"],
            &["authentication failed: Failed to", "SASL"],
            &["Failed to collect auth"],
        ],
        PASSWORD_REFUSED,
    ),
    (
        &[
            &["polkit"],
            &["access denied by policy"],
            &["Unable to get system bus connection"],
        ],
        USER_REFUSED,
    ),
    (
        &[
            &["Host key verification failed"],
            &["host key is known for"],
            &["REMOTE HOST IDENTIFICATION HAS CHANGED"],
            // What libvirt leaves of that warning where it has more than 1,024 bytes, by the length of the files' paths.
            &["Cannot recv data", "Value too large for defined data type"],
        ],
        "the host's SSH key is not one of libvirt.ssh.host_key; see `ssh-keyscan` for the keys that it has, and make \
         sure that they are its own",
    ),
    (
        &[&["Load key "]],
        "libvirt.ssh.private_key is no private key that can be used without a passphrase",
    ),
    (
        &[&["Permission denied (publickey"]],
        "the host did not accept the key of libvirt.ssh.private_key for the user libvirt.username",
    ),
    (
        &[&["OpenSSH client"]],
        "the OpenSSH client is not installed here; install the package openssh-client, with `ssh` in PATH",
    ),
    (
        &[&["nc: not found"], &["nc: command not found"]],
        "the host has neither virt-ssh-helper nor nc; install libvirt-daemon-common or netcat-openbsd there",
    ),
];

/// Not ok to retry where the reason is known to stay.
pub(super) fn explain(config: &Libvirt, refused: &Refusal, warnings: &str) -> Error {
    let said = &on_one_line(&without_secrets(config, &refused.message));
    let fits = |words: &&[&str]| {
        words
            .iter()
            .all(|word| said.contains(word) || warnings.contains(word))
    };
    let in_words = REASONS.iter().find(|(sets, _)| sets.iter().any(fits));
    let by_number = || match (refused.cause, config.libvirt_type) {
        (Cause::Denied, LibvirtType::Socket) => Some(USER_REFUSED),
        (_, LibvirtType::Tcp | LibvirtType::Tls) if refused.is_of_login => Some(PASSWORD_REFUSED),
        _ => None,
    };
    match in_words.map(|(_, reason)| *reason).or_else(by_number) {
        Some(reason) => Error {
            cause: refused.cause,
            ..Error::cloud(format!("{reason} ({said})"))
        },
        None => Error::cloud(format!(
            "{said}; is libvirtd running there, and may this user connect?"
        ))
        .because(refused.cause)
        .retryable(),
    }
}

/// Whether libvirt's warnings know more than its message.
pub(super) fn needs_warnings(message: &str) -> bool {
    message.contains(CERTIFICATE_REFUSED)
}

/// Nobody answered. The host may be back in a minute.
pub(super) fn timed_out(seconds: u64) -> Error {
    Error::cloud(format!(
        "no answer within {seconds} s (libvirt.connect_timeout); is the host up, and does a firewall let us through?"
    ))
    .retryable()
}

/// OpenSSH says several lines, some of them a frame of `@`.
fn on_one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.trim_matches('@').is_empty()).collect();
    lines.join(" ")
}

/// None of these libraries is known to quote a password, but the promise is ours.
fn without_secrets(config: &Libvirt, message: &str) -> String {
    match config.password.expose() {
        "" => message.to_owned(),
        password => message.replace(password, "(secret)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_files::tests::libvirt;
    use serde_json::json;

    /// As libvirtd 9.0 says it to a user who is not in the group libvirt: with polkit, and without D-Bus.
    #[test]
    fn a_user_whom_polkit_does_not_let_in_is_told_so() {
        for message in [
            "authentication unavailable: no polkit agent available to authenticate action 'org.libvirt.unix.manage'",
            "internal error: Unable to get system bus connection: Could not connect: No such file or directory",
        ] {
            let refused = Refusal::in_words(message.to_owned());
            let error = explain(&libvirt(json!({})), &refused, "");
            assert!(
                error
                    .message
                    .starts_with("this user may not use libvirtd's socket")
            );
            assert!(error.message.contains(message) && !error.ok_to_retry);
        }
        let refused = Refusal::in_words("Connection refused".to_owned());
        let other = explain(&libvirt(json!({})), &refused, "");
        assert!(other.message.contains("is libvirtd running there") && other.ok_to_retry);
    }

    #[test]
    fn a_login_that_a_daemon_of_another_language_refuses_is_explained_by_its_number() {
        let refused = |cause, is_of_login| Refusal {
            message: "Authentifizierung gescheitert".to_owned(),
            cause,
            is_of_login,
        };
        for (config, refused, reason) in [
            (
                json!({"type": "tcp", "host": "h"}),
                refused(Cause::Other, true),
                PASSWORD_REFUSED,
            ),
            (json!({}), refused(Cause::Denied, false), USER_REFUSED),
        ] {
            let error = explain(&libvirt(config), &refused, "");
            assert!(error.message.starts_with(reason) && !error.ok_to_retry, "{error}");
        }
    }
}

//! Opening a connection within a bound, and having it noticed when the host is gone later.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use virt::connect::{Connect, ConnectAuth, ConnectCredential, ConnectCredentialType};
use virt::error::Error as LibvirtError;

use super::errors::Refusal;
use super::event_loop;
use bosh_cpi::interrupt;
use bosh_cpi::rpc::Error;
use cpi_config::{Libvirt, Secret};

/// Keepalive messages that may stay without an answer within `libvirt.keepalive_timeout`: libvirt's own choice.
const KEEPALIVE_MESSAGES: u64 = 6;

/// Why there is no connection.
pub(super) enum NotOpen {
    /// Nobody answered within `libvirt.connect_timeout`.
    TimedOut,
    Refused(Refusal),
    /// This process is to end.
    Interrupted(Error),
}

/// User name and password for libvirt's callback, which can carry no data of its own.
static CREDENTIALS: Mutex<Option<(String, Secret)>> = Mutex::new(None);

/// Opens the URI. Name look-up, TCP, TLS, SSH and libvirt's greeting together take `connect_timeout` at most; a host
/// that stops answering later ends whatever call is made within `keepalive_timeout`.
pub(super) fn open(config: &Libvirt, uri: &str) -> Result<Connect, NotOpen> {
    event_loop::start();
    let uri = uri.to_owned();
    *CREDENTIALS.lock().unwrap_or_else(PoisonError::into_inner) =
        Some((config.username.clone(), config.password.clone()));
    let (sender, outcome) = channel();
    // Libvirt has no bound for any of this. A thread that never comes back ends with the process, soon.
    thread::Builder::new()
        .name("connect".into())
        .spawn(move || {
            let connected = open_with_credentials(&uri).map_err(Refusal::from);
            // Nobody listens any more after the timeout.
            let _ = sender.send(connected);
            if is_over_ssh(&uri) {
                // The client ends with the thread that started it (ssh.rs), and must not do so before the
                // process does.
                loop {
                    thread::park();
                }
            }
        })
        .map_err(|e| NotOpen::Refused(Refusal::in_words(e.to_string())))?;
    let timeout = Duration::from_secs(config.connect_timeout);
    let connect = match interrupt::receive(&outcome, Some(timeout)).map_err(NotOpen::Interrupted)? {
        Ok(connected) => connected.map_err(NotOpen::Refused)?,
        Err(RecvTimeoutError::Timeout) => return Err(NotOpen::TimedOut),
        Err(RecvTimeoutError::Disconnected) => {
            return Err(NotOpen::Refused(Refusal::in_words(
                "the connecting thread ended early".to_owned(),
            )));
        }
    };
    let (interval, count) = keepalive(config.keepalive_timeout);
    if let Err(e) = connect.set_keep_alive(interval, count) {
        // Libvirt's drivers without a daemon behind them have nothing to keep alive.
        log::debug!("no keepalive on this connection: {}", e.message());
    }
    Ok(connect)
}

fn open_with_credentials(uri: &str) -> Result<Connect, LibvirtError> {
    // SSH logs in with keys. What it asks for beyond that only a person could answer, so nobody is there to be asked.
    if is_over_ssh(uri) {
        return Connect::open(Some(uri));
    }
    // Only what a callback without a person behind it can answer: anything else fails instead of prompting.
    let answered = vec![
        ConnectCredentialType::UserName,
        ConnectCredentialType::AuthName,
        ConnectCredentialType::Passphrase,
    ];
    Connect::open_auth(Some(uri), &mut ConnectAuth::new(answered, answer), 0)
}

fn is_over_ssh(uri: &str) -> bool {
    uri.split("://")
        .next()
        .is_some_and(|scheme| scheme.contains("ssh"))
}

fn answer(asked: &mut Vec<ConnectCredential>) {
    let credentials = CREDENTIALS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((username, password)) = credentials.as_ref() else {
        return;
    };
    for credential in asked {
        credential.result = Some(match credential.typed {
            ConnectCredentialType::Passphrase => password.expose().to_owned(),
            _ => username.clone(),
        });
    }
}

/// Interval (s) and count for libvirt, which gives up after interval * (count + 1) seconds of silence.
fn keepalive(timeout: u64) -> (i32, u32) {
    let interval = timeout.div_ceil(KEEPALIVE_MESSAGES).max(1);
    // Without a single message libvirt would give up on every call that takes longer than the interval.
    let count = (timeout / interval).saturating_sub(1).max(1);
    (
        i32::try_from(interval).unwrap_or(i32::MAX),
        u32::try_from(count).unwrap_or(u32::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_stays_within_its_timeout() {
        assert_eq!(keepalive(30), (5, 5));
        assert_eq!(keepalive(2), (1, 1));
        for timeout in 2..=3600 {
            let (interval, count) = keepalive(timeout);
            let silence = u64::from(interval.cast_unsigned()) * (u64::from(count) + 1);
            assert!(
                count >= 1 && silence <= timeout && silence * 3 >= timeout * 2,
                "{timeout}"
            );
        }
    }
}

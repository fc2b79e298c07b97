//! What libvirt's errors mean: the only place where they become CPI error types and causes.
//!
//! Libvirt's error code, its domain and, for system errors, errno decide. They travel from the daemon as numbers,
//! whatever its language. A code that has several meanings leaves the message:
//! - A daemon that speaks English says which meaning it is.
//! - The messages of a daemon that speaks another language are not understood. The code then stands for the meaning that
//!   ends by itself.
//! - QEMU, qemu-img, LVM and libvirt's client in this process are not translated: QEMU's and LVM's texts pass through
//!   libvirtd as they are, and this process sets no locale.

use rustix::io::Errno;
use virt::enumutil::Enum;
use virt::error::{Error as LibvirtError, ErrorDomain, ErrorNumber};

use super::ffi;
use bosh_cpi::rpc::{Cause, Error, ErrorType};

/// One error of libvirt's, as data.
#[derive(Debug, Clone, Copy)]
struct Said<'a> {
    /// None for those that this build's libvirt does not know.
    number: Option<ErrorNumber>,
    domain: Option<ErrorDomain>,
    /// Of system errors.
    errno: Option<Errno>,
    text: &'a str,
}

impl<'a> Said<'a> {
    fn of(error: &'a LibvirtError) -> Self {
        Self {
            number: known(error.code()),
            domain: known(error.domain()),
            errno: ffi::errno_of(error.message()).map(Errno::from_raw_os_error),
            text: error.message().trim_end(),
        }
    }

    fn is(&self, number: ErrorNumber, domain: ErrorDomain) -> bool {
        self.number == Some(number) && self.domain == Some(domain)
    }

    fn has(&self, part: &str) -> bool {
        self.text.contains(part)
    }

    /// Whether the message begins as messages of these codes do in English.
    fn is_english(&self) -> bool {
        let begin = match self.number {
            Some(ErrorNumber::OperationInvalid) => "Requested operation is not valid",
            Some(ErrorNumber::OperationFailed) => "operation failed",
            Some(ErrorNumber::InternalError) => "internal error",
            _ => "",
        };
        self.text.starts_with(begin)
    }
}

fn known<T, R>(value: Enum<T, R>) -> Option<T> {
    match value {
        Enum::Known(known) => Some(known),
        Enum::Unknown(_) => None,
    }
}

/// libvirt's error as the CPI's, with advice where there is any.
#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(super) fn cpi_error(error: LibvirtError) -> Error {
    let said = Said::of(&error);
    let cause = cause_of(&said);
    let message = format!("{}{}", said.text, advice(&said, cause));
    Error::new(error_type(&said, cause), message).because(cause)
}

/// Why this call of libvirt's failed.
pub(super) fn cause(error: &LibvirtError) -> Cause {
    cause_of(&Said::of(error))
}

/// Why something failed that only QEMU's text tells of, such as the end of a job.
pub(super) fn cause_in_text(text: &str) -> Cause {
    cause_of(&Said {
        number: None,
        domain: None,
        errno: None,
        text,
    })
}

/// Libvirt refused to connect, or was refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub message: String,
    pub cause: Cause,
    /// Whether libvirtd did not let the user in.
    pub is_of_login: bool,
}

impl Refusal {
    /// One that is not libvirt's.
    pub fn in_words(message: String) -> Self {
        Self {
            message,
            cause: Cause::Other,
            is_of_login: false,
        }
    }
}

impl From<LibvirtError> for Refusal {
    fn from(error: LibvirtError) -> Self {
        let said = Said::of(&error);
        Self {
            message: said.text.to_owned(),
            cause: cause_of(&said),
            is_of_login: said.number == Some(ErrorNumber::AuthFailed),
        }
    }
}

/// Whether libvirt said exactly this.
pub(super) fn is(error: &LibvirtError, number: ErrorNumber) -> bool {
    known(error.code()) == Some(number)
}

/// Whether the daemon that says this of a domain that does not exist speaks English.
pub(super) fn says_in_english_that_there_is_no_domain(error: &LibvirtError) -> bool {
    error.message().starts_with("Domain not found")
}

/// Whether another pool has the same place.
pub(super) fn is_pool_conflict(error: &LibvirtError) -> bool {
    Said::of(error).is(ErrorNumber::OperationFailed, ErrorDomain::Storage)
}

/// Whether a pool cannot be stopped or read anew while volumes are copied into it.
pub(super) fn means_pool_at_work(error: &LibvirtError) -> bool {
    let said = Said::of(error);
    said.is(ErrorNumber::InternalError, ErrorDomain::Storage)
        && (said.has("asynchronous jobs running") || !said.is_english())
}

/// Whether the VM has a job already of which there can be one only. Of a VM that does not run, libvirt in another
/// language seems to say the same.
pub(super) fn means_other_job(error: &LibvirtError) -> bool {
    let said = Said::of(error);
    match said.number {
        Some(ErrorNumber::OperationTimeout) => true,
        Some(ErrorNumber::OperationInvalid) => said.has("job") || !said.is_english(),
        _ => false,
    }
}

/// Whether the host lacks the daemon for libvirt's networks.
pub(super) fn has_no_network_daemon(error: &LibvirtError) -> bool {
    let said = Said::of(error);
    said.errno == Some(Errno::NOENT) && stopped_daemon(&said) == Some("virtnetworkd")
}

fn error_type(said: &Said<'_>, cause: Cause) -> ErrorType {
    match (said.number, cause) {
        (Some(ErrorNumber::NoDomain), _) => ErrorType::VmNotFound,
        (Some(ErrorNumber::NoNetwork), _) => ErrorType::NetworkNotFound,
        (Some(ErrorNumber::NoStorageVolume), _) => ErrorType::DiskNotFound,
        (_, Cause::Full) => ErrorType::NoDiskSpace,
        _ => ErrorType::CloudError,
    }
}

fn cause_of(said: &Said<'_>) -> Cause {
    if let Some(cause) = cause_of_errno(said) {
        return cause;
    }
    let by_code = match said.number {
        Some(ErrorNumber::NoSupport) => Cause::TooOld,
        // "unknown procedure: 999", "unsupported flags (0x400) in function f", in any language.
        Some(ErrorNumber::Rpc) if ends_with_number(said.text) => Cause::TooOld,
        Some(ErrorNumber::InvalidArg) if said.has("(0x") => Cause::TooOld,
        Some(ErrorNumber::AccessDenied | ErrorNumber::AuthUnavailable) => Cause::Denied,
        Some(ErrorNumber::OperationDenied) => Cause::ReadOnlyConnection,
        Some(ErrorNumber::NoConnect | ErrorNumber::Rpc) => Cause::Lost,
        Some(ErrorNumber::OperationTimeout | ErrorNumber::AgentUnresponsive) => Cause::Busy,
        Some(ErrorNumber::OperationInvalid) => cause_of_invalid(said),
        Some(ErrorNumber::OperationFailed) if said.domain == Some(ErrorDomain::Storage) => {
            // The only way in which calls for volumes fail so.
            if said.has("Not enough space") || !said.is_english() {
                Cause::Full
            } else {
                Cause::Other
            }
        }
        // Of a domain that names a volume by its pool.
        Some(ErrorNumber::ConfigUnsupported) if said.has("storage pool '") && said.has("is not active") => {
            Cause::Stopped
        }
        Some(ErrorNumber::InternalError) => cause_of_internal(said),
        Some(ErrorNumber::SystemError) if said.domain == Some(ErrorDomain::Rpc) => Cause::Lost,
        Some(ErrorNumber::SystemError) if said.domain == Some(ErrorDomain::Qemu) && said.has("monitor") => {
            Cause::QemuGone
        }
        _ => Cause::Other,
    };
    if by_code == Cause::Other {
        cause_of_untranslated(said.text)
    } else {
        by_code
    }
}

fn cause_of_errno(said: &Said<'_>) -> Option<Cause> {
    Some(match (said.errno?, said.domain) {
        (Errno::NOSPC | Errno::DQUOT, _) => Cause::Full,
        (Errno::ROFS, _) => Cause::ReadOnlyFiles,
        (Errno::NOENT | Errno::CONNREFUSED, Some(ErrorDomain::Rpc)) => Cause::DaemonStopped,
        (Errno::ACCESS | Errno::PERM, Some(ErrorDomain::Rpc)) => Cause::Denied,
        // Of all that deletes volumes, only Ceph says so.
        (Errno::BUSY, Some(ErrorDomain::Storage)) => Cause::Shared,
        // The directory of QEMU's process.
        (Errno::NOENT | Errno::SRCH | Errno::INVAL, _) if said.has("/proc/") => Cause::QemuGone,
        (Errno::PIPE | Errno::CONNRESET, Some(ErrorDomain::Qemu)) => Cause::QemuGone,
        _ => return None,
    })
}

/// Something is not in the state for it.
fn cause_of_invalid(said: &Said<'_>) -> Cause {
    let (is_storage, is_network) = (
        said.domain == Some(ErrorDomain::Storage),
        said.domain == Some(ErrorDomain::Network),
    );
    match said.is_english() {
        true if (is_storage || is_network) && (said.has("is not active") || said.has("is not running")) => {
            Cause::Stopped
        }
        true if is_storage && (said.has("is still in use") || said.has("is still being allocated")) => {
            Cause::Busy
        }
        // A volume, or its pool, which whoever waits for it looks at.
        false if is_storage => Cause::Busy,
        false if is_network => Cause::Stopped,
        _ => Cause::Other,
    }
}

fn cause_of_internal(said: &Said<'_>) -> Cause {
    match said.domain {
        // Of libvirt's client, or of a daemon that is a client of another.
        Some(ErrorDomain::Rpc) => Cause::Lost,
        Some(ErrorDomain::Storage) if said.has("asynchronous jobs running") => Cause::Busy,
        Some(ErrorDomain::Storage | ErrorDomain::Network) if said.has("already in use") => Cause::InUse,
        // What new volumes and networks are refused for.
        Some(ErrorDomain::Storage | ErrorDomain::Network) if !said.is_english() => Cause::InUse,
        _ => Cause::Other,
    }
}

/// What QEMU, LVM and Ceph say, and libvirt has no number for.
fn cause_of_untranslated(text: &str) -> Cause {
    const SAYINGS: &[(Cause, &[&str])] = &[
        (
            Cause::Full,
            &[
                "No space left on device",
                "Disk quota exceeded",
                "nsufficient free space",
            ],
        ),
        (Cause::ReadOnlyFiles, &["Read-only file system"]),
        (
            Cause::SilentCeph,
            &["RADOS", "error connecting: Connection timed out"],
        ),
        (Cause::Shared, &["failed to unprotect snapshot"]),
        (
            Cause::NoKvm,
            &["/dev/kvm", "access KVM", "failed to initialize kvm"],
        ),
        (Cause::QemuGone, &["closed the monitor"]),
    ];
    SAYINGS
        .iter()
        .find(|(_, parts)| parts.iter().any(|part| text.contains(part)))
        .map_or(Cause::Other, |(cause, _)| *cause)
}

fn ends_with_number(text: &str) -> bool {
    text.rsplit_once(' ')
        .is_some_and(|(_, last)| last.parse::<u32>().is_ok())
}

/// The daemon whose socket was not answered, where the host has one for each driver.
fn stopped_daemon<'a>(said: &Said<'a>) -> Option<&'a str> {
    if cause_of_errno(said) != Some(Cause::DaemonStopped) {
        return None;
    }
    let (before, _) = said.text.split_once("-sock")?;
    let (_, daemon) = before.rsplit_once('/')?;
    daemon.starts_with("virt").then_some(daemon)
}

/// What the operator can do about an error that libvirt only states.
fn advice(said: &Said<'_>, cause: Cause) -> String {
    let advice = match cause {
        Cause::TooOld => {
            "the host's libvirt is too old for this, or cannot do it: version 7.0 or later is needed (`virsh version` on \
             the host)"
        }
        Cause::DaemonStopped => {
            return stopped_daemon(said).map_or_else(String::new, |daemon| {
                format!(
                    "; {daemon} does not run on the host, which has a daemon for each driver: systemctl enable --now \
                     {daemon}.socket"
                )
            });
        }
        Cause::ReadOnlyFiles => {
            "Linux makes a file system read-only after errors of the disk below it: see `dmesg` on the host, then mount it \
             read-write again"
        }
        Cause::SilentCeph => "Ceph's monitors do not answer, or not from this host: see `ceph health detail`",
        // Both names are the same in all languages.
        _ if said.number == Some(ErrorNumber::OperationFailed) && said.has("'efi'") => {
            "the host has no EFI firmware that fits: install it there (package ovmf or edk2-ovmf), or set firmware to bios"
        }
        _ if said.has("hugetlbfs") => {
            "the host has no huge pages of this size: reserve and mount them there, or leave out hugepages"
        }
        _ if said.has("Failed to get \"write\" lock") => {
            "a QEMU has the disk open that libvirt does not know to have it, as when libvirtd was killed while it attached or \
             detached it: stop the VM that had it last on the host (`virsh destroy`), start it, and make the call again"
        }
        _ => return String::new(),
    };
    format!("; {advice}")
}

#[cfg(test)]
mod tests;

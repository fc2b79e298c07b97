//! Libvirt's error codes as CPI error types: the only place where one becomes the other.

use virt::error::{Error as LibvirtError, ErrorNumber};

use crate::rpc::{Error, ErrorType};

impl From<LibvirtError> for Error {
    fn from(error: LibvirtError) -> Self {
        let message = error.message().trim_end();
        let Some(number) = number_of(&error) else {
            return Self::cloud(message);
        };
        if means_too_old(number, message) {
            return Self::cloud(format!(
                "{message}; the host's libvirt is too old for this, or cannot do it: version 6.0 or later is needed \
                 (`virsh version` on the host)"
            ));
        }
        let cpi_error = Self::new(error_type(number, message), with_advice(message));
        if is_worth_a_retry(number, message) {
            cpi_error.retryable()
        } else {
            cpi_error
        }
    }
}

/// The error's number, when this build's libvirt knows it.
fn number_of(error: &LibvirtError) -> Option<ErrorNumber> {
    match error.code() {
        virt::enumutil::Enum::Known(number) => Some(number),
        virt::enumutil::Enum::Unknown(_) => None,
    }
}

/// Whether libvirt said exactly this.
pub(super) fn is(error: &LibvirtError, number: ErrorNumber) -> bool {
    number_of(error) == Some(number)
}

/// Libvirt has no number for a full disk: the text of ENOSPC is all there is.
fn error_type(number: ErrorNumber, message: &str) -> ErrorType {
    match number {
        ErrorNumber::NoDomain => ErrorType::VmNotFound,
        ErrorNumber::NoNetwork => ErrorType::NetworkNotFound,
        ErrorNumber::NoStorageVolume => ErrorType::DiskNotFound,
        _ if means_full(message) => ErrorType::NoDiskSpace,
        _ => ErrorType::CloudError,
    }
}

/// Libvirt's words, or QEMU's, or LVM's.
pub(super) fn means_full(message: &str) -> bool {
    message.contains("No space left on device")
        || message.contains("Disk quota exceeded")
        || message.contains("nsufficient free space")
}

/// What the operator can do about an error that libvirt only states.
fn with_advice(message: &str) -> String {
    let advice = if message.contains("find any firmware") {
        "; the host has no EFI firmware that fits: install it there (package ovmf or edk2-ovmf), or set firmware to bios"
    } else if message.contains("hugetlbfs") {
        "; the host has no huge pages of this size: reserve and mount them there, or leave out hugepages"
    } else if message.contains("Read-only file system") {
        "; Linux makes a file system read-only after errors of the disk below it: see `dmesg` on the host, then mount it \
         read-write again"
    } else if message.contains("Failed to get \"write\" lock") {
        "; a QEMU has the disk open that libvirt does not know to have it, as when libvirtd was killed while it attached or \
         detached it: stop the VM that had it last on the host (`virsh destroy`), start it, and make the call again"
    } else if means_silent_ceph(message) {
        "; Ceph's monitors do not answer, or not from this host: see `ceph health detail`"
    } else {
        ""
    };
    format!("{message}{advice}")
}

fn is_worth_a_retry(number: ErrorNumber, message: &str) -> bool {
    matches!(
        number,
        ErrorNumber::NoConnect
            | ErrorNumber::Rpc
            | ErrorNumber::OperationTimeout
            | ErrorNumber::AgentUnresponsive
    ) || means_busy(message)
        || means_lost(message)
        || means_stopped(message)
        || means_silent_ceph(message)
}

/// A call, or a flag of a call, that the other side does not know.
fn means_too_old(number: ErrorNumber, message: &str) -> bool {
    match number {
        ErrorNumber::NoSupport => true,
        ErrorNumber::Rpc => message.contains("unknown procedure"),
        ErrorNumber::InvalidArg => message.contains("unsupported flags"),
        _ => false,
    }
}

/// The connection is no more: libvirtd ended, or the host or the network between is gone.
fn means_lost(message: &str) -> bool {
    [
        "client socket is closed",
        "closed due to keepalive timeout",
        "End of file while reading data",
        "Cannot recv data",
        "Cannot write data",
    ]
    .iter()
    .any(|part| message.contains(part))
}

/// A network or pool that was active when the call began. The same call starts it.
fn means_stopped(message: &str) -> bool {
    let of_it = || message.contains("network '") || message.contains("storage pool '");
    (message.contains("is not active") && of_it()) || message.contains("network is not running")
}

/// Ceph's monitors did not answer libvirt, or QEMU.
pub(super) fn means_silent_ceph(message: &str) -> bool {
    message.contains("failed to connect to the RADOS monitor")
        || message.contains("error connecting: Connection timed out")
}

/// Another storage job is at work on the pool or the volume; it ends by itself.
pub(super) fn means_busy(message: &str) -> bool {
    message.contains("asynchronous jobs running")
        || message.contains("is still in use")
        || message.contains("is still being allocated")
}

/// The VM already has a job of the kind that can only run once, or one that is about to begin.
pub(super) fn means_other_job(error: &LibvirtError) -> bool {
    let message = error.message();
    (is(error, ErrorNumber::OperationInvalid) && message.contains("job"))
        || (is(error, ErrorNumber::OperationTimeout) && message.contains("state change lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_cpi_error_types() {
        // libvirt's in-process test driver gives real errors without a daemon.
        virt::error::clear_error_callback();
        let connect = virt::connect::Connect::open(Some("test:///default")).unwrap();
        let pool = connect.lookup_storage_pool_by_name("default-pool").unwrap();
        for (error, expected) in [
            (
                connect.lookup_domain_by_name("none").unwrap_err(),
                ErrorType::VmNotFound,
            ),
            (
                connect.lookup_network_by_name("none").unwrap_err(),
                ErrorType::NetworkNotFound,
            ),
            (
                connect.lookup_storage_pool_by_name("none").unwrap_err(),
                ErrorType::CloudError,
            ),
            (
                pool.lookup_storage_vol_by_name("none").unwrap_err(),
                ErrorType::DiskNotFound,
            ),
        ] {
            assert_eq!(Error::from(error).error_type, expected);
        }
    }

    #[test]
    fn what_an_old_libvirt_does_not_know_is_said_and_not_tried_again() {
        virt::error::clear_error_callback();
        let connect = virt::connect::Connect::open(Some("test:///default")).unwrap();
        let domain = connect.lookup_domain_by_name("test").unwrap();
        for error in [
            // The test driver has neither this call nor this flag.
            connect.num_of_nw_filters().unwrap_err(),
            domain.undefine_flags(1 << 30).unwrap_err(),
        ] {
            let error = Error::from(error);
            assert!(
                error.message.contains("version 6.0 or later is needed"),
                "{error}"
            );
            assert!(!error.ok_to_retry);
        }
        let unknown = "unknown procedure: 999";
        assert!(means_too_old(ErrorNumber::Rpc, unknown));
        assert!(!means_too_old(
            ErrorNumber::Rpc,
            "Cannot recv data: Connection reset by peer"
        ));
    }

    #[test]
    fn what_a_host_lacks_is_said() {
        for (message, expected) in [
            (
                "Unable to find any firmware to satisfy 'efi'",
                "package ovmf or edk2-ovmf",
            ),
            (
                "Unable to find any usable hugetlbfs mount for 3072 KiB",
                "leave out hugepages",
            ),
            (
                "internal error: unable to execute QEMU command 'blockdev-add': Failed to get \"write\" lock",
                "stop the VM that had it last",
            ),
        ] {
            let advised = with_advice(message);
            assert!(
                advised.starts_with(message) && advised.contains(expected),
                "{advised}"
            );
        }
        assert_eq!(with_advice("XML error"), "XML error");
    }

    #[test]
    fn what_was_stopped_meanwhile_is_started_by_the_same_call() {
        for (message, expected) in [
            (
                "Requested operation is not valid: network 'bosh' is not active",
                true,
            ),
            ("Requested operation is not valid: network is not running", true),
            (
                "Requested operation is not valid: storage pool 'bosh' is not active",
                true,
            ),
            ("Requested operation is not valid: domain is not running", false),
        ] {
            assert_eq!(means_stopped(message), expected, "{message}");
        }
    }

    #[test]
    fn a_full_disk_is_told_from_other_system_errors() {
        for (message, expected) in [
            (
                "cannot allocate 5 bytes in file '/x': No space left on device",
                ErrorType::NoDiskSpace,
            ),
            ("cannot write: Disk quota exceeded", ErrorType::NoDiskSpace),
            (
                "Volume group \"vg\" has insufficient free space (61 extents): 2500 required.",
                ErrorType::NoDiskSpace,
            ),
            ("cannot open '/x': Permission denied", ErrorType::CloudError),
        ] {
            assert_eq!(error_type(ErrorNumber::SystemError, message), expected);
        }
    }
}

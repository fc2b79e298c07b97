use virt::connect::Connect;

use super::*;

fn said(number: ErrorNumber, domain: ErrorDomain, text: &str) -> Said<'_> {
    Said {
        number: Some(number),
        domain: Some(domain),
        errno: None,
        text,
    }
}

/// libvirt's in-process test driver gives real errors without a daemon.
fn test_driver() -> Connect {
    ffi::note_errors();
    Connect::open(Some("test:///default")).unwrap()
}

#[test]
fn codes_become_cpi_error_types() {
    let connect = test_driver();
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
        assert_eq!(cpi_error(error).error_type, expected);
    }
}

#[test]
fn what_an_old_libvirt_lacks_is_not_retried() {
    let connect = test_driver();
    let domain = connect.lookup_domain_by_name("test").unwrap();
    for error in [
        // The test driver has neither this call nor this flag.
        connect.num_of_nw_filters().unwrap_err(),
        domain.undefine_flags(1 << 30).unwrap_err(),
    ] {
        let error = cpi_error(error);
        assert!(
            error.message.contains("version 7.0 or later is needed"),
            "{error}"
        );
        assert_eq!((error.cause, error.ok_to_retry), (Cause::TooOld, false));
    }
}

/// What libvirt's client says of a socket, which virtqemud sends on when it is the client of another daemon.
#[test]
fn a_stopped_daemon_is_named_and_may_be_back_for_a_retry() {
    let directory = tempfile::tempdir().unwrap();
    ffi::note_errors();
    let nobody_listens = directory.path().join("virtnetworkd-sock");
    drop(std::os::unix::net::UnixListener::bind(&nobody_listens).unwrap());
    for (socket, remedy) in [
        ("virtstoraged-sock", "systemctl enable --now virtstoraged.socket"),
        ("virtnetworkd-sock", "systemctl enable --now virtnetworkd.socket"),
        ("libvirt-sock", "libvirt-sock"),
    ] {
        let uri = format!(
            "qemu+unix:///system?socket={}",
            directory.path().join(socket).display()
        );
        let error = Connect::open(Some(&uri)).unwrap_err();
        let said = Said::of(&error);
        assert!(said.is(ErrorNumber::SystemError, ErrorDomain::Rpc), "{said:?}");
        // Networks are not missed where the socket is there.
        assert!(!has_no_network_daemon(&error), "{said:?}");
        let error = cpi_error(error);
        assert!(error.message.contains(remedy), "{error}");
        assert_eq!((error.cause, error.ok_to_retry), (Cause::DaemonStopped, true));
    }
    std::fs::remove_file(nobody_listens).unwrap();
    let uri = format!(
        "qemu+unix:///system?socket={}/virtnetworkd-sock",
        directory.path().display()
    );
    assert!(has_no_network_daemon(&Connect::open(Some(&uri)).unwrap_err()));
}

#[test]
fn the_errno_decides_in_every_language() {
    for (errno, domain, expected) in [
        (Errno::NOSPC, ErrorDomain::Storage, Cause::Full),
        (Errno::DQUOT, ErrorDomain::None, Cause::Full),
        (Errno::ROFS, ErrorDomain::Storage, Cause::ReadOnlyFiles),
        (Errno::BUSY, ErrorDomain::Storage, Cause::Shared),
        (Errno::PIPE, ErrorDomain::Qemu, Cause::QemuGone),
        (Errno::CONNRESET, ErrorDomain::Rpc, Cause::Lost),
        (Errno::IO, ErrorDomain::Rpc, Cause::Lost),
        (Errno::IO, ErrorDomain::Storage, Cause::Other),
        (Errno::ACCESS, ErrorDomain::Rpc, Cause::Denied),
        (Errno::ACCESS, ErrorDomain::Storage, Cause::Other),
    ] {
        let said = Said {
            errno: Some(errno),
            ..said(ErrorNumber::SystemError, domain, "kaputt")
        };
        assert_eq!(cause_of(&said), expected, "{said:?}");
    }
}

/// What libvirtd finds in the directory of a process that has just been killed.
#[test]
fn the_directory_of_an_ended_qemu_tells_that_it_has_ended() {
    for errno in [Errno::NOENT, Errno::SRCH, Errno::INVAL] {
        let said = Said {
            errno: Some(errno),
            ..said(
                ErrorNumber::SystemError,
                ErrorDomain::None,
                "Failed to read /proc/29700/mounts",
            )
        };
        assert_eq!(cause_of(&said), Cause::QemuGone, "{said:?}");
    }
}

/// English messages, and German ones as libvirt 9.0 has them.
#[test]
fn a_code_of_several_meanings_is_told_apart_where_the_daemon_speaks_english() {
    use ErrorDomain as D;
    use ErrorNumber as N;
    for (number, domain, text, expected) in [
        (
            N::OperationInvalid,
            D::Storage,
            "Requested operation is not valid: storage pool 'p' is not active",
            Cause::Stopped,
        ),
        (
            N::OperationInvalid,
            D::Storage,
            "Requested operation is not valid: volume 'v' is still in use.",
            Cause::Busy,
        ),
        (
            N::OperationInvalid,
            D::Storage,
            "Requested operation is not valid: volume target path '/v' already exists",
            Cause::Other,
        ),
        (
            N::OperationInvalid,
            D::Storage,
            "Angeforderte Operation ist nicht gültig: Datenträger 'v' wird immer noch zugewiesen.",
            Cause::Busy,
        ),
        (
            N::OperationInvalid,
            D::Network,
            "Requested operation is not valid: network 'n' is not active",
            Cause::Stopped,
        ),
        (
            N::OperationInvalid,
            D::Network,
            "Angeforderte Operation ist nicht gültig: Netzwerk n ist nicht aktiv",
            Cause::Stopped,
        ),
        (
            N::ConfigUnsupported,
            D::Domain,
            "unsupported configuration: storage pool 'p' containing volume 'v' is not active",
            Cause::Stopped,
        ),
        (
            N::OperationInvalid,
            D::Qemu,
            "Requested operation is not valid: domain is not running",
            Cause::Other,
        ),
        (
            N::InternalError,
            D::Storage,
            "internal error: pool 'p' has asynchronous jobs running.",
            Cause::Busy,
        ),
        (
            N::InternalError,
            D::Network,
            "internal error: Network is already in use by interface virbr0",
            Cause::InUse,
        ),
        (
            N::InternalError,
            D::Network,
            "Interner Fehler: Netzwerk wird bereits von Schnittstelle virbr0 verwendet",
            Cause::InUse,
        ),
        (
            N::InternalError,
            D::Rpc,
            "internal error: client socket is closed",
            Cause::Lost,
        ),
        (
            N::OperationFailed,
            D::Storage,
            "operation failed: Not enough space left in storage pool",
            Cause::Full,
        ),
        (
            N::OperationFailed,
            D::Storage,
            "operation failed: Storage source conflict with pool: 'p'",
            Cause::Other,
        ),
        (N::Rpc, D::Rpc, "unbekannte Prozedur: 999", Cause::TooOld),
        (N::Rpc, D::Rpc, "Unable to decode message payload", Cause::Lost),
        (
            N::InvalidArg,
            D::Storage,
            "Nicht unterstützte Flags (0x1)",
            Cause::TooOld,
        ),
        (N::AccessDenied, D::Access, "Zugriff verweigert", Cause::Denied),
        (
            N::OperationDenied,
            D::Storage,
            "Operation verboten",
            Cause::ReadOnlyConnection,
        ),
    ] {
        assert_eq!(cause_of(&said(number, domain, text)), expected, "{text}");
    }
}

#[test]
fn what_only_qemu_lvm_or_ceph_say_is_found_in_their_words() {
    for (text, expected) in [
        (
            "qemu-img: error while writing: No space left on device",
            Cause::Full,
        ),
        (
            "Volume group \"vg\" has insufficient free space (61 extents): 2500 required.",
            Cause::Full,
        ),
        (
            "failed to connect to the RADOS monitor on: h: Connection timed out",
            Cause::SilentCeph,
        ),
        ("Verbindung mit RADOS-Monitor gescheitert: h", Cause::SilentCeph),
        (
            "qemu-system-x86_64: failed to initialize kvm: Permission denied",
            Cause::NoKvm,
        ),
        ("cannot open '/x': Permission denied", Cause::Other),
    ] {
        assert_eq!(
            cause_of(&said(ErrorNumber::InternalError, ErrorDomain::None, text)),
            expected
        );
        assert_eq!(cause_in_text(text), expected);
    }
}

#[test]
fn what_a_host_lacks_is_said() {
    use ErrorNumber::{ConfigUnsupported, InternalError, OperationFailed};
    for (number, message, expected) in [
        // Up to libvirt 9, and since.
        (
            OperationFailed,
            "operation failed: Unable to find any firmware to satisfy 'efi'",
            "package ovmf or edk2-ovmf",
        ),
        (
            OperationFailed,
            "operation failed: Unable to find 'efi' firmware that is compatible with the current configuration",
            "package ovmf or edk2-ovmf",
        ),
        (
            InternalError,
            "internal error: Unable to find any usable hugetlbfs mount for 3072 KiB",
            "leave out hugepages",
        ),
        (
            InternalError,
            "internal error: unable to execute QEMU command 'blockdev-add': Failed to get \"write\" lock",
            "stop the VM that had it last",
        ),
        (ConfigUnsupported, "XML error", ""),
    ] {
        let said = said(number, ErrorDomain::Qemu, message);
        let advice = advice(&said, cause_of(&said));
        assert!(
            advice.contains(expected) && expected.is_empty() == advice.is_empty(),
            "{advice}"
        );
    }
}

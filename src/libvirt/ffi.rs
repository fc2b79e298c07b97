//! The libvirt calls that the `virt` crate lacks; the only `unsafe` code.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_void};
use std::sync::mpsc::{Receiver, Sender, channel};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as LibvirtError;
use virt::stream::Stream;
use virt::sys;

/// virDomainBackupBegin: `virt` 0.5 has no backup calls.
pub(super) fn backup_begin(domain: &Domain, xml: &str, flags: u32) -> Result<(), LibvirtError> {
    let xml = CString::new(xml)?;
    // SAFETY: the domain and the text outlive the call, and libvirt keeps neither pointer; no checkpoint is asked for.
    let outcome =
        unsafe { sys::virDomainBackupBegin(domain.as_ptr(), xml.as_ptr(), std::ptr::null(), flags) };
    if outcome < 0 {
        Err(LibvirtError::last_error())
    } else {
        Ok(())
    }
}

/// virDomainAbortJob: `virt` 0.5 can read jobs, but not end them.
pub(super) fn abort_job(domain: &Domain) -> Result<(), LibvirtError> {
    // SAFETY: the domain outlives the call.
    let outcome = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if outcome < 0 {
        Err(LibvirtError::last_error())
    } else {
        Ok(())
    }
}

/// What libvirt says of a domain's job.
pub(super) struct Job {
    pub kind: u32,
    pub message: Option<String>,
    /// Bytes copied so far, 0 where libvirt does not say.
    pub processed: u64,
    pub total: u64,
}

/// virDomainGetJobStats: `virt` 0.5 makes a `Vec` of libvirt's own allocation, which is null when no job runs.
/// Returns the job's type, of an ended one its error, and how many bytes of how many it has copied.
pub(super) fn job(domain: &Domain, flags: u32) -> Result<Job, LibvirtError> {
    let (mut job_type, mut count, mut parameters) = (0, 0, std::ptr::null_mut());
    let mut message = std::ptr::null();
    // SAFETY: libvirt fills the out-parameters with an array of its own, from which one string is copied before the
    // array is handed back to it; both calls take a null array of no parameters.
    unsafe {
        if sys::virDomainGetJobStats(domain.as_ptr(), &mut job_type, &mut parameters, &mut count, flags) < 0 {
            return Err(LibvirtError::last_error());
        }
        let name = sys::VIR_DOMAIN_JOB_ERRMSG.as_ptr().cast();
        let found = sys::virTypedParamsGetString(parameters, count, name, &mut message) == 1;
        let message = found.then(|| CStr::from_ptr(message).to_string_lossy().into_owned());
        let bytes = |name: &CStr| {
            let mut bytes = 0;
            sys::virTypedParamsGetULLong(parameters, count, name.as_ptr(), &mut bytes);
            bytes
        };
        let (processed, total) = (
            bytes(sys::VIR_DOMAIN_JOB_DISK_PROCESSED),
            bytes(sys::VIR_DOMAIN_JOB_DISK_TOTAL),
        );
        sys::virTypedParamsFree(parameters, count);
        Ok(Job {
            kind: job_type.cast_unsigned(),
            message,
            processed,
            total,
        })
    }
}

/// virStreamSendHole: `virt` 0.5 knows no sparse streams. `length` is in bytes.
pub(super) fn send_hole(stream: &Stream, length: u64) -> Result<(), LibvirtError> {
    let length = c_longlong::try_from(length).unwrap_or(c_longlong::MAX);
    // SAFETY: the stream outlives the call, which takes no other pointer.
    let outcome = unsafe { sys::virStreamSendHole(stream.as_ptr(), length, 0) };
    if outcome < 0 {
        Err(LibvirtError::last_error())
    } else {
        Ok(())
    }
}

/// Receives the alias of every device that leaves the domain, from registration until it is dropped.
pub struct RemovedDevices {
    connect: Connect,
    callback_id: c_int,
    pub aliases: Receiver<String>,
}

/// virConnectDomainEventRegisterAny: `virt` 0.5 has no domain events. Needs the running event loop.
pub(super) fn watch_removed_devices(
    connect: &Connect,
    domain: &Domain,
) -> Result<RemovedDevices, LibvirtError> {
    let (sender, aliases) = channel();
    let sender: *mut Sender<String> = Box::into_raw(Box::new(sender));
    // SAFETY: libvirt passes callbacks of every event through one generic function type and casts it back by event
    // id, so this is the cast that its documentation asks for (VIR_DOMAIN_EVENT_CALLBACK). The sender stays
    // allocated until libvirt itself calls `free_sender`, after the last event.
    let callback_id = unsafe {
        let callback = std::mem::transmute::<
            sys::virConnectDomainEventDeviceRemovedCallback,
            sys::virConnectDomainEventGenericCallback,
        >(Some(device_removed));
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            domain.as_ptr(),
            sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED.cast_signed(),
            callback,
            sender.cast(),
            Some(free_sender),
        )
    };
    if callback_id < 0 {
        let error = LibvirtError::last_error();
        // SAFETY: registration failed, so libvirt has not taken the sender over.
        drop(unsafe { Box::from_raw(sender) });
        return Err(error);
    }
    Ok(RemovedDevices {
        connect: connect.clone(),
        callback_id,
        aliases,
    })
}

impl Drop for RemovedDevices {
    fn drop(&mut self) {
        // SAFETY: the connection is alive, since this struct holds a reference to it.
        let outcome =
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), self.callback_id) };
        if outcome < 0 {
            log::debug!(
                "deregistering a device event: {}",
                LibvirtError::last_error().message()
            );
        }
    }
}

extern "C" fn device_removed(
    _connect: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    alias: *const c_char,
    sender: *mut c_void,
) {
    // SAFETY: libvirt gives a valid string and the pointer of the registration, which is freed only afterwards.
    let (alias, sender) = unsafe { (CStr::from_ptr(alias), &*sender.cast::<Sender<String>>()) };
    // The receiver may just have been dropped.
    let _ = sender.send(alias.to_string_lossy().into_owned());
}

extern "C" fn free_sender(sender: *mut c_void) {
    // SAFETY: libvirt calls this once, with the pointer of the registration, after the last event.
    drop(unsafe { Box::from_raw(sender.cast::<Sender<String>>()) });
}

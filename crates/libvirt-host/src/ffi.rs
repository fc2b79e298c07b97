//! The libvirt calls that the `virt` crate lacks; the only `unsafe` code.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_void};
use std::sync::mpsc::{Receiver, Sender, channel};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as LibvirtError;
use virt::stream::Stream;
use virt::sys;

thread_local! {
    /// Message and errno of the last system error that libvirt reported in this thread.
    static LAST_SYSTEM_ERROR: RefCell<Option<(String, i32)>> = const { RefCell::new(None) };
}

/// virSetErrorFunc: keeps libvirt from printing its errors to stderr, and keeps the errno of system errors, which libvirtd
/// sends along and `virt` 0.5 drops.
pub(super) fn note_errors() {
    // SAFETY: the callback is a function of this program and takes no data.
    unsafe { sys::virSetErrorFunc(std::ptr::null_mut(), Some(note_error)) };
}

extern "C" fn note_error(_data: *mut c_void, error: sys::virErrorPtr) {
    // SAFETY: libvirt calls this with an error of the calling thread, which stays as it is until the call returns.
    let (code, message, errno) = unsafe {
        let error = &*error;
        (error.code, error.message, error.int1)
    };
    if code.cast_unsigned() != sys::VIR_ERR_SYSTEM_ERROR || message.is_null() {
        return;
    }
    // SAFETY: the message of an error ends with a zero.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // A thread that is just ending decides nothing any more.
    let _ = LAST_SYSTEM_ERROR.try_with(|last| *last.borrow_mut() = Some((message, errno)));
}

/// The errno of the system error with this message, if it was the last one of this thread.
pub(super) fn errno_of(message: &str) -> Option<i32> {
    LAST_SYSTEM_ERROR
        .try_with(|last| {
            let last = last.borrow();
            let (_, errno) = last.as_ref().filter(|(noted, _)| noted == message)?;
            Some(*errno).filter(|errno| *errno > 0)
        })
        .ok()
        .flatten()
}

unsafe extern "C" {
    /// Of the C library, for what libvirt allocates and hands over.
    fn free(pointer: *mut c_void);
}

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

/// virDomainManagedSaveGetXMLDesc: `virt` 0.5 lacks it.
pub(super) fn managed_save_xml(domain: &Domain) -> Result<String, LibvirtError> {
    // SAFETY: the domain outlives the call; libvirt hands over a string of its own allocation, which is copied before
    // it is freed.
    unsafe {
        let text = sys::virDomainManagedSaveGetXMLDesc(domain.as_ptr(), 0);
        if text.is_null() {
            return Err(LibvirtError::last_error());
        }
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        free(text.cast());
        Ok(copy)
    }
}

/// As many as libvirt's protocol carries.
const MAX_DISK_ERRORS: usize = 256;

/// virDomainGetDiskErrors: `virt` 0.5 lacks it. Target names (`vda`, ...) of disks that QEMU has an I/O error of, each
/// with `VIR_DOMAIN_DISK_ERROR_*`.
pub(super) fn disk_errors(domain: &Domain) -> Result<Vec<(String, u32)>, LibvirtError> {
    let empty = sys::virDomainDiskError {
        disk: std::ptr::null_mut(),
        error: 0,
    };
    let mut errors = vec![empty; MAX_DISK_ERRORS];
    // SAFETY: libvirt fills at most as many elements as there are, with strings of its own allocation, each of which is
    // copied before it is freed.
    unsafe {
        let count =
            sys::virDomainGetDiskErrors(domain.as_ptr(), errors.as_mut_ptr(), MAX_DISK_ERRORS as u32, 0);
        let Ok(count) = usize::try_from(count) else {
            return Err(LibvirtError::last_error());
        };
        let found = errors.into_iter().take(count).map(|error| {
            let disk = CStr::from_ptr(error.disk).to_string_lossy().into_owned();
            free(error.disk.cast());
            (disk, error.error.cast_unsigned())
        });
        Ok(found.collect())
    }
}

/// What libvirt says of a domain's job.
pub(super) struct Job {
    pub kind: u32,
    /// What it is about, `VIR_DOMAIN_JOB_OPERATION_*`.
    pub operation: u32,
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
        let mut operation = 0;
        let name = sys::VIR_DOMAIN_JOB_OPERATION.as_ptr();
        sys::virTypedParamsGetInt(parameters, count, name, &mut operation);
        sys::virTypedParamsFree(parameters, count);
        Ok(Job {
            kind: job_type.cast_unsigned(),
            operation: operation.cast_unsigned(),
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

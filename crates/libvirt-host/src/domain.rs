//! Domains: the VMs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use virt::domain::{Domain as VirtDomain, DomainStateEnum, DomainStateReasonEnum};
use virt::enumutil::Enum;
use virt::error::{Error as LibvirtError, ErrorNumber};
use virt::sys;

use super::Connection;
use super::busy::when_no_other_job;
use super::connection::parse;
use super::dnsmasq_directory;
use super::errors::{cause_in_text, cpi_error, is};
use super::ffi::{self, RemovedDevices};
use bosh_cpi::interrupt;
use bosh_cpi::logging;
use bosh_cpi::progress::Progress;
use bosh_cpi::rpc::{Cause, Error, ErrorType, Result};
use libvirt_xml::element::Element;
use libvirt_xml::masked;

/// How long libvirt may take to notice that a VM has ended, seen from a call that failed for that.
const END_NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// The same where libvirt's words say that QEMU is gone: on a busy host, it takes its time to draw the conclusion.
const SURE_END_NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// How long an aborted job may take to end.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A VM, running or only defined.
pub struct Domain {
    pub(super) domain: VirtDomain,
    pub name: String,
}

/// Which of a VM's two descriptions a change is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// The running VM.
    Live,
    /// What is started next time.
    Persistent,
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Live => "running",
            Self::Persistent => "next start",
        })
    }
}

impl Changes {
    fn flags(self) -> u32 {
        match self {
            Self::Live => sys::VIR_DOMAIN_AFFECT_LIVE,
            Self::Persistent => sys::VIR_DOMAIN_AFFECT_CONFIG,
        }
    }
}

impl Domain {
    pub(super) fn new(domain: VirtDomain, name: &str) -> Self {
        Self {
            domain,
            name: name.to_owned(),
        }
    }

    fn state(&self) -> Result<DomainStateEnum> {
        self.state_and_reason().map(|(state, _)| state)
    }

    pub(super) fn state_and_reason(&self) -> Result<(DomainStateEnum, DomainStateReasonEnum)> {
        match self.domain.state() {
            // The crate says nothing of an error of libvirt's, which leaves the state at -1.
            Ok((Enum::Unknown(u32::MAX), _)) => Err(LibvirtError::last_error()),
            state => state,
        }
        .map_err(|e| self.failed("looking at", e))
    }

    pub fn is_active(&self) -> Result<bool> {
        self.domain.is_active().map_err(|e| self.failed("looking at", e))
    }

    /// False for a transient domain, which is gone when it stops: nothing is defined for its next start.
    pub fn is_persistent(&self) -> Result<bool> {
        self.domain
            .is_persistent()
            .map_err(|e| self.failed("looking at", e))
    }

    /// Whether it is known not to run; one that another call has deleted meanwhile does not.
    fn has_ended(&self) -> bool {
        match self.is_active() {
            Ok(active) => !active,
            Err(e) => e.error_type == ErrorType::VmNotFound,
        }
    }

    /// Boots a VM that has just been defined.
    pub fn start(&self) -> Result<()> {
        self.start_by(|| self.domain.create().map(drop))
    }

    /// Boots a VM that does not run. A state that libvirt has saved of it (`virsh managedsave`) is discarded: the disks
    /// may have changed since.
    pub fn boot(&self) -> Result<()> {
        // Drivers without saved states say so.
        if self.has_saved_state().unwrap_or(false) {
            log::warn!(
                "VM {}: discarding the state that libvirt has saved (managed save); the VM boots",
                self.name
            );
        }
        self.start_by(|| self.domain.create_with_flags(sys::VIR_DOMAIN_START_FORCE_BOOT))
    }

    /// On a fresh host only after libvirt has created its directory for dnsmasq.
    fn start_by(&self, create: impl Fn() -> std::result::Result<(), LibvirtError>) -> Result<()> {
        interrupt::check()?;
        let Err(error) = create() else {
            return Ok(());
        };
        if dnsmasq_directory::missing(&error).is_none() {
            return Err(self.failed("starting", error));
        }
        dnsmasq_directory::create(&self.domain.connect().map_err(|e| self.failed("starting", e))?);
        interrupt::check()?;
        let Err(error) = create() else {
            return Ok(());
        };
        let advice = dnsmasq_directory::missing(&error).map(|directory| {
            format!("; if {directory} does not exist on the host, create it there: `mkdir -p {directory}`")
        });
        let mut error = self.failed("starting", error);
        error.message.push_str(&advice.unwrap_or_default());
        Err(error)
    }

    /// Makes libvirt start the VM together with itself.
    pub fn set_autostart(&self) -> Result<()> {
        self.domain
            .set_autostart(true)
            .map_err(|e| self.failed("setting autostart of", e))
    }

    /// Stops the VM at once; one that does not run is fine.
    pub fn destroy(&self) -> Result<()> {
        match self.domain.destroy() {
            Ok(()) => Ok(()),
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(()),
            Err(e) if is(&e, ErrorNumber::OperationInvalid) && self.has_ended() => Ok(()),
            Err(e) => Err(self.failed("stopping", e)),
        }
    }

    /// Forgets the VM's definition with all that libvirt keeps for it; its volumes stay. One that another call has started
    /// since it was stopped would go on as a transient domain, so it is stopped again.
    pub fn undefine(&self) -> Result<()> {
        self.undefine_only()?;
        self.destroy()
    }

    fn undefine_only(&self) -> Result<()> {
        let all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        match self
            .domain
            .undefine_flags(all | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        {
            // Libvirt below 5.6 does not know checkpoints.
            Err(e) if is(&e, ErrorNumber::InvalidArg) => self.domain.undefine_flags(all),
            outcome => outcome,
        }
        .or_else(|e| {
            if is(&e, ErrorNumber::NoDomain) {
                Ok(())
            } else {
                Err(self.failed("undefining", e))
            }
        })
    }

    /// Resets a machine that runs; a paused one goes on. False where it has to be booted: a guest that has crashed or
    /// sleeps is stopped, since QEMU does not go on with it after a reset.
    pub fn reset(&self) -> Result<bool> {
        use virt::domain::DomainState::{Paused, Running};
        let state = self.state()?;
        if !state.is(Running) && !state.is(Paused) {
            if self.is_active()? {
                self.destroy()?;
            }
            return Ok(false);
        }
        self.domain.reset().map_err(|e| self.failed("resetting", e))?;
        if state.is(Paused) {
            self.domain.resume().map_err(|e| self.failed("resuming", e))?;
        }
        Ok(true)
    }

    /// The running VM's description, or that of the next start when it does not run.
    pub fn xml(&self) -> Result<Element> {
        self.xml_with(0)
    }

    /// The description that the next start will use.
    pub fn persistent_xml(&self) -> Result<Element> {
        self.xml_with(sys::VIR_DOMAIN_XML_INACTIVE)
    }

    fn xml_with(&self, flags: u32) -> Result<Element> {
        let text = self
            .domain
            .xml_desc(flags)
            .map_err(|e| self.failed("reading", e))?;
        parse(&format!("VM {}", self.name), &text)
    }

    pub fn has_saved_state(&self) -> Result<bool> {
        self.domain
            .has_managed_save(0)
            .map_err(|e| self.failed("looking for the saved state of", e))
    }

    /// What the VM resumes with at its next start, which then ignores the definition. None without a saved state.
    pub fn saved_xml(&self) -> Result<Option<Element>> {
        if !self.has_saved_state()? {
            return Ok(None);
        }
        let text =
            ffi::managed_save_xml(&self.domain).map_err(|e| self.failed("reading the saved state of", e))?;
        parse(&format!("the saved VM {}", self.name), &text).map(Some)
    }

    /// Whether the VM's live or persistent XML, or that of its managed save image if it is known to have one, has one of
    /// these texts in it, as libvirt writes them; cheaper than parsing it.
    pub fn mentions(&self, texts: &[String], is_saved: bool) -> Result<bool> {
        let has_one = |xml: &str| texts.iter().any(|text| xml.contains(text.as_str()));
        let has = |flags| {
            let xml = self
                .domain
                .xml_desc(flags)
                .map_err(|e| self.failed("reading", e))?;
            Ok::<bool, Error>(has_one(&xml))
        };
        // Only a running VM has two: without an id it does not run.
        if has(sys::VIR_DOMAIN_XML_INACTIVE)? || (self.domain.id().is_some() && has(0)?) {
            return Ok(true);
        }
        Ok(is_saved && self.saved_xml()?.is_some_and(|saved| has_one(&saved.to_string())))
    }

    /// Adds a device.
    pub fn attach_device(&self, device: &Element, to: Changes) -> Result<()> {
        let _step = logging::step(format!("attaching a {} to VM {} ({to})", device.name, self.name));
        log::debug!("VM {}: {}", self.name, masked(device));
        interrupt::check()?;
        self.domain
            .attach_device_flags(&device.to_string(), to.flags())
            .map_err(|e| {
                let error = self.failed("attaching a device to", e);
                match to {
                    Changes::Live => self.unless_ended(error),
                    Changes::Persistent => error,
                }
            })
    }

    /// What a change of the running VM failed for. Where the VM has ended meanwhile, libvirt's words are about anything
    /// else, and the same call works on the stopped VM.
    fn unless_ended(&self, error: Error) -> Error {
        let within = if error.cause == Cause::QemuGone {
            SURE_END_NOTICED_WITHIN
        } else {
            END_NOTICED_WITHIN
        };
        let deadline = Instant::now() + within;
        loop {
            match self.is_active() {
                Ok(false) => {
                    let message = format!("VM {} has stopped in the middle of it ({error})", self.name);
                    return Error::cloud(message).retryable();
                }
                Ok(true) if Instant::now() < deadline => sleep(Duration::from_millis(50)),
                _ => return error,
            }
        }
    }

    /// Takes a device out of the next start's description, or asks the running guest to release it: libvirt
    /// reports success for the request, not for its fulfilment.
    pub fn detach_device(&self, device: &Element, from: Changes) -> Result<()> {
        let _step = logging::step(format!(
            "detaching a {} from VM {} ({from})",
            device.name, self.name
        ));
        log::debug!("VM {}: {}", self.name, masked(device));
        self.domain
            .detach_device_flags(&device.to_string(), from.flags())
            .map_err(|e| self.failed("detaching a device from", e))
    }

    /// Reports devices that leave the running VM from now on. None when events do not work here.
    pub fn watch_removed_devices(&self, connection: &Connection) -> Option<RemovedDevices> {
        ffi::watch_removed_devices(&connection.connect, &self.domain)
            .inspect_err(|e| log::debug!("no events of VM {}: {}", self.name, e.message()))
            .ok()
    }

    /// Grows a disk (by its target name, such as `vdd`) under the running guest, which is told.
    pub fn resize_disk(&self, target: &str, bytes: u64) -> Result<()> {
        self.domain
            .block_resize(target, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            .map_err(|e| self.unless_ended(self.failed("resizing a disk of", e)))
    }

    /// Copies disks of the running VM as they are at one moment, without stopping it, to volumes that exist.
    /// Returns when the copy is complete; on failure the job is ended.
    pub fn back_up(&self, backup: &Element) -> Result<()> {
        let text = backup.to_string();
        when_no_other_job(
            || self.is_active().unwrap_or(false),
            || ffi::backup_begin(&self.domain, &text, sys::VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL),
        )
        .map_err(|e| {
            let error = self.failed("copying a disk of", e.clone());
            if is(&e, ErrorNumber::OperationUnsupported) {
                error.with_type(ErrorType::NotSupported)
            } else {
                error
            }
        })
        .and_then(|()| self.wait_for_backup().inspect_err(|_| self.end_backup()))
        .map_err(|error| {
            if interrupt::check().is_err() {
                error
            } else {
                self.unless_ended(error)
            }
        })
    }

    /// Returns when the job has ended, within bounds: only then nobody writes to the copy any more.
    fn end_backup(&self) {
        if let Err(e) = ffi::abort_job(&self.domain) {
            log::debug!("aborting a job of VM {}: {}", self.name, e.message());
            return;
        }
        let deadline = Instant::now() + ABORT_TIMEOUT;
        while ffi::job(&self.domain, 0).is_ok_and(|job| job.kind != sys::VIR_DOMAIN_JOB_NONE) {
            if Instant::now() >= deadline {
                log::warn!("a job of VM {} was aborted and has not ended yet", self.name);
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_backup(&self) -> Result<()> {
        let failed = |e| self.failed("copying a disk of", e);
        // While libvirt gives the VM rights to the copy or takes them away, it answers nothing about the job. Where it
        // reloads an AppArmor profile for that on a busy host, it may be longer than it lets calls wait.
        let job = |flags| {
            when_no_other_job(
                || self.is_active().unwrap_or(false),
                || ffi::job(&self.domain, flags),
            )
        };
        // Nearly empty disks are copied in some milliseconds.
        let mut pause = Duration::from_millis(2);
        let mut progress = None;
        loop {
            let job = job(0).map_err(failed)?;
            if job.kind == sys::VIR_DOMAIN_JOB_NONE {
                break;
            }
            progress
                .get_or_insert_with(|| Progress::new(format!("copying a disk of {}", self.name), job.total))
                .at(job.processed);
            interrupt::check()?;
            sleep(pause);
            pause = (pause * 3 / 2).min(Duration::from_millis(250));
        }
        drop(progress);
        let job = job(sys::VIR_DOMAIN_JOB_STATS_COMPLETED).map_err(failed)?;
        if job.kind == sys::VIR_DOMAIN_JOB_COMPLETED {
            return Ok(());
        }
        let reason = job
            .message
            .unwrap_or_else(|| format!("the job ended with state {}", job.kind));
        let message = format!("copying a disk of VM {}: {reason}", self.name);
        Err(match cause_in_text(&reason) {
            Cause::Full => Error::new(ErrorType::NoDiskSpace, message).because(Cause::Full),
            _ => Error::cloud(message).retryable(),
        })
    }

    /// Replaces the VM's metadata element of this namespace, in both descriptions; None removes it.
    pub fn set_metadata(&self, prefix: &str, namespace: &str, metadata: Option<&Element>) -> Result<()> {
        let text = metadata.map(ToString::to_string);
        self.set(
            sys::VIR_DOMAIN_METADATA_ELEMENT,
            text.as_deref(),
            Some(prefix),
            Some(namespace),
        )
    }

    /// The name that people see; None removes it. Libvirt takes no line breaks in it.
    pub fn set_title(&self, title: Option<&str>) -> Result<()> {
        self.set(sys::VIR_DOMAIN_METADATA_TITLE, title, None, None)
    }

    fn set(
        &self,
        kind: u32,
        text: Option<&str>,
        prefix: Option<&str>,
        namespace: Option<&str>,
    ) -> Result<()> {
        let live = if self.is_active()? {
            sys::VIR_DOMAIN_AFFECT_LIVE
        } else {
            0
        };
        let persistent = if live == 0 || self.is_persistent()? {
            sys::VIR_DOMAIN_AFFECT_CONFIG
        } else {
            0
        };
        let flags = live | persistent;
        self.domain
            .set_metadata(kind.cast_signed(), text, prefix, namespace, flags)
            .map_err(|e| self.failed("setting metadata of", e))
    }

    pub(super) fn failed(&self, doing: &str, e: LibvirtError) -> Error {
        if is(&e, ErrorNumber::NoDomain) {
            return Error::new(
                ErrorType::VmNotFound,
                format!("{doing} VM {}: it does not exist", self.name),
            );
        }
        cpi_error(e).during(format!("{doing} VM {}", self.name))
    }
}

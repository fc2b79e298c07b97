//! What only operators ask libvirt: to look, not to change.

use serde::Serialize;
use virt::domain::{DomainPausedReason, DomainShutoffReason, DomainState, DomainStateReason};
use virt::enumutil::Enum;
use virt::error::ErrorNumber;
use virt::sys;

use super::connection::parse;
use super::errors::{cpi_error, is};
use super::ffi;
use super::{Connection, Domain, Network, Pool, Volume, VolumeState};
use bosh_cpi::interrupt;
use bosh_cpi::rpc::Result;
use libvirt_xml::element::Element;

/// A volume, with what no call of BOSH's needs.
#[derive(Debug, Clone)]
pub struct VolumeDetails {
    pub state: VolumeState,
    pub path: String,
}

/// A pool, whether or not it is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    /// As libvirt calls it: `dir`, `rbd`, ...
    pub kind: String,
    pub active: bool,
    pub autostart: bool,
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that are free.
    pub available: u64,
    /// Directory or device on the host, or empty.
    pub target: String,
    /// What the pool is called where its storage is, as a Ceph pool is; or empty.
    pub source_name: String,
}

impl Volume {
    /// # Errors
    /// `DiskNotFound` for a volume that has gone meanwhile.
    pub fn details(&self) -> Result<VolumeDetails> {
        let xml = self.xml()?;
        let target = xml.child("target");
        Ok(VolumeDetails {
            state: VolumeState::read(&self.name, &xml)?,
            path: target
                .and_then(|target| target.child("path"))
                .map(Element::text)
                .unwrap_or_default(),
        })
    }
}

impl Pool {
    /// # Errors
    /// What libvirt says.
    pub fn info(&self) -> Result<PoolInfo> {
        let failed = |e| cpi_error(e).during(format!("looking at storage pool {}", self.name));
        let xml = self.xml()?;
        let info = self.pool.info().map_err(failed)?;
        Ok(PoolInfo {
            kind: xml.attribute("type").unwrap_or("unknown").to_owned(),
            active: self.pool.is_active().map_err(failed)?,
            autostart: self.pool.autostart().map_err(failed)?,
            capacity: info.capacity,
            available: info.available,
            target: xml
                .descend(&["target", "path"])
                .map(Element::text)
                .unwrap_or_default(),
            source_name: xml
                .descend(&["source", "name"])
                .map(Element::text)
                .unwrap_or_default(),
        })
    }
}

/// A VM's state, as libvirt tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DomainStatus {
    /// `running`, `off`, `saved`, `paused`, `I/O error`, `crashed`, ...: in one or two words.
    pub state: &'static str,
    /// Why, where that says more than the state.
    pub reason: Option<String>,
    #[serde(skip)]
    pub active: bool,
    /// Whether it is gone for good when it stops: it has no persistent definition.
    pub transient: bool,
    /// What another program has libvirt do to it just now.
    pub job: Option<&'static str>,
}

impl DomainStatus {
    fn new(state: &'static str, reason: Option<&str>) -> Self {
        Self {
            state,
            reason: reason.map(str::to_owned),
            ..Self::default()
        }
    }
}

/// `state`, or `state: reason`.
impl std::fmt::Display for DomainStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{}: {reason}", self.state),
            None => f.write_str(self.state),
        }
    }
}

impl Domain {
    /// # Errors
    /// `VMNotFound` for a domain that is gone meanwhile.
    pub fn status(&self) -> Result<DomainStatus> {
        use DomainState::{Blocked, Crashed, NoState, PMSuspended, Paused, Running, Shutdown, Shutoff};
        let (state, reason) = self.state_and_reason()?;
        let Enum::Known(state) = state else {
            return Ok(DomainStatus::new("unknown", None));
        };
        let mut status = match (state, reason) {
            (Running | Blocked | NoState, _) => DomainStatus::new("running", None),
            (Paused, Enum::Known(DomainStateReason::Paused(Enum::Known(reason)))) => self.paused(reason),
            (Paused, _) => DomainStatus::new("paused", None),
            (Shutdown, _) => DomainStatus::new("in shutdown", None),
            (Shutoff, _) if self.has_saved_state()? => DomainStatus::new("saved", None),
            (Shutoff, Enum::Known(DomainStateReason::Shutoff(Enum::Known(reason)))) => {
                DomainStatus::new("off", why_off(reason))
            }
            (Shutoff, _) => DomainStatus::new("off", None),
            (Crashed, _) => DomainStatus::new("crashed", None),
            (PMSuspended, _) => DomainStatus::new("pmsuspended", Some("the guest suspended to memory")),
        };
        status.active = self.is_active()?;
        status.transient = !self
            .domain
            .is_persistent()
            .map_err(|e| self.failed("looking at", e))?;
        if status.active {
            status.job = self.job_name();
        }
        Ok(status)
    }

    fn paused(&self, reason: DomainPausedReason) -> DomainStatus {
        use DomainPausedReason::{
            APIError, Crashed, Dump, FromSnapshot, IOError, Migration, PostCopy, PostCopyFailed, Save,
            ShuttingDown, Snapshot, StartingUp, Unknown, User, Watchdog,
        };
        let why = match reason {
            IOError => {
                return DomainStatus {
                    state: "I/O error",
                    reason: self.disk_errors(),
                    ..DomainStatus::default()
                };
            }
            Unknown | User => None,
            Migration => Some("being migrated"),
            Save => Some("being saved"),
            Dump => Some("being dumped"),
            Watchdog => Some("the watchdog fired"),
            FromSnapshot => Some("restored from a snapshot"),
            ShuttingDown => Some("shutting down"),
            Snapshot => Some("a snapshot is being taken"),
            Crashed => Some("the guest crashed"),
            StartingUp => Some("starting up"),
            PostCopy => Some("in post-copy migration"),
            PostCopyFailed => Some("post-copy migration failed"),
            APIError => Some("a call of libvirt's failed"),
        };
        DomainStatus::new("paused", why)
    }

    /// `no space on vdc`, for each disk that stopped the guest; None where QEMU does not tell.
    fn disk_errors(&self) -> Option<String> {
        let errors = ffi::disk_errors(&self.domain)
            .inspect_err(|e| log::debug!("disk errors of VM {}: {}", self.name, e.message()))
            .unwrap_or_default();
        let each = errors.iter().map(|(disk, error)| match *error {
            sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE => format!("no space on {disk}"),
            _ => format!("on {disk}"),
        });
        let all = each.collect::<Vec<_>>().join(", ");
        (!all.is_empty()).then_some(all)
    }

    /// A job of whichever program. A QEMU that does not answer has none that could be told.
    fn job_name(&self) -> Option<&'static str> {
        let job = ffi::job(&self.domain, 0)
            .inspect_err(|e| log::debug!("the job of VM {}: {}", self.name, e.message()))
            .ok()?;
        if job.kind == sys::VIR_DOMAIN_JOB_NONE {
            return None;
        }
        Some(match job.operation {
            sys::VIR_DOMAIN_JOB_OPERATION_START => "being started",
            sys::VIR_DOMAIN_JOB_OPERATION_SAVE => "being saved",
            sys::VIR_DOMAIN_JOB_OPERATION_RESTORE => "being restored",
            sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN | sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT => {
                "being migrated"
            }
            sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT => {
                "a snapshot is being taken or reverted"
            }
            sys::VIR_DOMAIN_JOB_OPERATION_DUMP => "being dumped",
            sys::VIR_DOMAIN_JOB_OPERATION_BACKUP => "being backed up",
            _ => "in a job of libvirt's",
        })
    }
}

/// Why a VM is off, where an operator must know.
fn why_off(reason: DomainShutoffReason) -> Option<&'static str> {
    use DomainShutoffReason::{Crashed, Failed, Migrated, Saved};
    match reason {
        Crashed => Some("it crashed"),
        Failed => Some("it did not start"),
        Migrated => Some("it was migrated to another host"),
        Saved => Some("somebody saved it to a file; virsh restore resumes it"),
        _ => None,
    }
}

impl Domain {
    /// MAC and IP addresses that libvirt's DHCP has given to the running VM.
    ///
    /// # Errors
    /// What libvirt says, for a VM that does not run among others.
    pub fn leased_addresses(&self) -> Result<Vec<(String, String)>> {
        let interfaces = self
            .domain
            .interface_addresses(sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0)
            .map_err(|e| self.failed("asking for the addresses of", e))?;
        let mut addresses = Vec::new();
        for interface in interfaces {
            let mac = interface.hwaddr.unwrap_or_default();
            addresses.extend(
                interface
                    .addrs
                    .into_iter()
                    .map(|address| (mac.clone(), address.addr)),
            );
        }
        Ok(addresses)
    }
}

impl Network {
    /// Whether libvirt starts the network by itself.
    pub fn autostart(&self) -> Result<bool> {
        self.network.autostart().map_err(|e| self.failed("looking at", e))
    }
}

impl Connection {
    /// The pool of this name as it is, active or not, if there is one.
    pub fn find_pool(&self, name: &str) -> Result<Option<Pool>> {
        match self.connect.lookup_storage_pool_by_name(name) {
            Ok(pool) => Ok(Some(Pool::new(pool, name))),
            Err(e) if is(&e, ErrorNumber::NoStoragePool) => Ok(None),
            Err(e) => Err(cpi_error(e).during(format!("looking up storage pool {name}"))),
        }
    }

    /// The pools that are not active, so that nobody knows what is in them.
    pub fn inactive_pools(&self) -> Result<Vec<Pool>> {
        self.pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)
    }

    /// Names of the pools that are not active, and the directories or devices on the host where their volumes are.
    pub fn inactive_pool_targets(&self) -> Result<Vec<(String, String)>> {
        let mut targets = Vec::new();
        for pool in self.pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)? {
            // Pools come and go while we look.
            if let Ok(xml) = pool.xml()
                && let Some(path) = xml.descend(&["target", "path"])
            {
                targets.push((pool.name.clone(), path.text()));
            }
        }
        Ok(targets)
    }

    /// What libvirt confines VMs with: `apparmor`, `selinux`, `dac`.
    pub fn security_models(&self) -> Result<Vec<String>> {
        let capabilities = self.capabilities()?;
        let host = capabilities.child("host");
        Ok(host
            .into_iter()
            .flat_map(|host| host.children_named("secmodel"))
            .filter_map(|model| model.child("model"))
            .map(Element::text)
            .collect())
    }

    /// What guests of this type (`kvm`, `qemu`) can have here.
    pub fn domain_capabilities(&self, domain_type: &str) -> Result<Element> {
        let text = self
            .connect
            .domain_capabilities(None, None, None, Some(domain_type), 0)
            .map_err(|e| cpi_error(e).during(format!("asking what {domain_type} guests can have")))?;
        parse("domain capabilities", &text)
    }

    /// Starts a VM, perhaps paused, that is forgotten when it ends, which it does with this connection at the latest.
    pub fn start_passing(&self, xml: &Element, name: &str, paused: bool) -> Result<Domain> {
        interrupt::check()?;
        let paused = if paused { sys::VIR_DOMAIN_START_PAUSED } else { 0 };
        let flags = paused | sys::VIR_DOMAIN_START_AUTODESTROY;
        let domain = self
            .connect
            .create_domain_xml(&xml.to_string(), flags)
            .map_err(|e| cpi_error(e).during(format!("starting VM {name}")))?;
        Ok(Domain::new(domain, name))
    }
}

//! The connection to one libvirtd.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::Domain as VirtDomain;
use virt::error::ErrorNumber;
use virt::storage_pool::StoragePool;
use virt::sys;

use super::errors::{cpi_error, is};
use super::open::{NotOpen, open};
use super::private_files::PrivateFiles;
use super::{Domain, Network, Pool};
use super::{ffi, refusal, uri, warnings};
use bosh_cpi::interrupt;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::DomainType;
use libvirt_xml::element::Element;
use libvirt_xml::masked;

/// How long a libvirtd that refuses is left alone.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// An open connection.
pub struct Connection {
    pub(super) connect: Connect,
    /// As opened, without secrets.
    pub uri: String,
    /// Pools by name, as they were found to be active.
    pools: RefCell<BTreeMap<String, Pool>>,
    /// How to connect again.
    config: cpi_config::Libvirt,
    /// For rolling back after this connection was lost; the error when there is none either.
    second: OnceCell<Result<Box<Self>>>,
    /// What could not be rolled back.
    orphans: RefCell<Vec<String>>,
}

impl Connection {
    /// Whether libvirtd most likely runs on this machine.
    pub fn is_local(&self) -> bool {
        uri::is_local(&self.uri)
    }

    /// Connects as the configuration says, within `libvirt.connect_timeout`.
    ///
    /// # Errors
    /// `CloudError` naming the URI, ok to retry where the host could not be reached, and not where it, or we,
    /// refused to go on for a reason that a second try does not cure.
    pub fn open(config: &cpi_config::Libvirt) -> Result<Self> {
        // Expected errors are part of the work here; libvirt would print each one to stderr.
        ffi::note_errors();
        // Libvirt has read the files once it is connected, so they go at the end of this function.
        let private = PrivateFiles::write(config)?;
        let full_uri = uri::of(config, private.as_ref().map(PrivateFiles::path));
        let uri = uri::without_parameters(&full_uri).to_owned();
        let connect = open(config, &full_uri).map_err(|not_open| {
            let error = match not_open {
                NotOpen::Interrupted(error) => error,
                NotOpen::TimedOut => refusal::timed_out(config.connect_timeout),
                NotOpen::Refused(refused) => {
                    let warnings = if refusal::needs_warnings(&refused.message) {
                        warnings::said_during(|| drop(open(config, &full_uri))).unwrap_or_default()
                    } else {
                        String::new()
                    };
                    refusal::explain(config, &refused, &warnings)
                }
            };
            error.during(format!("connecting to libvirt at {uri}"))
        })?;
        Ok(Self {
            connect,
            uri,
            pools: RefCell::default(),
            config: config.clone(),
            second: OnceCell::new(),
            orphans: RefCell::default(),
        })
    }

    /// A connection to roll back by: a second one where this one was lost, tried for within one
    /// `libvirt.connect_timeout`, so that a host that stays away does not cost one for each step.
    ///
    /// # Errors
    /// As for `open`.
    pub fn for_undo(&self) -> Result<&Self> {
        if self.is_alive() {
            self.forget_pools();
            return Ok(self);
        }
        let second = self.second.get_or_init(|| {
            let _step = logging::step("connecting to libvirt again, to roll back");
            Self::open_again(&self.config).map(Box::new)
        });
        second.as_deref().map_err(Clone::clone)
    }

    pub(super) fn note_orphan(&self, what: String) {
        self.orphans.borrow_mut().push(what);
    }

    /// What could not be rolled back so far.
    pub fn orphans(&self) -> Vec<String> {
        self.orphans.borrow().clone()
    }

    /// Connects again after a connection was lost. A libvirtd that is being restarted refuses to be connected to for a
    /// moment, so it is tried again and again, within `libvirt.connect_timeout` in all.
    ///
    /// # Errors
    /// The last attempt's, as for `open`.
    fn open_again(config: &cpi_config::Libvirt) -> Result<Self> {
        let mut config = config.clone();
        let deadline = Instant::now() + Duration::from_secs(config.connect_timeout);
        loop {
            match Self::open(&config) {
                Err(error) if error.ok_to_retry && Instant::now() + TRY_AGAIN_AFTER < deadline => {
                    log::debug!("connecting again: {error}");
                    sleep(TRY_AGAIN_AFTER);
                    let left = deadline.saturating_duration_since(Instant::now());
                    config.connect_timeout = left.as_secs().max(1);
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether the host is still there, as far as is known without asking it.
    pub fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// The pool of this name, started if it was inactive. One call asks for the same few pools again and again; libvirt
    /// is asked once.
    ///
    /// # Errors
    /// `CloudError` naming the pool when there is none or it does not start.
    pub fn pool(&self, name: &str) -> Result<Pool> {
        if let Some(pool) = self.pools.borrow().get(name) {
            return Ok(pool.clone());
        }
        let pool = self.look_up_pool(name)?;
        self.pools.borrow_mut().insert(name.to_owned(), pool.clone());
        Ok(pool)
    }

    /// Has libvirt asked for each pool anew, as before a roll-back: what failed may have stopped one.
    fn forget_pools(&self) {
        self.pools.borrow_mut().clear();
    }

    fn look_up_pool(&self, name: &str) -> Result<Pool> {
        let pool = self.connect.lookup_storage_pool_by_name(name).map_err(|e| {
            if is(&e, ErrorNumber::NoStoragePool) {
                Error::cloud(format!(
                    "storage pool {name} does not exist at {}; define it, or name another",
                    self.uri
                ))
            } else {
                cpi_error(e).during(format!("looking up storage pool {name}"))
            }
        })?;
        Pool::started(pool, name)
    }

    /// Every pool that is active now, ours or not.
    pub fn active_pools(&self) -> Result<Vec<Pool>> {
        self.pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    }

    /// The name of the pool, active or not, whose volumes are in this directory of the host.
    pub fn pool_at(&self, directory: &str) -> Result<Option<String>> {
        match self.connect.lookup_storage_pool_by_target_path(directory) {
            Ok(pool) => return pool.name().map(Some).map_err(cpi_error),
            Err(e) if is(&e, ErrorNumber::NoStoragePool) => {}
            Err(e) => {
                return Err(cpi_error(e).during(format!("looking up the storage pool at {directory}")));
            }
        }
        // Libvirt looks for active ones only.
        for pool in self.pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)? {
            let Some(xml) = pool.unless_stopped(pool.xml())? else {
                continue;
            };
            let target = xml.descend(&["target", "path"]).map(Element::text);
            if target.is_some_and(|target| target.trim_end_matches('/') == directory) {
                return Ok(Some(pool.name.clone()));
            }
        }
        Ok(None)
    }

    pub(super) fn pools(&self, which: u32) -> Result<Vec<Pool>> {
        let pools: Vec<StoragePool> = self
            .connect
            .list_all_storage_pools(which)
            .map_err(|e| cpi_error(e).during("listing storage pools"))?;
        pools
            .into_iter()
            .map(|pool| {
                let name = pool.name().map_err(cpi_error)?;
                Ok(Pool::new(pool, &name))
            })
            .collect()
    }

    /// The domain of this name, if there is one.
    pub fn find_domain(&self, name: &str) -> Result<Option<Domain>> {
        match self.connect.lookup_domain_by_name(name) {
            Ok(domain) => Ok(Some(Domain::new(domain, name))),
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(None),
            Err(e) => Err(cpi_error(e).during(format!("looking up VM {name}"))),
        }
    }

    /// The domain of this name.
    ///
    /// # Errors
    /// `VMNotFound`.
    pub fn domain(&self, name: &str) -> Result<Domain> {
        self.find_domain(name)?.ok_or_else(|| {
            Error::new(
                ErrorType::VmNotFound,
                format!("VM {name} does not exist at {}", self.uri),
            )
        })
    }

    /// Every domain of the host, running or only defined, ours or not.
    pub fn all_domains(&self) -> Result<Vec<Domain>> {
        let domains: Vec<VirtDomain> = self
            .connect
            .list_all_domains(0)
            .map_err(|e| cpi_error(e).during("listing VMs"))?;
        domains
            .into_iter()
            .map(|domain| {
                let name = domain.name().map_err(cpi_error)?;
                Ok(Domain::new(domain, &name))
            })
            .collect()
    }

    /// Names of the domains with a managed save image, which they resume from at their next start.
    pub fn saved_domains(&self) -> Result<BTreeSet<String>> {
        let domains: Vec<VirtDomain> = self
            .connect
            .list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
            .map_err(|e| cpi_error(e).during("listing saved VMs"))?;
        domains
            .into_iter()
            .map(|domain| domain.name().map_err(cpi_error))
            .collect()
    }

    /// Defines a domain that survives a reboot of the host. It does not run yet.
    pub fn define_domain(&self, xml: &Element, name: &str) -> Result<Domain> {
        interrupt::check()?;
        let _step = logging::step(format!("defining VM {name}"));
        log::debug!("VM {name}: {}", masked(xml));
        let domain = self
            .connect
            .define_domain_xml(&xml.to_string())
            .map_err(|e| cpi_error(e).during(format!("defining VM {name}")))?;
        Ok(Domain::new(domain, name))
    }

    /// The network of this name, if there is one.
    pub fn find_network(&self, name: &str) -> Result<Option<Network>> {
        match self.connect.lookup_network_by_name(name) {
            Ok(network) => Ok(Some(Network::new(network, name))),
            Err(e) if is(&e, ErrorNumber::NoNetwork) => Ok(None),
            Err(e) => Err(cpi_error(e).during(format!("looking up network {name}"))),
        }
    }

    /// KVM where the host offers it, else QEMU's emulation.
    pub fn best_domain_type(&self) -> Result<DomainType> {
        let capabilities = self.capabilities()?;
        let offers_kvm = capabilities
            .children_named("guest")
            .filter_map(|guest| guest.child("arch"))
            .flat_map(|arch| arch.children_named("domain"))
            .any(|domain| domain.attribute("type") == Some("kvm"));
        Ok(if offers_kvm {
            DomainType::Kvm
        } else {
            DomainType::Qemu
        })
    }

    pub(super) fn capabilities(&self) -> Result<Element> {
        let text = self
            .connect
            .capabilities()
            .map_err(|e| cpi_error(e).during("reading the host's capabilities"))?;
        parse("capabilities", &text)
    }

    /// The most virtual CPUs that a VM of this type can have.
    pub fn max_vcpus(&self, domain_type: DomainType) -> Result<u64> {
        let name = match domain_type {
            DomainType::Auto => return self.max_vcpus(self.best_domain_type()?),
            DomainType::Kvm => "kvm",
            DomainType::Qemu => "qemu",
        };
        self.connect
            .max_vcpus(Some(name))
            .map(u64::from)
            .map_err(|e| cpi_error(e).during("reading how many CPUs a VM can have"))
    }

    /// CPUs (threads) and memory (MiB) of the host.
    pub fn host_size(&self) -> Result<(u64, u64)> {
        let node = self
            .connect
            .node_info()
            .map_err(|e| cpi_error(e).during("reading the host's size"))?;
        Ok((u64::from(node.cpus), node.memory / 1024))
    }
}

/// Parses what libvirt itself wrote.
pub(super) fn parse(what: &str, text: &str) -> Result<Element> {
    Element::parse(text).map_err(|e| Error::cpi(format!("libvirt's XML for {what} is {e}")))
}

#[cfg(test)]
impl Connection {
    /// libvirt's driver for tests, without a daemon.
    pub(super) fn of_test_driver() -> Self {
        Self {
            connect: Connect::open(Some("test:///default")).unwrap(),
            uri: "test:///default".to_owned(),
            pools: RefCell::default(),
            config: super::private_files::tests::libvirt(serde_json::json!({})),
            second: OnceCell::new(),
            orphans: RefCell::default(),
        }
    }
}

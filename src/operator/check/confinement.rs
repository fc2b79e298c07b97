//! AppArmor and SELinux: whether they are what stops QEMU.

use super::Finding;
use crate::operator::probe::Probe;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::Connection;
use libvirt_xml::element::Element;

/// A security model of libvirt that confines VMs by rules of its own. `dac`, the third, is file permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    AppArmor,
    SeLinux,
}

impl Model {
    /// The models that the host's libvirt confines VMs with.
    pub fn of_host(libvirt: &Connection) -> Result<Vec<Self>> {
        let names = libvirt.security_models()?;
        Ok([Self::AppArmor, Self::SeLinux]
            .into_iter()
            .filter(|model| names.iter().any(|name| name == model.libvirt_name()))
            .collect())
    }

    fn libvirt_name(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
        }
    }

    /// For a VM that this model is to leave alone.
    pub fn off(self) -> Element {
        Element::new("seclabel")
            .with_attribute("type", "none")
            .with_attribute("model", self.libvirt_name())
    }

    /// A VM starts without this model, and not with it.
    pub fn finding(self, what: &str, error: &Error, probe: Option<&Probe>) -> Finding {
        let name = match self {
            Self::AppArmor => "AppArmor",
            Self::SeLinux => "SELinux",
        };
        let Some(probe) = probe else {
            return Finding::failed(what, &format!("{name} keeps VMs from starting: "), error)
                .cured_by(format!("on the host: {}", self.denials()));
        };
        let pool = &probe.volume.pool;
        let directory = probe.volume.path().ok();
        let directory = directory
            .as_deref()
            .and_then(|path| path.rsplit_once('/'))
            .map_or("DIRECTORY", |(directory, _)| directory);
        Finding::wrong(
            what,
            format!("{name} keeps QEMU from a disk of pool {pool}: {error}"),
        )
        .cured_by(self.cure(directory))
    }

    fn denials(self) -> &'static str {
        match self {
            Self::AppArmor => "journalctl -k --grep=DENIED",
            Self::SeLinux => "ausearch -m avc -ts recent",
        }
    }

    fn cure(self, directory: &str) -> String {
        let denials = self.denials();
        match self {
            Self::AppArmor => format!(
                "move the pool to a directory that is not the system's own, as /var/lib/libvirt/bosh or /srv/bosh; if it \
                 is in one, see which rule of the host denies it: {denials}; ls /etc/apparmor.d/local/abstractions"
            ),
            Self::SeLinux => format!(
                "label the pool's directory, on the host: semanage fcontext -a -t virt_image_t '{directory}(/.*)?'; \
                 restorecon -R {directory}; on NFS: setsebool -P virt_use_nfs on; what was denied: {denials}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_is_switched_off_by_its_own_name() {
        for (model, name) in [(Model::AppArmor, "apparmor"), (Model::SeLinux, "selinux")] {
            assert_eq!(
                model.off().to_string(),
                format!("<seclabel type='none' model='{name}'/>")
            );
        }
    }
}

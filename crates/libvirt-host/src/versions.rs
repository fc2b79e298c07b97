//! Versions of the host's libvirt and QEMU, and what is done otherwise for old ones.

use virt::error::ErrorNumber;

use super::Connection;
use super::connection::parse;
use super::errors::{cpi_error, is, says_in_english_that_there_is_no_domain};
use bosh_cpi::rpc::{Error, Result};
use libvirt_xml::element::Element;

/// Versions of libvirt and QEMU from which on disks in use can be copied (push-mode backup), as libvirt counts them.
pub const LIVE_COPIES: (u32, u32) = (7_006_000, 6_001_000);

/// The version of libvirt from which on secure boot can be declined.
const CHOICE_OF_SECURE_BOOT: u32 = 7_002_000;

/// A version as people write it.
pub fn version(number: u32) -> String {
    format!(
        "{}.{}.{}",
        number / 1_000_000,
        number / 1000 % 1000,
        number % 1000
    )
}

impl Connection {
    /// Versions of libvirtd and of its QEMU, as libvirt counts: 9001002 is 9.1.2.
    pub fn versions(&self) -> Result<(u32, u32)> {
        let failed = |e| cpi_error(e).during("asking for versions");
        Ok((
            self.connect.lib_version().map_err(failed)?,
            self.connect.hyp_version().map_err(failed)?,
        ))
    }

    /// Whether the host's daemon speaks English; what it says of a domain that does not exist shows it. Its messages are
    /// not understood else, as far as libvirt has no number for what they say.
    pub fn speaks_english(&self) -> Result<bool> {
        let nobody = uuid::Uuid::new_v4().to_string();
        match self.connect.lookup_domain_by_name(&nobody) {
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(says_in_english_that_there_is_no_domain(&e)),
            Err(e) => Err(cpi_error(e).during("looking up a VM that does not exist")),
            Ok(_) => Ok(true),
        }
    }

    /// The file of EFI firmware without secure boot for this machine type. None where libvirt chooses one.
    ///
    /// # Errors
    /// `CloudError` where there is no such file.
    pub fn efi_loader(&self, machine: &str) -> Result<Option<String>> {
        let (libvirt, _) = self.versions()?;
        if libvirt >= CHOICE_OF_SECURE_BOOT {
            return Ok(None);
        }
        let machine = Some(machine).filter(|machine| !machine.is_empty());
        let text = self
            .connect
            .domain_capabilities(None, None, machine, None, 0)
            .map_err(|e| cpi_error(e).during("asking what firmware guests can have"))?;
        let capabilities = parse("domain capabilities", &text)?;
        let files = capabilities.descend(&["os", "loader"]);
        files
            .into_iter()
            .flat_map(|files| files.children_named("value"))
            .map(Element::text)
            .find(|file| !["secboot", "secure", ".ms."].iter().any(|part| file.contains(part)))
            .map(Some)
            .ok_or_else(|| {
                Error::cloud(format!(
                    "the host has no EFI firmware without secure boot that libvirt {} knows; install it there (package ovmf or \
                     edk2-ovmf), upgrade libvirt to 7.2 or later, or set firmware to bios",
                    version(libvirt)
                ))
            })
    }

    /// That disks in use can be copied, by all that libvirt tells without being asked to do it.
    ///
    /// # Errors
    /// `NotSupported` with the versions that it takes.
    pub fn require_live_copies(&self) -> Result<()> {
        let (libvirt, qemu) = self.versions()?;
        if libvirt >= LIVE_COPIES.0 && qemu >= LIVE_COPIES.1 {
            return Ok(());
        }
        // Distributions have it in older versions, too. These do not say so before libvirt 6.
        let offers = |capabilities: Element| {
            capabilities
                .descend(&["features", "backup"])
                .and_then(|backup| backup.attribute("supported").map(|is| is == "yes"))
        };
        let text = self.connect.domain_capabilities(None, None, None, None, 0);
        let capabilities = text.map_err(|e| cpi_error(e).during("asking what guests can have"))?;
        if offers(parse("domain capabilities", &capabilities)?) == Some(true) {
            return Ok(());
        }
        Err(Error::not_supported(format!(
            "copying a disk that a running VM has needs libvirt 7.6 and QEMU 6.1 or later; the host has libvirt {} and QEMU \
             {} (detach the disk, or stop the VM)",
            version(libvirt),
            version(qemu)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_people_write_them() {
        assert_eq!(version(9_001_002), "9.1.2");
        assert_eq!(version(10_000_000), "10.0.0");
    }
}

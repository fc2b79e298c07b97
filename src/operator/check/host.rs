//! The connection, and what libvirt says of the host.

use std::time::{Duration, Instant};

use super::Finding;
use bosh_cpi::measures::size;
use bosh_cpi::rpc::{Cause, Result};
use cpi_config::{Config, DomainType, Firmware, LibvirtType};
use libvirt_host::{Connection, LIVE_COPIES, version};

/// The oldest libvirt that the CPI is tested with, as libvirt counts versions.
const OLDEST_LIBVIRT: u32 = 7_000_000;
/// Capabilities that libvirt remembers come in milliseconds; to probe QEMU anew takes more than a second.
const SLOW: Duration = Duration::from_millis(400);

pub fn connection(config: &cpi_config::Libvirt) -> (Finding, Option<Connection>) {
    let what = "connection";
    let started = Instant::now();
    match Connection::open(config) {
        Ok(libvirt) => {
            let took = started.elapsed().as_millis();
            (
                Finding::ok(what, format!("{} in {took} ms", libvirt.uri)),
                Some(libvirt),
            )
        }
        Err(error) => {
            let cure = connection_cure(config, error.cause);
            (Finding::failed(what, "", &error).cured_by(cure), None)
        }
    }
}

fn connection_cure(config: &cpi_config::Libvirt, cause: Cause) -> &'static str {
    let local = config.libvirt_type == LibvirtType::Socket && config.uri.is_empty();
    let over_ssh = config.libvirt_type == LibvirtType::Ssh || config.uri.contains("+ssh:");
    match cause {
        _ if over_ssh => "see whether this works, with the same user and key: ssh USER@HOST virsh version",
        Cause::Denied => "let the CPI's user in: usermod -aG libvirt USER",
        Cause::DaemonStopped if local => {
            "start libvirt: systemctl enable --now libvirtd (or virtqemud.socket and its siblings)"
        }
        _ if local => "see what libvirt says: systemctl status libvirtd; journalctl -u libvirtd",
        Cause::DaemonStopped => {
            "have libvirtd listen there: systemctl enable --now libvirtd-tls.socket (or libvirtd-tcp.socket)"
        }
        _ => "see docs/TROUBLESHOOTING.md, No connection, and on the host: journalctl -u libvirtd",
    }
}

/// A daemon whose messages are translated is understood by libvirt's numbers only. None where it speaks English.
pub fn language(libvirt: &Connection) -> Option<Finding> {
    let what = "language";
    match libvirt.speaks_english() {
        Ok(true) => None,
        Ok(false) => Some(
            Finding::warning(
                what,
                "libvirtd's messages are translated: the CPI goes by libvirt's error numbers, but some advice and some \
                 short waits depend on English messages",
            )
            .cured_by(
                "on the host: systemctl edit libvirtd, add the lines [Service] and Environment=LC_ALL=C.UTF-8, then \
                 systemctl restart libvirtd",
            ),
        ),
        Err(error) => Some(Finding::failed(what, "", &error)),
    }
}

pub fn versions(libvirt: &Connection) -> Result<Finding> {
    let (of_libvirt, of_qemu) = libvirt.versions()?;
    let (cpus, memory) = libvirt.host_size()?;
    let size = format!("{cpus} CPUs, {} of memory", size(memory << 20));
    Ok(judge_versions(of_libvirt, of_qemu, &size))
}

fn judge_versions(of_libvirt: u32, of_qemu: u32, host_size: &str) -> Finding {
    let what = "versions";
    let says = format!("libvirt {}, QEMU {}", version(of_libvirt), version(of_qemu));
    if of_libvirt < OLDEST_LIBVIRT {
        Finding::wrong(
            what,
            format!("{says}; libvirt is older than {}", version(OLDEST_LIBVIRT)),
        )
        .cured_by("upgrade the host's libvirt")
    } else if of_libvirt < LIVE_COPIES.0 || of_qemu < LIVE_COPIES.1 {
        let says = format!(
            "{says}; snapshots of disks that running VMs have need libvirt {} and QEMU {}, unless the distribution has added \
             them to this version",
            version(LIVE_COPIES.0),
            version(LIVE_COPIES.1)
        );
        Finding::warning(what, says).cured_by("upgrade the host's libvirt and QEMU")
    } else {
        Finding::ok(what, format!("{says}; {host_size}"))
    }
}

/// What guests will run on, by the configuration and what libvirt offers.
pub fn domain_type(libvirt: &Connection, config: &Config, findings: &mut Vec<Finding>) -> &'static str {
    let what = "KVM";
    let offered = match libvirt.best_domain_type() {
        Ok(offered) => offered == DomainType::Kvm,
        Err(error) => {
            findings.push(Finding::failed(what, "", &error));
            false
        }
    };
    let (finding, domain_type) = judge_kvm(what, config.settings.domain_type, offered);
    findings.push(finding);
    domain_type
}

fn judge_kvm(what: &str, wanted: DomainType, offered: bool) -> (Finding, &'static str) {
    let enable = "switch virtualisation on in the firmware (for a VM as the host: nested), then on the host: \
                  modprobe kvm_intel || modprobe kvm_amd; systemctl restart libvirtd";
    match (wanted, offered) {
        (DomainType::Qemu, _) => {
            let says = "not used: settings.domain_type is qemu, so guests are emulated, which is slow";
            (Finding::ok(what, says), "qemu")
        }
        (DomainType::Auto | DomainType::Kvm, true) => (Finding::ok(what, "offered by libvirt"), "kvm"),
        (DomainType::Auto, false) => {
            let says = "libvirt does not offer it, so guests are emulated, which is slow";
            (Finding::warning(what, says).cured_by(enable), "qemu")
        }
        (DomainType::Kvm, false) => {
            let says = "settings.domain_type is kvm, but libvirt does not offer it: no VM will start";
            (Finding::wrong(what, says).cured_by(enable), "kvm")
        }
    }
}

/// Whether libvirt remembers what QEMU can do. It probes anew for every definition of a VM and every attached disk where
/// /dev/kvm is there, but not for QEMU's user: minutes for a create_vm.
pub fn capabilities(libvirt: &Connection, domain_type: &str) -> Result<Finding> {
    let what = "capabilities";
    // The first answer may have to be found out.
    libvirt.domain_capabilities(domain_type)?;
    let mut took = Duration::MAX;
    // A busy host is slow now and then, not always.
    for _ in 0..3 {
        let started = Instant::now();
        libvirt.domain_capabilities(domain_type)?;
        took = took.min(started.elapsed());
    }
    let says = format!("libvirt tells what QEMU can do in {} ms", took.as_millis());
    if took < SLOW {
        return Ok(Finding::ok(what, says));
    }
    Ok(Finding::wrong(
        what,
        format!("{says}: it probes QEMU anew for each call, as it does when QEMU's user cannot open /dev/kvm"),
    )
    .cured_by(
        "on the host: chown root:kvm /dev/kvm; chmod 660 /dev/kvm; usermod -aG kvm libvirt-qemu; systemctl restart \
         libvirtd (or chmod 666 /dev/kvm)",
    ))
}

/// Firmware images for UEFI; BIOS is part of QEMU.
pub fn firmware(libvirt: &Connection, config: &Config, domain_type: &str) -> Result<Finding> {
    let what = "firmware";
    let capabilities = libvirt.domain_capabilities(domain_type)?;
    let os = capabilities.child("os");
    let efi = os.is_some_and(|os| {
        os.children_named("enum")
            .filter(|list| list.attribute("name") == Some("firmware"))
            .flat_map(|list| list.children_named("value"))
            .any(|value| value.text() == "efi")
    });
    let images: Vec<String> = os
        .and_then(|os| os.child("loader"))
        .into_iter()
        .flat_map(|loader| loader.children_named("value"))
        .map(libvirt_xml::element::Element::text)
        .collect();
    let install =
        "install it on the host: apt-get install ovmf (Debian, Ubuntu), dnf install edk2-ovmf (Fedora, RHEL)";
    Ok(if efi {
        Finding::ok(what, format!("BIOS and UEFI ({})", images.join(", ")))
    } else if config.settings.firmware == Some(Firmware::Efi) {
        Finding::wrong(
            what,
            "settings.firmware is efi, but the host has no UEFI firmware",
        )
        .cured_by(install)
    } else {
        Finding::warning(
            what,
            "BIOS only: VMs of stemcells that boot by UEFI will not start",
        )
        .cured_by(install)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::State;

    #[test]
    fn kvm_that_is_not_offered_is_told() {
        for (wanted, offered, state, domain_type) in [
            (DomainType::Auto, true, State::Ok, "kvm"),
            (DomainType::Auto, false, State::Warning, "qemu"),
            (DomainType::Kvm, true, State::Ok, "kvm"),
            (DomainType::Kvm, false, State::Wrong, "kvm"),
            (DomainType::Qemu, true, State::Ok, "qemu"),
        ] {
            let (finding, used) = judge_kvm("KVM", wanted, offered);
            assert_eq!((finding.state, used), (state, domain_type), "{finding:?}");
            assert_eq!(finding.cure.is_some(), state != State::Ok);
        }
    }

    #[test]
    fn what_is_too_old_is_told() {
        for (libvirt, qemu, state, says) in [
            (
                7_006_000,
                6_001_000,
                State::Ok,
                "libvirt 7.6.0, QEMU 6.1.0; 2 CPUs",
            ),
            (
                6_010_000,
                7_002_000,
                State::Wrong,
                "libvirt 6.10.0, QEMU 7.2.0; libvirt is older than 7.0.0",
            ),
            (
                7_000_000,
                5_002_001,
                State::Warning,
                "libvirt 7.0.0, QEMU 5.2.1; snapshots of disks that running VMs have need libvirt 7.6.0 and QEMU 6.1.0, \
                 unless the distribution has added them to this version",
            ),
        ] {
            let finding = judge_versions(libvirt, qemu, "2 CPUs");
            assert_eq!((finding.state, finding.says.as_str()), (state, says));
            assert_eq!(finding.cure.is_some(), state != State::Ok);
        }
    }
}

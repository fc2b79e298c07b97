//! Whether QEMU really runs here, as the user it runs as, on the volumes of the pool: a VM that is switched off by its own
//! first instructions.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Finding;
use super::confinement::Model;
use crate::operator::probe::Probe;
use bosh_cpi::interrupt;
use bosh_cpi::rpc::{Cause, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::{Connection, Domain};
use libvirt_xml::element::Element;

/// A boot sector that does what ACPI has operating systems do to switch QEMU's PCs off.
#[rustfmt::skip]
const SWITCH_OFF: [u8; 15] = [
    0xba, 0x04, 0x06, // mov dx, 0x604: the power management's control register
    0xb8, 0x00, 0x20, // mov ax, 0x2000: sleep, as deep as off
    0xef,             // out dx, ax
    0xba, 0x04, 0xb0, // mov dx, 0xb004: where old machine types have it
    0xef,             // out dx, ax
    // again:
    0xfa,             // cli
    0xf4,             // hlt
    0xeb, 0xfc,       // jmp again
];
/// What ends a sector that PCs boot.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// Firmware and a few instructions take a second, and on a busy host some more. Beyond this KVM is compared with emulation.
const SLOW: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Beyond this nothing runs. Emulation on a host that is emulated itself takes half a minute.
fn longest(domain_type: &str) -> Duration {
    Duration::from_secs(if domain_type == "kvm" { 30 } else { 180 })
}

/// How far the VM came.
enum Ran {
    /// Its machine is none that the boot sector is for.
    Started,
    SwitchedOff(Duration),
    Never,
}

/// The content of a disk with that boot sector, as large as firmware wants a disk to be.
pub fn boot_disk() -> Vec<u8> {
    let mut disk = vec![0; 1024 * 1024];
    disk[..SWITCH_OFF.len()].copy_from_slice(&SWITCH_OFF);
    disk[510..512].copy_from_slice(&SIGNATURE);
    disk
}

/// Starts a VM that has the probe as its disk: that QEMU's user may open files in the pool is not said by libvirt's being
/// able to make them.
pub fn runs(libvirt: &Connection, config: &Config, domain_type: &str, probe: Option<&Probe>) -> Finding {
    let what = "QEMU";
    let run = |domain_type: &str, probe: Option<&Probe>, without: Option<Model>| {
        run(libvirt, config, domain_type, disk(libvirt, probe)?, without)
    };
    let error = match run(domain_type, probe, None) {
        Ok(Ran::SwitchedOff(took)) if domain_type == "kvm" && took > SLOW => {
            return judge_slow_kvm(what, took, &run("qemu", probe, None));
        }
        Ok(ran) => return judge(what, domain_type, &ran),
        Err(error) => error,
    };
    // QEMU's own reason gets lost now and then, so what it takes to start tells more.
    let models = Model::of_host(libvirt).unwrap_or_default();
    if let Some(model) = models
        .into_iter()
        .find(|model| run(domain_type, probe, Some(*model)).is_ok())
    {
        return model.finding(what, &error, probe);
    }
    if let Some(probe) = probe
        && run(domain_type, None, None).is_ok()
    {
        let pool = &probe.volume.pool;
        return Finding::failed(what, &format!("cannot use a disk of pool {pool}: "), &error).cured_by(
            "let QEMU's user into every directory above the pool, on the host: namei -l PATH; chmod o+x DIRECTORY",
        );
    }
    Finding::failed(what, &format!("no VM of type {domain_type} starts: "), &error)
        .cured_by(cure(error.cause))
}

fn judge(what: &str, domain_type: &str, ran: &Ran) -> Finding {
    match ran {
        Ran::Started => Finding::ok(what, format!("an empty VM of type {domain_type} starts")),
        Ran::SwitchedOff(took) => Finding::ok(what, booted(domain_type, *took)),
        Ran::Never => {
            let says = format!(
                "a VM of type {domain_type} starts, but within {} s its CPU did not come as far as the boot sector",
                longest(domain_type).as_secs()
            );
            Finding::wrong(what, says).cured_by(if domain_type == "kvm" {
                WITHOUT_KVM
            } else {
                "see whether the host is out of CPU or memory: uptime; free -m"
            })
        }
    }
}

const WITHOUT_KVM: &str = "if the host is a VM itself, have its own host offer nested virtualisation; or set \
                           settings.domain_type to qemu";

fn booted(domain_type: &str, took: Duration) -> String {
    format!(
        "a VM of type {domain_type} booted from a disk of the pool, {:.1} s from start to end",
        took.as_secs_f64()
    )
}

/// Where KVM is itself emulated, guests may be slower than without it, or hang.
fn judge_slow_kvm(what: &str, took: Duration, emulated: &Result<Ran>) -> Finding {
    let says = booted("kvm", took);
    match emulated {
        Ok(Ran::SwitchedOff(emulated)) if *emulated < took => Finding::warning(
            what,
            format!(
                "{says}, but emulated {:.1} s: KVM does not work as it should, and operating systems may hang",
                emulated.as_secs_f64()
            ),
        )
        .cured_by(WITHOUT_KVM),
        _ => Finding::ok(what, says),
    }
}

/// Starts the VM and lets it run, if it has a disk to boot from; unconfined by one model of the host's.
fn run(
    libvirt: &Connection,
    config: &Config,
    domain_type: &str,
    disk: Option<Element>,
    without: Option<Model>,
) -> Result<Ran> {
    let name = format!("cpi-check-{}", uuid::Uuid::new_v4());
    let boots = disk.is_some() && is_pc(libvirt, config, domain_type)?;
    let started = Instant::now();
    let mut xml = domain(&name, config, domain_type, disk);
    if let Some(model) = without {
        xml.push(model.off());
    }
    let domain = libvirt.start_passing(&xml, &name, !boots)?;
    let ran = if boots {
        wait(&domain, started, longest(domain_type))
    } else {
        Ok(Ran::Started)
    };
    domain.destroy()?;
    ran
}

fn wait(domain: &Domain, started: Instant, longest: Duration) -> Result<Ran> {
    while started.elapsed() < longest {
        match domain.is_active() {
            Ok(true) => {}
            Ok(false) => return Ok(Ran::SwitchedOff(started.elapsed())),
            Err(e) if e.error_type == ErrorType::VmNotFound => {
                return Ok(Ran::SwitchedOff(started.elapsed()));
            }
            Err(e) => return Err(e),
        }
        interrupt::check()?;
        sleep(LOOK_EVERY);
    }
    Ok(Ran::Never)
}

/// Whether VMs have the firmware and the ports that the boot sector is for.
fn is_pc(libvirt: &Connection, config: &Config, domain_type: &str) -> Result<bool> {
    let capabilities = libvirt.domain_capabilities(domain_type)?;
    let arch = capabilities.child("arch").map(Element::text).unwrap_or_default();
    let machine = &config.settings.machine;
    let known = ["pc", "q35"].iter().any(|kind| machine.starts_with(kind));
    Ok(matches!(arch.as_str(), "x86_64" | "i686") && (machine.is_empty() || known))
}

fn cure(cause: Cause) -> &'static str {
    if cause == Cause::NoKvm {
        "let QEMU's user open /dev/kvm, on the host: usermod -aG kvm libvirt-qemu; chown root:kvm /dev/kvm; chmod 660 \
         /dev/kvm; systemctl restart libvirtd; or set settings.domain_type to qemu"
    } else {
        "see what QEMU says, on the host: journalctl -u libvirtd; ls -t /var/log/libvirt/qemu"
    }
}

fn disk(libvirt: &Connection, probe: Option<&Probe>) -> Result<Option<Element>> {
    use libvirt_xml::disk::{Device, DiskSpec, render};
    let Some(probe) = probe else { return Ok(None) };
    let Some(pool) = libvirt.find_pool(&probe.volume.pool)? else {
        return Ok(None);
    };
    let spec = DiskSpec {
        source: pool.disk_source(&probe.volume.name)?,
        path: &probe.volume.path()?,
        backing: Some(&[]),
        format: libvirt_xml::volume::VolumeFormat::Raw,
        bus: cpi_config::DiskBus::Virtio,
        position: 0,
        serial: "probe",
        device: Device::Disk,
        options: libvirt_xml::disk::RunTimeOptions::default(),
    };
    render(&spec, "").map(Some)
}

fn domain(name: &str, config: &Config, domain_type: &str, disk: Option<Element>) -> Element {
    let mut os_type = Element::new("type").with_text("hvm");
    if !config.settings.machine.is_empty() {
        os_type.set_attribute("machine", &config.settings.machine);
    }
    let mut devices = Element::new("devices");
    if let Some(disk) = disk {
        devices.push(disk);
    }
    devices.push(Element::new("memballoon").with_attribute("model", "none"));
    Element::new("domain")
        .with_attribute("type", domain_type)
        .with_child(Element::new("name").with_text(name))
        .with_child(
            Element::new("memory")
                .with_attribute("unit", "MiB")
                .with_text("32"),
        )
        .with_child(Element::new("vcpu").with_text("1"))
        .with_child(Element::new("os").with_child(os_type))
        .with_child(Element::new("features").with_child(Element::new("acpi")))
        .with_child(Element::new("on_poweroff").with_text("destroy"))
        .with_child(devices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::State;
    use bosh_cpi::rpc::Error;

    #[test]
    fn kvm_that_is_slower_than_emulation_is_no_kvm() {
        let seconds = Duration::from_secs;
        for (emulated, state) in [
            (Ok(Ran::SwitchedOff(seconds(2))), State::Warning),
            (Ok(Ran::SwitchedOff(seconds(9))), State::Ok),
            (Ok(Ran::Never), State::Ok),
            (Err(Error::cloud("x")), State::Ok),
        ] {
            let finding = judge_slow_kvm("QEMU", seconds(8), &emulated);
            assert_eq!(finding.state, state, "{finding:?}");
            assert_eq!(finding.cure.is_some(), state == State::Warning);
        }
    }
}

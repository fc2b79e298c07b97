//! AppArmor, enforcing, as the distribution's packages set it up.

use crate::cpi::Cpi;
use crate::host::Host;

/// No profile that libvirt makes for a VM has this directory: it is the system's own.
const FORBIDDEN: &str = "/usr/share/bosh";

/// `cpi check` says that it was AppArmor, and what it says to do cures it.
pub fn is_named_by_check(host: &Host) {
    host.run(&format!(
        "virsh -q pool-define-as forbidden dir --target {FORBIDDEN}; virsh -q pool-build forbidden
virsh -q pool-start forbidden"
    ));
    let cpi = Cpi::over(host, "tls").with_pool("forbidden");
    let checked = cpi.operator(&["check"]);
    assert!(checked.contains("WRONG   QEMU: AppArmor"), "{checked}");
    host.run(&format!(
        "virsh -q pool-destroy forbidden; virsh -q pool-undefine forbidden; rmdir {FORBIDDEN}"
    ));
}

/// Of a block device: QEMU 10 asks whether it is zoned, and Debian 13's profile does not let it. QEMU then takes it as not
/// zoned.
const HARMLESS: &str = "/queue/zoned\"";

/// At the end: nothing was denied to anything that the CPI has started, save what the step before last provoked.
pub fn denied_nothing(host: &Host) {
    let enforced = host.run("aa-status");
    for profile in ["libvirtd", "virt-aa-helper"] {
        assert!(enforced.contains(profile), "{enforced}");
    }
    let denied = host.run("journalctl -q --no-pager --grep='apparmor=.DENIED' | cat");
    let is_ours = |line: &&str| !line.contains(FORBIDDEN) && !line.contains(HARMLESS);
    let ours: Vec<&str> = denied.lines().filter(is_ours).collect();
    assert_eq!(ours, Vec::<&str>::new());
}

//! Reboots of the host while VMs run: what comes back by itself, and what calls answer after that.

use serde_json::{Value, json};

use crate::contract::{a_network, assert_clean};
use crate::cpi::Cpi;
use crate::guest::{boots, wait_until_up};
use crate::host::Host;

pub fn with_running_vms(host: &Host) {
    let cpi = Cpi::over(host, "tls");
    let stemcell = cpi.stemcell();
    let (network, properties) = a_network(&cpi, "10.144.1");
    let elsewhere = cpi
        .vm_at(&stemcell, "10.144.1.10", properties, json!({}))
        .result();
    let vms = [
        cpi.vm(&stemcell, 30, json!({})),
        elsewhere[0].as_str().unwrap().to_owned(),
    ];
    let [running, off] = &vms;
    let disks = [0, 1].map(|_| cpi.call("create_disk", json!([8, {}])).text());
    cpi.call("attach_disk", json!([running, disks[0]])).result();
    for vm in &vms {
        wait_until_up(host, vm, 1);
    }
    host.run(&format!("virsh -q destroy {off}"));

    // As the distribution has it: libvirt-guests asks guests to switch themselves off, and libvirtd starts what is marked
    // for autostart, as all VMs of the CPI are, even one that was off before.
    reboot(host);
    for vm in &vms {
        wait_until_up(host, vm, 2);
    }
    answers_as_before(&cpi, running, &disks);
    cpi.call("reboot_vm", json!([running])).result();
    wait_until_up(host, running, 3);

    // As an operator may have it: VMs are suspended to disk, and go on after the reboot, but not in a network that is not
    // marked for autostart.
    host.run(&format!("virsh -q net-autostart {network} --disable"));
    host.run("echo ON_SHUTDOWN=suspend >>/etc/default/libvirt-guests");
    reboot(host);
    wait_until_runs(host, running);
    assert_eq!(boots(host, running), 3, "it has gone on");
    answers_as_before(&cpi, running, &disks);
    cpi.call("reboot_vm", json!([running])).result();
    wait_until_up(host, running, 4);
    assert_eq!(host.run(&format!("virsh -q domstate {off}")).trim(), "shut off");
    assert_eq!(cpi.call("has_vm", json!([off])).result(), true);
    assert_eq!(cpi.call("get_disks", json!([off])).result(), json!([]));
    cpi.call("reboot_vm", json!([off])).result();
    wait_until_up(host, off, 3);

    for vm in &vms {
        cpi.call("delete_vm", json!([vm])).result();
    }
    for disk in &disks {
        cpi.call("delete_disk", json!([disk])).result();
    }
    cpi.call("delete_network", json!([network])).result();
    cpi.call("delete_stemcell", json!([stemcell])).result();
    assert_clean(host, "bosh");
}

/// The VM has the first disk, and the second can be attached and detached.
fn answers_as_before(cpi: &Cpi<'_>, vm: &str, disks: &[String; 2]) {
    let get_disks = || -> Vec<Value> {
        let result = cpi.call("get_disks", json!([vm])).result();
        result.as_array().unwrap().clone()
    };
    assert_eq!(cpi.call("has_vm", json!([vm])).result(), true);
    assert_eq!(get_disks(), [disks[0].as_str()]);
    cpi.call("attach_disk", json!([vm, disks[1]])).result();
    assert_eq!(get_disks().len(), 2);
    cpi.call("detach_disk", json!([vm, disks[1]])).result();
}

fn reboot(host: &Host) {
    let boot = || host.try_run("cat /proc/sys/kernel/random/boot_id");
    let before = boot().unwrap();
    let started = std::time::Instant::now();
    // It may end before it has answered.
    let _ = host.try_run("systemctl reboot");
    crate::sandbox::wait_for("the host's reboot", crate::host::BOOT, || {
        boot().is_ok_and(|now| now != before)
    });
    host.wait_until_booted();
    println!(
        "{}: a reboot took {} s",
        host.release,
        started.elapsed().as_secs()
    );
}

#[track_caller]
fn wait_until_runs(host: &Host, vm: &str) {
    crate::sandbox::wait_for(vm, crate::host::BOOT, || {
        host.run(&format!("virsh -q domstate {vm}")).trim() == "running"
    });
}

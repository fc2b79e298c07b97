//! Stemcells, VMs and networks, with a fault at each call to libvirt (`fault_bench`).

use serde_json::{Value, json};

use crate::fault_bench::{Bench, Scenario};
use crate::sandbox::{try_virsh, virsh};

#[test]
fn create_stemcell() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "create_stemcell",
        prepare: |bench| json!([bench.sandbox.image_without_system(), {"name": "s"}]),
        finish: |bench, _, result| match result {
            Some(stemcell) => drop(bench.call("delete_stemcell", json!([stemcell]))),
            None => {
                bench.prune();
                // Complete, and nobody was told.
                for stemcell in bench.things("sc-") {
                    bench.call("delete_stemcell", json!([stemcell]));
                }
            }
        },
        after_error: None,
    });
}

#[test]
fn delete_stemcell() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "delete_stemcell",
        prepare: |bench| {
            let image = bench.sandbox.image_without_system();
            json!([bench.call("create_stemcell", json!([image, {"name": "s"}]))])
        },
        finish: |bench, arguments, _| drop(bench.call("delete_stemcell", arguments.clone())),
        // Partly deleted is fine.
        after_error: Some(|_, _| {}),
    });
}

#[test]
fn delete_network() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "delete_network",
        prepare: |bench| {
            let range = format!("10.132.{}.0/24", bench.sandbox.subnet());
            let definition =
                json!({"type": "manual", "range": range, "cloud_properties": {"mode": "isolated"}});
            json!([bench.call("create_network", json!([definition]))[0]])
        },
        finish: |bench, arguments, _| bench.again("delete_network", arguments, "NetworkNotFound"),
        // The VMs of a network that stays find it after the host's next start.
        after_error: Some(|_, arguments| {
            let network = arguments[0].as_str().unwrap();
            let info = virsh(&["net-info", network]);
            for line in ["Persistent:     yes", "Autostart:      yes"] {
                assert!(info.contains(line), "{info}");
            }
        }),
    });
}

/// A bench with a stemcell and DHCP, whose guests stay in their firmware.
fn for_vms() -> Bench {
    let bench = Bench::new();
    bench.sandbox.serve_dhcp();
    let image = bench.sandbox.image_without_system();
    bench.call("create_stemcell", json!([image, {}]));
    bench
}

fn vm_arguments(bench: &Bench) -> Value {
    let sandbox = &bench.sandbox;
    let stemcell = &bench.things("sc-")[0];
    json!(["a", stemcell, {"memory": 64, "ephemeral_disk": 8}, sandbox.manual_network(10), [], {}])
}

/// VMs that nobody was told of: their cids are in `virsh list`, the volumes of others are for prune.
fn delete_stray_vms(bench: &Bench) {
    for vm in bench.sandbox.domains() {
        bench.call("delete_vm", json!([vm]));
    }
    bench.prune();
}

#[test]
fn create_vm() {
    let bench = for_vms();
    bench.run(&Scenario {
        method: "create_vm",
        prepare: vm_arguments,
        finish: |bench, _, result| match result {
            Some(result) => drop(bench.call("delete_vm", json!([result[0]]))),
            None => delete_stray_vms(bench),
        },
        after_error: None,
    });
}

#[test]
fn delete_vm() {
    let bench = for_vms();
    bench.run(&Scenario {
        method: "delete_vm",
        prepare: |bench| {
            let vm = bench.call("create_vm", vm_arguments(bench))[0].clone();
            let disk = bench.call("create_disk", json!([8, {}]));
            bench.call("attach_disk", json!([vm, disk]));
            json!([vm])
        },
        finish: |bench, arguments, result| {
            if result.is_none() {
                bench.again("delete_vm", arguments, "VMNotFound");
            }
            let disks = bench.things("disk");
            assert_eq!(disks.len(), 1, "its persistent disk survives");
            bench.call("delete_disk", json!([disks[0]]));
        },
        // Partly deleted is fine; the disk is looked at above.
        after_error: Some(|_, _| {}),
    });
}

fn the_vm(bench: &Bench) -> String {
    bench.sandbox.domains().remove(0)
}

fn state_of(vm: &str) -> String {
    virsh(&["domstate", vm]).trim().to_owned()
}

/// Whatever state it is in, and whatever became of the first call, the VM runs in the end.
fn runs(bench: &Bench, arguments: &Value, result: Option<&Value>) {
    if result.is_none() {
        bench.call("reboot_vm", arguments.clone());
    }
    assert_eq!(state_of(&the_vm(bench)), "running");
}

#[test]
fn reboot_vm() {
    let bench = for_vms();
    bench.call("create_vm", vm_arguments(&bench));
    let in_each_state: [fn(&Bench) -> Value; 3] = [
        |bench| json!([the_vm(bench)]),
        |bench| {
            virsh(&["suspend", &the_vm(bench)]);
            json!([the_vm(bench)])
        },
        |bench| {
            virsh(&["destroy", &the_vm(bench)]);
            json!([the_vm(bench)])
        },
    ];
    for prepare in in_each_state {
        bench.run(&Scenario {
            method: "reboot_vm",
            prepare,
            finish: runs,
            // One that was stopped may run: libvirt's client looks it up once more when it has started it.
            after_error: Some(|_, _| {}),
        });
    }
}

/// Names of the networks on the range that only this bench uses.
fn networks(bench: &Bench) -> Vec<String> {
    let address = format!("'{}", range(bench).trim_end_matches("0/28"));
    virsh(&["net-list", "--all", "--name"])
        .split_whitespace()
        // Those of others come and go.
        .filter(|name| try_virsh(&["net-dumpxml", name]).is_ok_and(|xml| xml.contains(&address)))
        .map(str::to_owned)
        .collect()
}

fn range(bench: &Bench) -> String {
    format!("10.133.{}.0/28", bench.sandbox.subnet())
}

#[test]
fn create_network() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "create_network",
        prepare: |bench| {
            json!([{"type": "manual", "range": range(bench), "gateway": range(bench).replace("0/28", "1"),
                "cloud_properties": {"mode": "isolated"}}])
        },
        finish: |bench, _, _| {
            for network in networks(bench) {
                bench.call("delete_network", json!([network]));
            }
            assert_eq!(networks(bench), [""; 0]);
        },
        after_error: Some(|bench, _| assert_eq!(networks(bench), [""; 0])),
    });
}

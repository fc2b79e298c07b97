//! Libvirtd stopped, restarted and killed in the middle of every method. Whatever comes of the call is true: a success, or
//! an error of the right type that may be retried. Once libvirtd is back, the same call again, its opposite, or `cpi
//! prune` gets to a clean state. No persistent disk is lost, and none is attached twice.

use serde_json::{Value, json};

use crate::hosts_daemon::stemcell_arguments;
use crate::libvirtd_fault_bench::{Bench, Scenario};
use crate::sandbox::{run, wait_for};

/// What must be gone if a call that failed had completed it, unknown to everybody but `cpi list`.
fn delete_strays(bench: &Bench, prefix: &str, method: &str) {
    bench.prune();
    for cid in bench.volumes(prefix) {
        bench.call(method, json!([cid]));
    }
}

fn network_arguments() -> Value {
    json!([{"type": "manual", "range": "10.133.1.0/28", "gateway": "10.133.1.1",
        "cloud_properties": {"mode": "isolated"}}])
}

/// Networks that create_network has made.
fn networks(bench: &Bench) -> Vec<String> {
    let names = bench.host.virsh(&["net-list", "--all", "--name"]);
    let names = names.split_whitespace();
    names
        .filter(|name| !["default", "vms"].contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn stemcells_and_networks() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "create_stemcell",
        prepare: |bench| json!([bench.image_without_system(), {"name": "s"}]),
        finish: |bench, _, result| match result {
            Some(stemcell) => drop(bench.call("delete_stemcell", json!([stemcell]))),
            None => delete_strays(bench, "sc-", "delete_stemcell"),
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "delete_stemcell",
        prepare: |bench| {
            let image = bench.image_without_system();
            json!([bench.call("create_stemcell", json!([image, {"name": "s"}]))])
        },
        finish: |bench, arguments, _| drop(bench.call("delete_stemcell", arguments.clone())),
        after_error: Some(|_, _| {}),
    });
    bench.run(&Scenario {
        method: "create_network",
        prepare: |_| network_arguments(),
        finish: |bench, _, _| {
            for network in networks(bench) {
                bench.call("delete_network", json!([network]));
            }
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "delete_network",
        prepare: |bench| json!([bench.call("create_network", network_arguments())[0]]),
        finish: |bench, arguments, _| bench.again("delete_network", arguments, "NetworkNotFound"),
        after_error: Some(|_, _| {}),
    });
}

/// A detached disk with a byte in it that must survive.
fn disk_with_content(bench: &Bench) -> Value {
    let disk = bench.call("create_disk", json!([8, {"cache": "none"}]));
    let of = format!("of={}", bench.host.pool().join(disk.as_str().unwrap()).display());
    let byte = [
        "if=/dev/zero",
        &of,
        "bs=1",
        "count=1",
        "seek=4000",
        "conv=notrunc",
    ];
    run("dd", &byte).unwrap();
    disk
}

#[test]
fn disks() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "create_disk",
        prepare: |_| json!([8, {"cache": "none"}]),
        finish: |bench, _, result| match result {
            Some(disk) => drop(bench.call("delete_disk", json!([disk]))),
            None => delete_strays(bench, "disk", "delete_disk"),
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "has_disk",
        prepare: |bench| json!([disk_with_content(bench)]),
        finish: |bench, arguments, _| {
            assert_eq!(bench.call("has_disk", arguments.clone()), true);
            bench.call("delete_disk", arguments.clone());
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "resize_disk",
        prepare: |bench| json!([disk_with_content(bench), 12]),
        finish: |bench, arguments, result| {
            if result.is_none() {
                bench.call("resize_disk", arguments.clone());
            }
            let disk = bench.host.pool().join(arguments[0].as_str().unwrap());
            assert_eq!(disk.metadata().unwrap().len(), 12 << 20);
            bench.call("delete_disk", json!([arguments[0]]));
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "set_disk_metadata",
        prepare: |bench| json!([disk_with_content(bench), {"deployment": "cf"}]),
        finish: |bench, arguments, result| {
            if result.is_none() {
                bench.call("set_disk_metadata", arguments.clone());
            }
            let record = format!("{}.record", arguments[0].as_str().unwrap());
            let record = std::fs::read_to_string(bench.host.pool().join(record)).unwrap();
            assert!(
                record.contains(r#""cache":"none""#) && record.contains(r#""deployment":"cf""#),
                "{record}"
            );
            bench.call("delete_disk", json!([arguments[0]]));
        },
        after_error: Some(|bench, arguments| {
            assert!(bench.volumes("disk").iter().any(|disk| arguments[0] == *disk));
        }),
    });
    bench.run(&Scenario {
        method: "snapshot_disk",
        prepare: |bench| json!([disk_with_content(bench), {"job": "db"}]),
        finish: |bench, arguments, result| {
            match result {
                Some(snapshot) => drop(bench.call("delete_snapshot", json!([snapshot]))),
                None => delete_strays(bench, "snap", "delete_snapshot"),
            }
            bench.call("delete_disk", json!([arguments[0]]));
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "delete_snapshot",
        prepare: |bench| {
            let disk = disk_with_content(bench);
            json!([bench.call("snapshot_disk", json!([disk, {}]))])
        },
        finish: |bench, arguments, _| {
            bench.again("delete_snapshot", arguments, "DiskNotFound");
            let disks = bench.volumes("disk");
            assert_eq!(disks.len(), 1);
            bench.call("delete_disk", json!([disks[0]]));
            bench.prune();
        },
        after_error: Some(|_, _| {}),
    });
    bench.run(&Scenario {
        method: "update_disk",
        prepare: |bench| json!([disk_with_content(bench), 8, {"format": "qcow2"}]),
        finish: |bench, arguments, result| {
            assert!(!bench.volumes("disk").is_empty(), "{arguments} is lost");
            if result.is_none() {
                // The Director knows of the old disk only, and asks again.
                let cid = bench.call("update_disk", arguments.clone());
                assert!(bench.volumes("disk").iter().any(|disk| cid == *disk), "{cid}");
            }
            for disk in bench.volumes("disk") {
                bench.call("delete_disk", json!([disk]));
            }
            bench.prune();
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "delete_disk",
        prepare: |bench| json!([disk_with_content(bench)]),
        finish: |bench, arguments, _| {
            bench.again("delete_disk", arguments, "DiskNotFound");
            // Its record.
            bench.prune();
        },
        after_error: Some(|_, _| {}),
    });
}

/// Libvirt's client ends one of several calls on their way and lets the others wait for ever.
#[test]
fn calls_made_at_once_are_given_up_together() {
    const GET_XML: u32 = 14;
    const COPY_VOLUME: u32 = 125;
    let bench = Bench::new();
    let disk = disk_with_content(&bench);
    bench.given_up_at(COPY_VOLUME, 1, "snapshot_disk", json!([disk, {}]));
    delete_strays(&bench, "snap", "delete_snapshot");

    let xml = bench.host.directory().join("domain.xml");
    for number in 0..64 {
        let domain = format!(
            "<domain type='qemu'><name>other-{number}</name><memory unit='MiB'>16</memory>\
             <os><type>hvm</type></os></domain>"
        );
        std::fs::write(&xml, domain).unwrap();
        bench.host.virsh(&["define", xml.to_str().unwrap()]);
    }
    bench.given_up_at(GET_XML, 3, "delete_disk", json!([disk]));
    assert_eq!(bench.volumes("disk"), [disk.as_str().unwrap()]);
    bench.call("delete_disk", json!([disk]));
}

fn vm_arguments(bench: &Bench, address: &str) -> Value {
    let networks = json!({"default": {"type": "manual", "ip": address, "netmask": "255.255.255.0",
        "gateway": "10.78.0.1", "dns": [], "default": ["dns", "gateway"], "cloud_properties": {}}});
    let stemcell = bench.volumes("sc-").pop();
    json!(["a", stemcell, {"memory": 64, "ephemeral_disk": 8}, networks, [], {}])
}

fn make_vm(bench: &Bench) -> Value {
    bench.call("create_vm", vm_arguments(bench, "10.78.0.10"))[0].clone()
}

fn delete_vms(bench: &Bench) {
    for vm in bench.host.virsh(&["list", "--all", "--name"]).split_whitespace() {
        bench.call("delete_vm", json!([vm]));
    }
    bench.prune();
}

#[test]
fn vms() {
    let bench = Bench::new();
    let image = bench.image_without_system();
    bench.call("create_stemcell", json!([image, {}]));
    bench.run(&Scenario {
        method: "create_vm",
        prepare: |bench| vm_arguments(bench, "10.78.0.10"),
        finish: |bench, _, result| match result {
            Some(result) => drop(bench.call("delete_vm", json!([result[0]]))),
            None => delete_vms(bench),
        },
        after_error: None,
    });
    bench.run(&Scenario {
        method: "delete_vm",
        prepare: |bench| {
            let vm = make_vm(bench);
            let disk = bench.call("create_disk", json!([8, {}]));
            bench.call("attach_disk", json!([vm, disk]));
            json!([vm])
        },
        finish: |bench, arguments, _| {
            bench.again("delete_vm", arguments, "VMNotFound");
            let disks = bench.volumes("disk");
            assert_eq!(disks.len(), 1, "its persistent disk survives");
            bench.call("delete_disk", json!([disks[0]]));
        },
        after_error: Some(|_, _| {}),
    });
    for method in ["has_vm", "get_disks", "reboot_vm", "set_vm_metadata"] {
        bench.run(&Scenario {
            method,
            prepare: match method {
                "set_vm_metadata" => |bench| json!([make_vm(bench), {"job": "db"}]),
                _ => |bench| json!([make_vm(bench)]),
            },
            finish: |bench, arguments, _| {
                let vm = json!([arguments[0]]);
                assert_eq!(bench.call("has_vm", vm.clone()), true);
                assert_eq!(bench.call("get_disks", vm.clone()), json!([]));
                bench.call("reboot_vm", vm.clone());
                let state = bench.host.virsh(&["domstate", vm[0].as_str().unwrap()]);
                assert_eq!(state.trim(), "running");
                bench.call("delete_vm", vm);
            },
            after_error: None,
        });
    }
    bench.run(&Scenario {
        method: "calculate_vm_cloud_properties",
        prepare: |_| json!([{"ram": 64, "cpu": 1, "ephemeral_disk_size": 8}]),
        finish: |_, _, _| {},
        after_error: None,
    });
}

/// The one VM and the one disk that are there.
fn pair(bench: &Bench) -> Value {
    let vm = bench.host.virsh(&["list", "--name"]).trim().to_owned();
    json!([vm, bench.volumes("disk")[0]])
}

/// In both descriptions or in none.
#[track_caller]
fn assert_attached(bench: &Bench, pair: &Value, attached: bool) {
    let (vm, disk) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    for further in [&[][..], &["--inactive"]] {
        let xml = bench.host.virsh(&[&["dumpxml", vm], further].concat());
        assert_eq!(xml.contains(&format!("/{disk}'")), attached, "{xml}");
    }
}

#[test]
fn disks_of_a_running_vm() {
    let bench = Bench::new();
    bench.call("create_stemcell", stemcell_arguments());
    let mut arguments = vm_arguments(&bench, "10.78.0.10");
    arguments[2] = json!({"memory": 192});
    let vm = bench.call("create_vm", arguments)[0].as_str().unwrap().to_owned();
    bench.call("create_disk", json!([8, {}]));
    let console = bench.host.directory().join("log").join(format!("{vm}.log"));
    wait_for("the guest", crate::guest::BOOT_LIMIT, || {
        std::fs::read(&console).is_ok_and(|said| String::from_utf8_lossy(&said).contains("GUEST: ready"))
    });
    bench.run(&Scenario {
        method: "attach_disk",
        prepare: pair,
        finish: |bench, pair, result| {
            if result.is_none() {
                bench.call("attach_disk", pair.clone());
            }
            assert_attached(bench, pair, true);
            bench.call("detach_disk", pair.clone());
            assert_attached(bench, pair, false);
        },
        after_error: Some(|_, _| {}),
    });
    bench.run(&Scenario {
        method: "detach_disk",
        prepare: |bench| {
            let pair = pair(bench);
            bench.call("attach_disk", pair.clone());
            pair
        },
        finish: |bench, pair, result| {
            if result.is_none() {
                bench.again("detach_disk", pair, "DiskNotAttached");
            }
            assert_attached(bench, pair, false);
        },
        after_error: Some(|_, _| {}),
    });
    bench.call("attach_disk", pair(&bench));
    bench.run(&Scenario {
        method: "snapshot_disk",
        prepare: |bench| json!([bench.volumes("disk")[0], {}]),
        finish: |bench, _, result| match result {
            Some(snapshot) => drop(bench.call("delete_snapshot", json!([snapshot]))),
            None => delete_strays(bench, "snap", "delete_snapshot"),
        },
        after_error: None,
    });
}

//! Disks and snapshots, with a fault at each call to libvirt (`fault_bench`).

use serde_json::{Value, json};

use crate::fault_bench::{Bench, Scenario};
use crate::sandbox::{run, virsh};

/// The persistent disk of a bench that has one.
fn disk(bench: &Bench) -> String {
    bench.things("disk").remove(0)
}

fn vm_and_disk(bench: &Bench) -> Value {
    json!([bench.sandbox.domains()[0], disk(bench)])
}

/// In both descriptions or in none, as the VM's disks say.
#[track_caller]
fn assert_attached(pair: &Value, attached: bool) {
    let (vm, disk) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    for xml in [virsh(&["dumpxml", vm]), virsh(&["dumpxml", vm, "--inactive"])] {
        assert_eq!(xml.contains(&format!("/{disk}'")), attached, "{xml}");
    }
}

/// A guest that lets go of disks.
fn booted() -> Bench {
    let bench = Bench::new();
    let stemcell = bench.sandbox.stemcell();
    let vm = bench.sandbox.vm(&stemcell, 10);
    bench.call("create_disk", json!([8, {}]));
    bench.sandbox.wait_until_ready(&vm, 1);
    bench
}

#[test]
fn attach_disk() {
    let bench = booted();
    bench.run(&Scenario {
        method: "attach_disk",
        prepare: vm_and_disk,
        finish: |bench, pair, result| {
            if result.is_none() {
                bench.call("attach_disk", pair.clone());
            }
            assert_attached(pair, true);
            bench.call("detach_disk", pair.clone());
            assert_attached(pair, false);
        },
        after_error: Some(|_, pair| assert_attached(pair, false)),
    });
}

#[test]
fn detach_disk() {
    let bench = booted();
    bench.run(&Scenario {
        method: "detach_disk",
        prepare: |bench| {
            let pair = vm_and_disk(bench);
            bench.call("attach_disk", pair.clone());
            pair
        },
        finish: |bench, pair, result| {
            if result.is_none() {
                bench.again("detach_disk", pair, "DiskNotAttached");
            }
            assert_attached(pair, false);
        },
        after_error: Some(|_, _| {}),
    });
}

fn delete_snapshots(bench: &Bench, _: &Value, result: Option<&Value>) {
    if let Some(snapshot) = result {
        bench.call("delete_snapshot", json!([snapshot]));
        return;
    }
    bench.prune();
    // Complete, and nobody was told: only a person can tell that it is not wanted.
    for snapshot in bench.things("snap") {
        bench.call("delete_snapshot", json!([snapshot]));
    }
}

#[test]
fn snapshot_disk_detached() {
    let bench = Bench::new();
    bench.call("create_disk", json!([8, {"format": "qcow2"}]));
    bench.run(&Scenario {
        method: "snapshot_disk",
        prepare: |bench| json!([disk(bench), {"index": 0}]),
        finish: delete_snapshots,
        after_error: None,
    });
}

#[test]
fn delete_snapshot() {
    let bench = Bench::new();
    let disk = bench.call("create_disk", json!([8, {}]));
    bench.run(&Scenario {
        method: "delete_snapshot",
        prepare: |bench| json!([bench.call("snapshot_disk", json!([bench.things("disk")[0], {}]))]),
        finish: |bench, arguments, result| {
            if result.is_none() {
                bench.again("delete_snapshot", arguments, "DiskNotFound");
                bench.prune();
            }
        },
        // Partly deleted is fine.
        after_error: Some(|_, _| {}),
    });
    bench.call("delete_disk", json!([disk]));
}

#[test]
fn delete_disk() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "delete_disk",
        prepare: |bench| json!([bench.call("create_disk", json!([8, {"format": "qcow2"}]))]),
        finish: |bench, arguments, result| {
            if result.is_none() {
                bench.again("delete_disk", arguments, "DiskNotFound");
                // What was remembered of a disk that is gone.
                bench.prune();
            }
        },
        // Partly deleted is fine.
        after_error: Some(|_, _| {}),
    });
}

/// Bytes, as libvirt says.
fn capacity(bench: &Bench, disk: &str) -> u64 {
    let info = virsh(&["vol-info", "--bytes", "--pool", &bench.sandbox.name, disk]);
    let line = info.lines().find(|line| line.starts_with("Capacity:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Arguments that make the bench's disk one MiB larger.
fn larger(bench: &Bench) -> Value {
    let disk = disk(bench);
    json!([disk, (capacity(bench, &disk) >> 20) + 1])
}

/// The disk has the size that the call was made for, the second time at last.
fn is_larger(bench: &Bench, arguments: &Value, result: Option<&Value>) {
    if result.is_none() {
        bench.call("resize_disk", arguments.clone());
    }
    let megabytes = arguments[1].as_u64().unwrap();
    assert_eq!(
        capacity(bench, arguments[0].as_str().unwrap()),
        megabytes << 20,
        "{arguments}"
    );
}

#[test]
fn resize_disk() {
    let bench = Bench::new();
    bench.call("create_disk", json!([8, {"format": "qcow2"}]));
    let detached = Scenario {
        method: "resize_disk",
        prepare: larger,
        finish: is_larger,
        after_error: None,
    };
    bench.run(&detached);

    let bench = Bench::new();
    let vm = bench.sandbox.vm_without_system(10);
    let disk = bench.call("create_disk", json!([8, {}]));
    bench.call("attach_disk", json!([vm, disk]));
    bench.run(&detached);
}

#[test]
fn set_disk_metadata() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "set_disk_metadata",
        prepare: |bench| {
            let disk = bench.call("create_disk", json!([8, {"cache": "none"}]));
            json!([disk, {"deployment": "d"}])
        },
        finish: |bench, arguments, result| {
            if result.is_none() {
                bench.call("set_disk_metadata", arguments.clone());
            }
            let disk = arguments[0].as_str().unwrap();
            let record = bench
                .sandbox
                .directory()
                .join("pool")
                .join(format!("{disk}.record"));
            let record = std::fs::read_to_string(record).unwrap();
            // A call that failed has not lost the disk's options.
            assert!(
                record.contains("none") && record.contains("deployment"),
                "{record}"
            );
            bench.call("delete_disk", json!([disk]));
        },
        after_error: None,
    });
}

#[test]
fn snapshot_disk_in_use() {
    let bench = booted();
    let pair = vm_and_disk(&bench);
    bench.call("attach_disk", pair);
    bench.run(&Scenario {
        method: "snapshot_disk",
        prepare: |bench| json!([disk(bench), {}]),
        finish: delete_snapshots,
        after_error: None,
    });
}

#[test]
fn update_disk() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "update_disk",
        prepare: |bench| {
            let disk = bench.call("create_disk", json!([8, {}]));
            let path = bench
                .sandbox
                .directory()
                .join("pool")
                .join(disk.as_str().unwrap());
            run(
                "dd",
                &[
                    "if=/dev/zero",
                    &format!("of={}", path.display()),
                    "bs=1",
                    "count=1",
                    "seek=4000",
                    "conv=notrunc",
                ],
            )
            .unwrap();
            json!([disk, 8, {"format": "qcow2"}])
        },
        finish: |bench, arguments, result| {
            let disks = || bench.things("disk");
            assert!(!disks().is_empty(), "{arguments} is lost");
            if result.is_none() {
                // The Director knows of the old disk only, and asks again.
                let cid = bench.call("update_disk", arguments.clone());
                assert!(disks().iter().any(|disk| cid == *disk), "{cid} of {:?}", disks());
            }
            for disk in disks() {
                bench.call("delete_disk", json!([disk]));
            }
            bench.prune();
        },
        after_error: None,
    });
}

/// In place: no copy.
#[test]
fn update_disk_in_place() {
    let bench = Bench::new();
    bench.run(&Scenario {
        method: "update_disk",
        prepare: |bench| json!([bench.call("create_disk", json!([8, {}])), 9, {"cache": "none"}]),
        finish: |bench, arguments, result| {
            if result.is_none() {
                assert_eq!(bench.call("update_disk", arguments.clone()), Value::Null);
            }
            let disk = arguments[0].as_str().unwrap();
            assert_eq!(capacity(bench, disk), 9 << 20);
            bench.call("delete_disk", json!([disk]));
        },
        after_error: None,
    });
}

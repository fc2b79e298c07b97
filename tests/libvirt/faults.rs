//! Hurt on purpose: at each call to libvirt that a CPI call makes, an error, a lost connection, death before and after,
//! and a signal that asks for the end. An error leaves everything as it was. After a death the same call again, its
//! opposite, or `cpi prune` gets there. No persistent disk is lost, and none is attached to two VMs.
//!
//! `make test` takes some of the points, others each day; `make reliability` takes all (`points.rs`).

use std::ops::RangeInclusive;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::points::{self, Points};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run, try_virsh, virsh};

/// Points per method that `make test` takes.
const SAMPLE: usize = 5;

struct Bench {
    sandbox: Sandbox,
    proxy: RpcProxy,
}

/// One method, and what is around it.
struct Scenario {
    method: &'static str,
    /// Gets ready whatever the call needs, and gives the call's arguments. Nothing of this is left by `finish`.
    prepare: fn(&Bench) -> Value,
    /// Undoes the work of a call that succeeded (with this result), or that was killed (without).
    finish: fn(&Bench, &Value, Option<&Value>),
    /// What must hold after an error, if not everything as it was before the call.
    after_error: Option<fn(&Bench, &Value)>,
}

impl Bench {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let proxy = RpcProxy::of(&mut sandbox);
        Self { sandbox, proxy }
    }

    /// Everything that a call could have changed, but for the DHCP leases' order.
    fn state(&self) -> (Vec<String>, Vec<String>, String) {
        let (mut volumes, mut domains, network) = self.sandbox.state();
        volumes.sort();
        domains.sort();
        (volumes, domains, network)
    }

    /// A call that nothing happens to.
    #[track_caller]
    fn call(&self, method: &str, arguments: Value) -> Value {
        self.proxy.plan(None);
        self.sandbox.call(method, arguments).result()
    }

    /// A call with this fault, and what became of it.
    fn call_with(&self, fault: Option<(usize, Fault)>, method: &str, arguments: Value) -> Output {
        self.proxy
            .plan(fault.map(|(number, fault)| (At::Number(number), fault)));
        let call = self.sandbox.start(method, arguments);
        self.proxy.set_pid(call.id());
        call.wait_with_output().unwrap()
    }

    /// What an operator does about what a killed call has left, an hour later.
    fn prune(&self) {
        self.proxy.plan(None);
        self.sandbox.refresh_pool();
        let pool = self.sandbox.directory().join("pool");
        for entry in std::fs::read_dir(&pool).unwrap() {
            let path = entry.unwrap().path();
            run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
        }
        self.sandbox.refresh_pool();
        let output = Command::new(env!("CARGO_BIN_EXE_cpi"))
            .arg("--config")
            .arg(self.sandbox.config_path())
            .args(["prune", "--yes", "--older-than", "1h", "--in", &self.sandbox.name])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn run(&self, scenario: &Scenario) {
        let Scenario {
            method,
            prepare,
            finish,
            after_error,
        } = scenario;
        let clean = self.state();
        let arguments = prepare(self);
        let output = self.call_with(None, method, arguments.clone());
        let (calls, _) = self.proxy.seen();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(response["error"], Value::Null, "{method}: {response}");
        finish(self, &arguments, Some(&response["result"]));
        assert_eq!(self.state(), clean, "{method} without a fault");

        for (number, fault) in points(calls) {
            let what = format!("{method}, call {number} of {calls}, {fault:?}");
            let arguments = prepare(self);
            let before = self.state();
            let output = self.call_with(Some((number, fault)), method, arguments.clone());
            // The number of calls may differ by some that wait for something.
            let (_, happened) = self.proxy.seen();
            self.proxy.plan(None);
            let log = String::from_utf8_lossy(&output.stderr);
            eprintln!("{what}: {}, happened: {happened}", output.status);
            let killed = happened && fault.kills();
            assert_eq!(output.status.success(), !killed, "{what}: {log}");
            if killed {
                finish(self, &arguments, None);
            } else {
                let response: Value = serde_json::from_slice(&output.stdout).unwrap();
                if response["error"] == Value::Null {
                    finish(self, &arguments, Some(&response["result"]));
                } else {
                    let kind = match *method {
                        "create_vm" => "Bosh::Clouds::VMCreationFailed",
                        _ => "Bosh::Clouds::CloudError",
                    };
                    assert_eq!(response["error"]["type"], kind, "{what}: {log}");
                    let message = response["error"]["message"].as_str().unwrap();
                    let interrupted = message.contains("interrupted by SIG");
                    assert_eq!(interrupted, fault == Fault::Told, "{what}: {log}");
                    match after_error {
                        Some(holds) => holds(self, &arguments),
                        None => assert_eq!(self.state(), before, "{what}: {log}"),
                    }
                    finish(self, &arguments, None);
                }
            }
            assert_eq!(self.state(), clean, "{what}: {log}");
        }
    }
}

/// Which calls get which faults: all, or a sample that is another one each day.
fn points(calls: usize) -> Vec<(usize, Fault)> {
    let is_wanted = |point: &(usize, Fault)| points::is_kind_wanted(&format!("{:?}", point.1));
    let all = |calls: RangeInclusive<usize>| {
        calls
            .flat_map(|number| Fault::ALL.map(|fault| (number, fault)))
            .filter(is_wanted)
    };
    match points::wanted(SAMPLE) {
        Points::All(_) => all(points::all_of(calls).unwrap()).collect(),
        Points::Some(wanted) => {
            let step = (calls * Fault::ALL.len()).div_ceil(wanted);
            all(1..=calls).skip(points::day() % step).step_by(step).collect()
        }
    }
}

/// Names in a listing of virsh that look like ours.
fn cids(listing: &str, prefix: &str) -> Vec<String> {
    listing
        .split_whitespace()
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

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
                for stemcell in cids(&bench.sandbox.volumes().join(" "), "sc-") {
                    bench.call("delete_stemcell", json!([stemcell]));
                }
            }
        },
        after_error: None,
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
    let stemcell = sandbox
        .volumes()
        .into_iter()
        .find(|name| name.starts_with("sc-") && !name.contains('.'));
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
                // The Director takes either for deleted.
                let again = bench.sandbox.call("delete_vm", arguments.clone()).response;
                let error = &again["error"];
                assert!(
                    error.is_null() || error["type"] == "Bosh::Clouds::VMNotFound",
                    "{again}"
                );
            }
            let disks = cids(&bench.sandbox.volumes().join(" "), "disk");
            assert_eq!(disks.len(), 1, "its persistent disk survives");
            bench.call("delete_disk", json!([disks[0]]));
        },
        // Partly deleted is fine; the disk is looked at above.
        after_error: Some(|_, _| {}),
    });
}

/// The persistent disk of a bench that has one.
fn disk(bench: &Bench) -> String {
    cids(&bench.sandbox.volumes().join(" "), "disk").remove(0)
}

fn vm_and_disk(bench: &Bench) -> Value {
    json!([bench.sandbox.domains()[0], disk(bench)])
}

/// In both descriptions or in none, as the VM's disks say.
#[track_caller]
fn assert_attached(pair: &Value, attached: bool) {
    let (vm, disk) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    for xml in [virsh(&["dumpxml", vm]), virsh(&["dumpxml", vm, "--inactive"])] {
        assert_eq!(xml.contains(&format!("'{disk}'")), attached, "{xml}");
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
                // The Director takes either for detached.
                let again = bench.sandbox.call("detach_disk", pair.clone()).response;
                let error = &again["error"];
                assert!(
                    error.is_null() || error["type"] == "Bosh::Clouds::DiskNotAttached",
                    "{again}"
                );
            }
            assert_attached(pair, false);
        },
        after_error: Some(|_, _| {}),
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
        finish: |bench, _, result| match result {
            Some(snapshot) => drop(bench.call("delete_snapshot", json!([snapshot]))),
            None => {
                bench.prune();
                // Complete, and nobody was told: only a person can tell that it is not wanted.
                for snapshot in cids(&bench.sandbox.volumes().join(" "), "snap") {
                    if !snapshot.contains('.') {
                        bench.call("delete_snapshot", json!([snapshot]));
                    }
                }
            }
        },
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
            let disks = || -> Vec<String> {
                let mut disks = cids(&bench.sandbox.volumes().join(" "), "disk");
                disks.retain(|name| !name.contains('.'));
                disks
            };
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

//! Many VMs at the same time, by many workers at once, with disks and snapshots: no call fails, and nothing is left.
//!
//! A few VMs in `make test`; 50 by 10 workers in `make reliability` (`CPI_TEST_LOAD_VMS`, `CPI_TEST_LOAD_WORKERS`),
//! which prints how long the calls took.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::footprint::files_below;
use crate::load_figures::Figures;
use crate::sandbox::{Sandbox, virsh};
use crate::tiny_guest;

/// Where libvirt, QEMU and dnsmasq keep files that belong to a VM. Logs are meant to outlive it.
const KEPT_FOR_VMS: [&str; 3] = ["/etc/libvirt/qemu", "/run/libvirt", "/var/lib/libvirt"];

/// What a guest may take to boot for each one that boots at the same time.
const BOOT_LIMIT_PER_VM: Duration = Duration::from_secs(30);

fn number(variable: &str, otherwise: usize) -> usize {
    match std::env::var(variable) {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => otherwise,
    }
}

struct Load {
    sandbox: Sandbox,
    figures: Figures,
    failures: Mutex<Vec<String>>,
    vms: usize,
    workers: usize,
}

impl Load {
    /// Makes the call; a failure is noted, and the worker goes on with its next VM.
    fn call(&self, method: &str, arguments: Value) -> Option<Value> {
        let said = arguments.to_string();
        let answer = self.figures.time(method, || self.sandbox.call(method, arguments));
        if answer.response["error"].is_null() {
            return Some(answer.response["result"].clone());
        }
        self.fail(format!("{method}({said}): {}", answer.response["error"]));
        None
    }

    fn expect(&self, method: &str, arguments: Value, expected: Value) -> Option<()> {
        let result = self.call(method, arguments)?;
        if result == expected {
            return Some(());
        }
        self.fail(format!("{method}: {result} instead of {expected}"));
        None
    }

    fn fail(&self, message: String) {
        eprintln!("{message}");
        self.failures.lock().unwrap().push(message);
    }

    /// Has the workers do something for each of the things, which are shared out among them.
    fn share_out<T: Sync>(&self, things: &[T], work: impl Fn(usize, &T) -> Option<()> + Sync) {
        std::thread::scope(|scope| {
            for worker in 0..self.workers {
                let work = &work;
                scope.spawn(move || {
                    for number in (worker..things.len()).step_by(self.workers) {
                        work(number, &things[number]);
                    }
                });
            }
        });
    }

    fn create(&self, stemcell: &Value) -> Vec<String> {
        let vms = Mutex::new(Vec::new());
        self.share_out(&vec![(); self.vms], |number, ()| {
            let network = self.sandbox.manual_network(10 + u8::try_from(number).unwrap());
            let vm = self.call("create_vm", tiny_guest::vm_arguments(stemcell, network))?[0]
                .as_str()?
                .to_owned();
            self.call(
                "set_vm_metadata",
                json!([vm, {"name": format!("load/{number}"), "job": "load"}]),
            );
            vms.lock().unwrap().push(vm);
            Some(())
        });
        vms.into_inner().unwrap()
    }

    fn wait_until_ready(&self, vm: &str, limit: Instant) -> Option<()> {
        while !self.sandbox.console(vm).contains(tiny_guest::UP) {
            if Instant::now() > limit {
                self.fail(format!(
                    "the guest of {vm} does not boot: {}",
                    self.sandbox.console(vm)
                ));
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(())
    }

    fn use_disk(&self, vm: &str) -> Option<()> {
        let disk = self.call("create_disk", json!([8, {}, vm]))?;
        self.call("attach_disk", json!([vm, disk]))?;
        let snapshot = self.call("snapshot_disk", json!([disk, {"deployment": "load"}]))?;
        self.expect("has_vm", json!([vm]), json!(true))?;
        self.expect("get_disks", json!([vm]), json!([disk]))?;
        self.call("detach_disk", json!([vm, disk]))?;
        self.call("delete_snapshot", json!([snapshot]))?;
        self.call("delete_disk", json!([disk]))?;
        Some(())
    }

    fn state(&self) -> (Vec<String>, Vec<String>, String, Vec<PathBuf>) {
        let (mut volumes, mut domains, network) = self.sandbox.state();
        volumes.sort();
        domains.sort();
        // The pool, temporary files, locks. What guests said on their consoles stays.
        let mut files = files_below(self.sandbox.directory());
        files.retain(|path| path.extension().is_none_or(|extension| extension != "log"));
        (volumes, domains, network, files)
    }
}

/// Files of libvirt's and QEMU's that carry the name of one of the VMs.
fn files_of(vms: &[String]) -> Vec<PathBuf> {
    let all = KEPT_FOR_VMS
        .iter()
        .flat_map(|directory| files_below(Path::new(directory)));
    // Some names are cut.
    all.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        vms.iter().any(|vm| name.contains(&vm[..16]))
    })
    .collect()
}

#[test]
fn many_vms_by_many_workers() {
    let load = Load {
        sandbox: Sandbox::new(),
        figures: Figures::default(),
        failures: Mutex::default(),
        vms: number("CPI_TEST_LOAD_VMS", 4),
        workers: number("CPI_TEST_LOAD_WORKERS", 4),
    };
    load.sandbox.serve_dhcp();
    let arguments = json!([tiny_guest::image(load.sandbox.directory()), {}]);
    let stemcell = load.sandbox.call("create_stemcell", arguments).result();
    let before = load.state();
    let started = Instant::now();
    let phase = |what: &str| {
        let machine = fs::read_to_string("/proc/loadavg").unwrap();
        let machine = machine.split(' ').next().unwrap();
        println!(
            "{what} after {:.0} s, machine load {machine}",
            started.elapsed().as_secs_f64()
        );
    };

    let vms = load.create(&stemcell);
    phase("created");
    let running = virsh(&["list", "--name", "--state-running"]);
    for vm in &vms {
        assert!(running.contains(vm), "{vm} does not run");
    }
    assert!(files_of(&vms).len() >= vms.len());
    let network = virsh(&["net-dumpxml", &load.sandbox.name]);
    assert_eq!(network.matches("<host ").count(), vms.len());

    let limit = Instant::now() + BOOT_LIMIT_PER_VM * u32::try_from(load.vms).unwrap().max(4);
    load.share_out(&vms, |_, vm| load.wait_until_ready(vm, limit));
    phase("booted");
    load.share_out(&vms, |_, vm| load.use_disk(vm));
    phase("disks used");
    load.share_out(&vms, |_, vm| {
        load.call("delete_vm", json!([vm]))?;
        load.expect("has_vm", json!([vm]), json!(false))
    });
    phase("deleted");

    println!(
        "{} VMs, {} workers:\n\n{}",
        load.vms,
        load.workers,
        load.figures.table()
    );
    let failures = load.failures.lock().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(vms.len(), load.vms);
    assert_eq!(load.state(), before);
    assert_eq!(files_of(&vms), Vec::<PathBuf>::new());
}

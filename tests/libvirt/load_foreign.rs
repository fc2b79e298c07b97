//! Volumes and VMs of others cost a call nothing, as far as that can be: what each call asks libvirt does not become
//! more with them, nor, in the long form, what it takes. Where all VMs, or all volumes of others, must be looked at, each
//! is asked for once.
//!
//! On a host of its own, where nobody else's VMs come and go. `make reliability` has 500 volumes and 200 VMs
//! (`CPI_TEST_FOREIGN=all`), takes times, and prints a table.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::hosts_daemon::Host;
use crate::load_figures::Figures;
use crate::rpc_proxy::RpcProxy;
use crate::sandbox::{Answer, call_cpi, wait_for};
use crate::tiny_guest;

/// Calls to libvirt that one call of a method may make more or less, since it waits for something.
const WAITING: usize = 12;

/// Calls to libvirt that one call of a method makes at most where it need not wait: each is a way to the host and back.
/// Six of them connect and close.
const MOST_CALLS: [(&str, usize); 12] = [
    ("create_vm", 30),
    ("set_vm_metadata", 13),
    ("create_disk", 10),
    ("attach_disk", 39),
    ("snapshot_disk", 36),
    ("has_vm", 7),
    ("has_disk", 10),
    ("get_disks", 11),
    ("detach_disk", 22),
    ("delete_snapshot", 32),
    ("delete_disk", 30),
    ("delete_vm", 31),
];

/// Methods that wait for a copy, or for the guest.
const WAIT: [&str; 2] = ["snapshot_disk", "detach_disk"];

/// Rounds of the long form, each with all three surroundings.
const ROUNDS: usize = 6;

/// What checks that no volume of others is an overlay on the disk: each is asked for once.
const LOOK_AT_ALL_VOLUMES: [&str; 4] = ["attach_disk", "snapshot_disk", "delete_snapshot", "delete_disk"];

/// Methods that must know of every VM on the host whether it uses the disk: they ask for each once.
const LOOK_AT_ALL_VMS: [&str; 4] = ["attach_disk", "snapshot_disk", "delete_snapshot", "delete_disk"];

/// What may be between two medians, beside half of them, milliseconds. A look at a VM or a volume may take one more.
const NOISE: u128 = 30;

/// What is on the host beside the CPI's things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Nothing,
    Volumes,
    Vms,
}

const SURROUNDINGS: [Others; 3] = [Others::Nothing, Others::Volumes, Others::Vms];

struct Crowded {
    host: Host,
    proxy: RpcProxy,
    stemcell: Value,
    volumes: usize,
    vms: usize,
}

/// Calls to libvirt, by method, of one round in one of the surroundings.
type Calls = Vec<(String, usize)>;

impl Crowded {
    fn new(volumes: usize, vms: usize) -> Self {
        let host = Host::new();
        fs::create_dir(host.directory().join("console")).unwrap();
        let libvirtd = host.directory().join("run/libvirt/libvirt-sock");
        let proxy = RpcProxy::to(&libvirtd, &host.directory().join("proxy-sock"));
        let mut crowded = Self {
            host,
            proxy,
            stemcell: Value::Null,
            volumes,
            vms,
        };
        crowded.write_config("direct", &libvirtd);
        crowded.write_config("counted", &crowded.proxy.socket);
        let image = tiny_guest::image(crowded.host.directory());
        crowded.stemcell = crowded.call("direct", "create_stemcell", json!([image, {}]));
        crowded
    }

    fn write_config(&self, name: &str, socket: &std::path::Path) {
        let console = self.host.directory().join("console");
        let config = json!({"libvirt": {"type": "socket", "socket": socket},
            "settings": {"domain_type": "qemu", "console_log_dir": console}});
        fs::write(self.config(name), config.to_string()).unwrap();
    }

    fn config(&self, name: &str) -> PathBuf {
        self.host.directory().join(format!("{name}.json"))
    }

    #[track_caller]
    fn call(&self, config: &str, method: &str, arguments: Value) -> Value {
        self.answer(config, method, arguments).result()
    }

    fn answer(&self, config: &str, method: &str, arguments: Value) -> Answer {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2, "context": {}});
        let temporary = self.host.directory().join("tmp");
        call_cpi(&self.config(config), &temporary, &request.to_string())
    }

    /// The life of a VM and a disk; `call` makes each of the calls.
    fn round(&self, call: impl Fn(&str, Value) -> Value) {
        let vm = call("create_vm", tiny_guest::vm_arguments(&self.stemcell, json!({})))[0].clone();
        call("set_vm_metadata", json!([vm, {"name": "v", "job": "load"}]));
        self.wait_until_up(vm.as_str().unwrap());
        let disk = call("create_disk", json!([8, {}, vm]));
        call("attach_disk", json!([vm, disk]));
        let snapshot = call("snapshot_disk", json!([disk, {}]));
        assert_eq!(call("has_vm", json!([vm])), true);
        assert_eq!(call("has_disk", json!([disk])), true);
        assert_eq!(call("get_disks", json!([vm])), json!([disk]));
        call("detach_disk", json!([vm, disk]));
        call("delete_snapshot", json!([snapshot]));
        call("delete_disk", json!([disk]));
        call("delete_vm", json!([vm]));
    }

    fn wait_until_up(&self, vm: &str) {
        let console = self.host.directory().join(format!("console/{vm}.log"));
        wait_for("the guest to be up", Duration::from_secs(120), || {
            fs::read_to_string(&console).is_ok_and(|said| said.contains(tiny_guest::UP))
        });
    }

    /// However many VMs there are, the one that has the disk is found, and the disk stays.
    fn refuse_what_others_use(&self) {
        let vm = self.call(
            "direct",
            "create_vm",
            tiny_guest::vm_arguments(&self.stemcell, json!({})),
        )[0]
        .clone();
        let disk = self.call("direct", "create_disk", json!([8, {}, null]));
        let path = self.host.pool().join(disk.as_str().unwrap());
        for number in [0, self.vms / 2, self.vms - 1] {
            let file = self.host.directory().join("user.xml");
            fs::write(&file, foreign_vm(number, path.to_str().unwrap())).unwrap();
            self.host
                .virsh(&[&format!("undefine foreign-{number}; define {}", file.display())]);
            for (method, arguments) in [("attach_disk", json!([vm, disk])), ("delete_disk", json!([disk]))] {
                let message = self
                    .answer("direct", method, arguments)
                    .error("CloudError", false);
                assert!(
                    message.contains(&format!("it is attached to foreign-{number} (")),
                    "{message}"
                );
            }
            fs::write(&file, foreign_vm(number, "/nowhere")).unwrap();
            self.host
                .virsh(&[&format!("undefine foreign-{number}; define {}", file.display())]);
        }
        self.call("direct", "delete_disk", json!([disk]));
        self.call("direct", "delete_vm", json!([vm]));
    }

    fn count(&self) -> Calls {
        let calls = std::cell::RefCell::new(Vec::new());
        self.round(|method, arguments| {
            // Otherwise calls are repeated while libvirt still reads the pool anew after an upload.
            wait_for("the pool to be free", Duration::from_secs(60), || {
                self.host
                    .inside(&["virsh", "-q", "pool-refresh", "default"])
                    .is_ok()
            });
            self.proxy.plan(None);
            let result = self.call("counted", method, arguments);
            calls.borrow_mut().push((method.to_owned(), self.proxy.seen().0));
            result
        });
        calls.into_inner()
    }

    /// Has what is to be there come, and go when what is returned is dropped.
    fn surround(&self, others: Others) -> Surroundings<'_> {
        match others {
            Others::Nothing => {}
            Others::Volumes => {
                for number in 0..self.volumes {
                    let file = fs::File::create(self.host.pool().join(format!("foreign-{number}"))).unwrap();
                    file.set_len(1 << 30).unwrap();
                }
                self.host.virsh(&["pool-refresh", "default"]);
            }
            Others::Vms => {
                let commands = (0..self.vms).map(|number| {
                    let file = self.host.directory().join(format!("foreign-{number}.xml"));
                    fs::write(&file, foreign_vm(number, "/nowhere")).unwrap();
                    format!("define {}", file.display())
                });
                self.host.virsh(&[&commands.collect::<Vec<_>>().join("; ")]);
            }
        }
        Surroundings {
            crowded: self,
            others,
        }
    }
}

/// A VM of somebody else's, which has this file as its disk.
fn foreign_vm(number: usize, disk: &str) -> String {
    format!(
        "<domain type='qemu'><name>foreign-{number}</name><memory unit='MiB'>64</memory>\
         <os><type>hvm</type></os><devices>\
         <disk type='file'><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>\
         <interface type='network'><source network='default'/><model type='virtio'/></interface>\
         <console type='pty'/></devices></domain>"
    )
}

struct Surroundings<'a> {
    crowded: &'a Crowded,
    others: Others,
}

impl Drop for Surroundings<'_> {
    fn drop(&mut self) {
        // A test that has failed takes its host along.
        if std::thread::panicking() {
            return;
        }
        let Crowded {
            host, volumes, vms, ..
        } = self.crowded;
        match self.others {
            Others::Nothing => {}
            Others::Volumes => {
                for number in 0..*volumes {
                    fs::remove_file(host.pool().join(format!("foreign-{number}"))).unwrap();
                }
                host.virsh(&["pool-refresh", "default"]);
            }
            Others::Vms => {
                let commands: Vec<_> = (0..*vms)
                    .map(|number| format!("undefine foreign-{number}"))
                    .collect();
                host.virsh(&[&commands.join("; ")]);
            }
        }
    }
}

/// In the order of `SURROUNDINGS`.
fn assert_no_more_calls(crowded: &Crowded, counts: &[Calls]) {
    for (number, (method, alone)) in counts[0].iter().enumerate() {
        let (with_volumes, with_vms) = (counts[1][number].1, counts[2][number].1);
        println!(
            "{method}: {alone} calls to libvirt, {with_volumes} with volumes, {with_vms} with VMs of others"
        );
    }
    for (number, (method, alone)) in counts[0].iter().enumerate() {
        let (with_volumes, with_vms) = (counts[1][number].1, counts[2][number].1);
        let most = MOST_CALLS.iter().find(|(name, _)| name == method).unwrap().1;
        let waits = if WAIT.contains(&method.as_str()) {
            WAITING
        } else {
            0
        };
        assert!(
            *alone <= most + waits,
            "{method}: {alone} calls instead of {most}"
        );
        let looks_at = if LOOK_AT_ALL_VOLUMES.contains(&method.as_str()) {
            crowded.volumes
        } else {
            0
        };
        assert!(
            with_volumes <= alone + looks_at + WAITING,
            "{method}: {alone}, {with_volumes} with volumes of others"
        );
        let looks_at = if LOOK_AT_ALL_VMS.contains(&method.as_str()) {
            crowded.vms
        } else {
            0
        };
        let expected = alone + looks_at;
        assert!(
            with_vms <= expected + WAITING,
            "{method}: {alone}, {with_vms} with VMs of others"
        );
    }
}

#[test]
fn others_volumes_and_vms_cost_nothing() {
    let all = std::env::var("CPI_TEST_FOREIGN").is_ok_and(|which| which == "all");
    let crowded = if all {
        Crowded::new(500, 200)
    } else {
        Crowded::new(60, 40)
    };
    let counts = SURROUNDINGS.map(|others| {
        let _surroundings = crowded.surround(others);
        if others == Others::Vms {
            crowded.refuse_what_others_use();
        }
        crowded.count()
    });
    assert_no_more_calls(&crowded, &counts);
    if all {
        compare_times(&crowded);
    }
}

/// All surroundings in turns, so that whatever else the machine does falls on each.
fn compare_times(crowded: &Crowded) {
    let figures = [Figures::default(), Figures::default(), Figures::default()];
    for _ in 0..ROUNDS {
        for (others, figures) in SURROUNDINGS.iter().zip(&figures) {
            let _surroundings = crowded.surround(*others);
            crowded.round(|method, arguments| {
                figures.time(method, || crowded.call("direct", method, arguments))
            });
        }
    }
    println!(
        "\n| p50, ms | alone | {} volumes of others | {} VMs of others |",
        crowded.volumes, crowded.vms
    );
    println!("|---|---|---|---|");
    let medians: Vec<(String, [u128; 3])> = figures[0]
        .methods()
        .into_iter()
        .map(|method| {
            let medians = [0, 1, 2].map(|number| figures[number].percentile(&method, 50));
            (method, medians)
        })
        .collect();
    for (method, [alone, volumes, vms]) in &medians {
        println!("| `{method}` | {alone} | {volumes} | {vms} |");
    }
    for (method, [alone, volumes, vms]) in medians {
        let bound = alone * 3 / 2 + NOISE;
        let looks = if LOOK_AT_ALL_VOLUMES.contains(&method.as_str()) {
            crowded.volumes
        } else {
            0
        };
        assert!(
            volumes <= bound + looks as u128,
            "{method}: {alone} ms, {volumes} ms with volumes of others"
        );
        let looks = if LOOK_AT_ALL_VMS.contains(&method.as_str()) {
            crowded.vms
        } else {
            0
        };
        assert!(
            vms <= bound + looks as u128,
            "{method}: {alone} ms, {vms} ms with VMs of others"
        );
    }
}

//! The same calls again and again: nothing piles up, neither volumes, VMs, entries and files, nor what libvirtd and the
//! guest's QEMU hold. On a host of its own, whose libvirtd serves nobody else.
//!
//! A round makes a disk, attaches it to a guest that is up, detaches and deletes it. Each tenth also makes and deletes a
//! VM. A few rounds in `make test`; `make reliability` does 500 (`CPI_TEST_SOAK_ROUNDS`) and prints a table.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::footprint::{Footprint, files_below, growth};
use crate::guest::BOOT_LIMIT;
use crate::hosts_daemon::Host;
use crate::sandbox::{call_cpi, wait_for};
use crate::tiny_guest;

/// Rounds that are not measured: libvirtd and QEMU get ready for what they have not done before.
const WARM_UP: usize = 11;

/// Rows of the table.
const ROWS: usize = 10;

/// What libvirtd may grow by with each round, KiB, where there are rounds enough to tell.
const MEMORY_PER_ROUND: f64 = 8.0;
const ENOUGH_ROUNDS: usize = 100;

/// What a few rounds may add to libvirtd, KiB: its allocator takes memory in large pieces.
const MEMORY_AT_ONCE: u64 = 16 * 1024;

fn rounds() -> usize {
    match std::env::var("CPI_TEST_SOAK_ROUNDS") {
        Ok(number) => number.parse().expect("CPI_TEST_SOAK_ROUNDS is a number"),
        Err(_) => 10,
    }
}

struct Soak {
    host: Host,
    config: PathBuf,
}

/// All that may not differ after a round, but for memory.
#[derive(Debug, PartialEq, Eq)]
struct State {
    volumes: Vec<String>,
    vms: Vec<String>,
    /// The network's XML, where DHCP host entries are.
    network: String,
    leases: usize,
    /// All files of the host's: of pool, NVRAM, libvirt, dnsmasq, and temporary ones.
    files: Vec<PathBuf>,
    libvirtd: (usize, usize),
    virtlogd: usize,
    qemu: usize,
}

impl Soak {
    fn new() -> Self {
        let host = Host::new();
        let network = host.directory().join("soak.xml");
        let xml = "<network><name>soak</name><bridge name='virbr1' stp='off' delay='0'/>\
            <ip address='10.134.0.1' netmask='255.255.255.0'><dhcp>\
            <range start='10.134.0.10' end='10.134.0.220'/></dhcp></ip></network>";
        fs::write(&network, xml).unwrap();
        host.virsh(&["net-create", network.to_str().unwrap()]);
        let console = host.directory().join("console");
        fs::create_dir(&console).unwrap();
        let config = host.directory().join("cpi.json");
        let settings = json!({"domain_type": "qemu", "network_name": "soak", "console_log_dir": console});
        let content = json!({"log_level": "DEBUG", "libvirt": host.libvirt(), "settings": settings});
        fs::write(&config, content.to_string()).unwrap();
        Self { host, config }
    }

    #[track_caller]
    fn call(&self, method: &str, arguments: Value) -> Value {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2,
            "context": {"director_uuid": "d", "request_id": "cpi-soak"}});
        let temporary = self.host.directory().join("tmp");
        call_cpi(&self.config, &temporary, &request.to_string()).result()
    }

    fn booted(&self, stemcell: &Value) -> String {
        let vm = self.call("create_vm", tiny_guest::vm_arguments(stemcell, json!({})))[0].clone();
        let vm = vm.as_str().unwrap().to_owned();
        let console = self.host.directory().join(format!("console/{vm}.log"));
        wait_for("the guest to be up", BOOT_LIMIT, || {
            fs::read_to_string(&console).is_ok_and(|said| said.contains(tiny_guest::UP))
        });
        vm
    }

    fn round(&self, stemcell: &Value, vm: &str, number: usize) {
        let disk = self.call("create_disk", json!([8, {}, vm]));
        self.call("attach_disk", json!([vm, disk]));
        self.call("detach_disk", json!([vm, disk]));
        self.call("delete_disk", json!([disk]));
        match number % 20 {
            0 => self.vm_comes_and_goes(stemcell, "bios"),
            10 => self.vm_comes_and_goes(stemcell, "efi"),
            _ => {}
        }
    }

    /// Its address, and with it its DHCP host entry, is the same each time.
    fn vm_comes_and_goes(&self, stemcell: &Value, firmware: &str) {
        let networks = json!({"default": {"type": "manual", "ip": "10.134.0.10", "netmask": "255.255.255.0",
            "gateway": "10.134.0.1", "dns": [], "default": ["dns", "gateway"], "cloud_properties": {}}});
        let properties = json!({"memory": 64, "ephemeral_disk": 8, "firmware": firmware});
        let arguments = json!(["agent", stemcell, properties, networks, [], {}]);
        let other = self.call("create_vm", arguments)[0].clone();
        assert!(
            self.host
                .virsh(&["net-dumpxml", "soak"])
                .contains(&format!("name='{}'", other.as_str().unwrap()))
        );
        self.call("delete_vm", json!([other]));
    }

    fn state(&self) -> State {
        let lines = |arguments: &[&str]| -> Vec<String> {
            let listing = self.host.virsh(arguments);
            let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let libvirtd = Footprint::of(self.host.process("libvirtd"));
        State {
            volumes: lines(&["vol-list", "default"]),
            vms: lines(&["list", "--all", "--name"]),
            network: self.host.virsh(&["net-dumpxml", "soak"]),
            leases: lines(&["net-dhcp-leases", "soak"]).len(),
            files: self.files(),
            libvirtd: (libvirtd.descriptors, libvirtd.threads),
            virtlogd: Footprint::of(self.host.process("virtlogd")).descriptors,
            qemu: Footprint::of(self.host.process("qemu-system-x86")).descriptors,
        }
    }

    /// Logs are left out: that of a VM, which libvirt keeps, is meant to outlive it.
    fn files(&self) -> Vec<PathBuf> {
        ["etc", "lib", "cache", "run", "pool", "tmp"]
            .iter()
            .flat_map(|name| files_below(&self.host.directory().join(name)))
            .collect()
    }
}

#[test]
fn nothing_piles_up_round_after_round() {
    let soak = Soak::new();
    let image = tiny_guest::image(soak.host.directory());
    let stemcell = soak.call("create_stemcell", json!([image, {}]));
    let vm = soak.booted(&stemcell);
    for number in 0..WARM_UP {
        soak.round(&stemcell, &vm, number);
    }
    let libvirtd = soak.host.process("libvirtd");
    let qemu = soak.host.process("qemu-system-x86");
    let (before, qemu_before) = (soak.state(), Footprint::of(qemu).memory);
    let rounds = rounds();
    let mut memory = vec![Footprint::of(libvirtd).memory];
    println!(
        "| round | minutes | volumes, VMs | DHCP host entries, leases | files | libvirtd: descriptors, threads, memory \
         | QEMU: descriptors, memory |\n|---|---|---|---|---|---|---|"
    );
    let started = Instant::now();
    for number in 0..=rounds {
        if number > 0 {
            soak.round(&stemcell, &vm, WARM_UP + number - 1);
            memory.push(Footprint::of(libvirtd).memory);
        }
        if number % rounds.div_ceil(ROWS) == 0 || number == rounds {
            let (daemon, emulator, now) = (Footprint::of(libvirtd), Footprint::of(qemu), soak.state());
            println!(
                "| {number} | {:.1} | {}, {} | {}, {} | {} | {}, {}, {} KiB | {}, {} KiB |",
                started.elapsed().as_secs_f64() / 60.0,
                now.volumes.len(),
                now.vms.len(),
                now.network.matches("<host ").count(),
                now.leases,
                now.files.len(),
                daemon.descriptors,
                daemon.threads,
                daemon.memory,
                emulator.descriptors,
                emulator.memory,
            );
        }
    }

    // Libvirtd ends a connection, and a VM, a little after who asked for it has gone.
    let limit = Instant::now() + Duration::from_secs(20);
    while soak.state() != before && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(soak.state(), before);
    let last_half = &memory[memory.len() / 2..];
    let (per_round, in_all) = (growth(last_half), memory[rounds].saturating_sub(memory[0]));
    println!(
        "libvirtd grew by {in_all} KiB in {rounds} rounds; in the last half by {per_round:.2} KiB each; QEMU by {} KiB",
        Footprint::of(qemu).memory.saturating_sub(qemu_before)
    );
    if rounds >= ENOUGH_ROUNDS {
        assert!(
            per_round < MEMORY_PER_ROUND,
            "{per_round} KiB per round: {memory:?}"
        );
    } else {
        assert!(in_all < MEMORY_AT_ONCE, "{memory:?}");
    }
}

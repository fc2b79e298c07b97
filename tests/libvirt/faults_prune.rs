//! `cpi prune` with a fault at each call to libvirt: whatever goes wrong, only what is left over goes, and the next time the
//! rest of it.

use std::fs;

use crate::points::{self, Points};
use crate::prune_bench::{Bench, HALF};
use crate::rpc_proxy::{At, Fault};
use crate::sandbox::run;

const DEAD: &str = "vm-00000000-0000-4000-8000-00000000dead";
const STEMCELL: &str = "sc-00000000-0000-4000-8000-00000000cafe";
const GONE: &str = "disk000000000000gone";
const DISK: &str = "disk000000000000kept";

/// Points that `make test` takes.
const SAMPLE: usize = 3;

/// The volumes that are left over.
fn leftovers() -> [String; 6] {
    [
        format!("{DEAD}-boot"),
        format!("{HALF}-config"),
        STEMCELL.to_owned(),
        format!("{STEMCELL}.partial"),
        format!("{GONE}.record"),
        format!("{GONE}.deleting"),
    ]
}

/// Something of each kind that can go, where it is not there any more.
fn leave(bench: &Bench) {
    let there = bench.volumes("default");
    for name in leftovers() {
        if !there.contains(&name) {
            bench.make("default", &name, "2 hours ago");
        }
    }
    if bench.host.virsh(&["list", "--all", "--name"]).trim().is_empty() {
        bench.define_half_vm(&leftovers()[1]);
    }
    let xml = format!(
        "<network><name>entries</name><ip address='10.79.1.1' netmask='255.255.255.0'><dhcp>\
         <host mac='52:54:00:00:00:01' name='{DEAD}' ip='10.79.1.9'/></dhcp></ip></network>"
    );
    let file = bench.host.directory().join("entries.xml");
    fs::write(&file, xml).unwrap();
    if entries(bench) == 0 {
        bench.host.virsh(&["net-define", file.to_str().unwrap()]);
    }
}

/// How many DHCP entries of the VM there are.
fn entries(bench: &Bench) -> usize {
    let networks = bench.host.virsh(&["net-list", "--all", "--name"]);
    if !networks.contains("entries") {
        return 0;
    }
    let xml = bench.host.virsh(&["net-dumpxml", "entries", "--inactive"]);
    let number = xml.matches(DEAD).count();
    if number == 0 {
        bench.host.virsh(&["net-undefine", "entries"]);
    }
    number
}

/// Nothing of what `leave` has left, and all that somebody has.
#[track_caller]
fn assert_pruned(bench: &Bench, what: &str) {
    let record = format!("{DISK}.record");
    assert_eq!(bench.volumes("default"), [DISK, &record], "{what}");
    assert_eq!(
        bench.host.virsh(&["list", "--all", "--name"]).trim(),
        "",
        "{what}"
    );
    assert_eq!(entries(bench), 0, "{what}");
}

#[test]
fn only_leftovers_go_and_the_next_time_the_rest_of_them() {
    let bench = Bench::new();
    for name in [DISK.to_owned(), format!("{DISK}.record")] {
        bench.make("default", &name, "2 hours ago");
    }
    leave(&bench);
    bench.proxy.plan(None);
    let (content, fates) = bench.prune(&["--yes"]);
    let (calls, _) = bench.proxy.seen();
    assert!(content, "{fates:?}");
    assert_pruned(&bench, "without a fault");

    let numbers: Vec<usize> = match points::wanted(SAMPLE) {
        Points::All(_) => points::all_of(calls).unwrap().collect(),
        Points::Some(sample) => (0..sample)
            .map(|n| (points::seed() + n * calls / sample) % calls + 1)
            .collect(),
    };
    for number in numbers {
        for fault in [Fault::Refused, Fault::Lost] {
            if !points::is_kind_wanted(&format!("{fault:?}")) {
                continue;
            }
            leave(&bench);
            bench.proxy.plan(Some((At::Number(number), fault)));
            let output = bench.command(&["--yes"]);
            bench.proxy.plan(None);
            let what = format!("message {number} of {calls}, {fault:?}: {output:?}");
            let volumes = bench.volumes("default");
            assert!(volumes.contains(&DISK.to_owned()), "{what}");
            assert!(volumes.contains(&format!("{DISK}.record")), "{what}");
            // What stays is no success, is told with a reason, or is said to have been left out.
            let left = leftovers().iter().filter(|name| volumes.contains(name)).count();
            let told = String::from_utf8_lossy(&output.stdout).contains("\"spared\": \"")
                || String::from_utf8_lossy(&output.stderr).contains("is left out");
            assert!(left == 0 || !output.status.success() || told, "{what}");
            // What it made to read the clock is left over itself, when it is old.
            for probe in volumes.iter().filter(|name| name.starts_with("cpi-probe-")) {
                let path = bench.host.pool().join(probe);
                run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
            }
            let (content, fates) = bench.prune(&["--yes"]);
            assert!(content, "{what}: {fates:?}");
            assert_pruned(&bench, &what);
        }
    }
}

//! The CPI against a whole Debian host, booted and installed as docs/INSTALL.md says: its own kernel, systemd, libvirt,
//! polkit, sshd, and AppArmor enforcing. `make test-host` runs it; docs/DEVELOPING.md says how to run parts of it.

// Most of these is for the tests on this machine's libvirt.
#[allow(dead_code)]
#[path = "../libvirt/dead_runs.rs"]
mod dead_runs;
#[allow(dead_code)]
#[path = "../libvirt/sandbox.rs"]
mod sandbox;
#[allow(dead_code)]
#[path = "../libvirt/tiny_guest.rs"]
mod tiny_guest;

mod confinement;
mod contract;
mod cpi;
mod guest;
mod host;
mod install;
mod pools;
mod reboot;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use host::Host;

/// A name, and what is done.
type Step = (&'static str, fn(&Host));

/// What is shown on each host, in this order: each step builds on the host that the ones before have left.
const STEPS: [Step; 12] = [
    ("install", install::as_documented),
    ("check", install::check_passes),
    ("contract", contract::over_tls),
    ("ssh", contract::over_ssh),
    ("socket", contract::within_the_host),
    ("directories", pools::in_directories),
    ("nfs", pools::on_nfs),
    ("lvm", pools::on_lvm),
    ("vlans", pools::vlans),
    ("refusal", confinement::is_named_by_check),
    ("reboot", reboot::with_running_vms),
    ("audit", confinement::denied_nothing),
];

fn all_steps(release: &str) {
    let host = Host::boot(release);
    let wanted = std::env::var("CPI_TEST_HOST_STEPS").unwrap_or_default();
    let known: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    for name in wanted.split_whitespace() {
        assert!(
            known.contains(&name),
            "no step is called {name}; there are {known:?}"
        );
    }
    let mut passed = Vec::new();
    for (name, step) in STEPS {
        if wanted.is_empty() || wanted.split_whitespace().any(|one| one == name) {
            let started = Instant::now();
            step(&host);
            println!("{release}: {name} took {} s", started.elapsed().as_secs());
            passed.push(name);
        }
    }
    note(release, &passed);
}

/// Notes that this host has passed these steps, for CI (`scripts/test-host/inputs`).
fn note(release: &str, steps: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let inputs = Command::new(root.join("scripts/test-host/inputs"))
        .output()
        .unwrap()
        .stdout;
    let inputs = String::from_utf8(inputs).unwrap();
    let file = root.join("tests/host/passed");
    let noted = fs::read_to_string(&file).unwrap_or_default();
    let others = noted
        .lines()
        .filter(|line| line.split_whitespace().nth(1) != Some(release));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    lines.push(format!("{} {release} {}", inputs.trim(), steps.join(" ")));
    lines.sort();
    fs::write(file, lines.join("\n") + "\n").unwrap();
}

#[test]
fn bookworm() {
    all_steps("bookworm");
}

#[test]
fn trixie() {
    all_steps("trixie");
}

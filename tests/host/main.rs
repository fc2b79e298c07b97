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
    for (name, step) in STEPS {
        if wanted.is_empty() || wanted.split_whitespace().any(|one| one == name) {
            let started = Instant::now();
            step(&host);
            println!("{release}: {name} took {} s", started.elapsed().as_secs());
        }
    }
}

#[test]
fn bookworm() {
    all_steps("bookworm");
}

#[test]
fn trixie() {
    all_steps("trixie");
}

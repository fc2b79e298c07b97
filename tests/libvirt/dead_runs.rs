//! What test runs that were killed (Ctrl-C, a time limit) have left: their sandboxes, known by the process in their names.
//! The next run takes them away before it makes its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Once;

use crate::sandbox::try_virsh;

/// What the name of every sandbox begins with; the process and a number follow.
pub const PREFIX: &str = "cpitest-";

/// Removes sandboxes whose process is gone, once in each run.
pub fn clear() {
    static CLEARED: Once = Once::new();
    CLEARED.call_once(|| {
        let names = left_over();
        if names.is_empty() {
            return;
        }
        for domain in lines(&["list", "--all", "--name"]) {
            let xml = try_virsh(&["dumpxml", &domain]).unwrap_or_default();
            if names.iter().any(|name| xml.contains(&format!("'{name}'"))) {
                let _ = try_virsh(&["destroy", &domain]);
                let _ = try_virsh(&["undefine", &domain, "--nvram"]);
            }
        }
        for name in names {
            // Not each of them is there, nor has something to be undefined.
            for command in ["pool-destroy", "pool-undefine", "net-destroy", "net-undefine"] {
                let _ = try_virsh(&[command, &name]);
            }
        }
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_of_dead_run) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
}

/// Names of pools and networks.
fn left_over() -> BTreeSet<String> {
    let pools = lines(&["pool-list", "--all", "--name"]);
    let networks = lines(&["net-list", "--all", "--name"]);
    pools
        .into_iter()
        .chain(networks)
        .filter(|name| is_of_dead_run(name))
        .collect()
}

fn is_of_dead_run(name: &str) -> bool {
    let process = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
        .and_then(|process| process.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

fn lines(list: &[&str]) -> Vec<String> {
    let listing = try_virsh(list).unwrap_or_default();
    let names = listing.lines().map(|line| line.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn runs_that_go_on_are_left_alone() {
    // No system has process numbers that large.
    let gone = u32::MAX;
    for (name, expected) in [
        (format!("{PREFIX}{gone}-3"), true),
        (format!("{PREFIX}{gone}-3-second"), true),
        (format!("{PREFIX}{}-3", std::process::id()), false),
        (format!("{PREFIX}none"), false),
        ("default".to_owned(), false),
    ] {
        assert_eq!(is_of_dead_run(&name), expected, "{name}");
    }
}

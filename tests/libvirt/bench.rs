//! The short form of `make bench`, which measures in minutes: it still works, and has a figure for both sides.

use std::process::Command;

/// Methods whose rows it prints.
const METHODS: [&str; 4] = ["create_vm", "delete_vm", "create_network", "delete_network"];

#[test]
fn the_benchmark_measures_both_sides() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench"))
        .args(["1", "vms", "networks"])
        .env("CPI", env!("CARGO_BIN_EXE_cpi"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{said}");
    for method in METHODS {
        let row: Vec<&str> = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&method))
            .unwrap_or_else(|| panic!("no row for {method}: {said}"));
        for column in [1, 2, 4] {
            let milliseconds: f64 = row[column].parse().unwrap();
            assert!(milliseconds > 1.0, "{row:?}");
        }
    }
}

//! Two calls that copy or grow the same disk, each within the other.

use std::cell::RefCell;
use std::fs;

use serde_json::{Value, json};

use crate::call_races::{Answers, fill, meet, require_nothing_of, running_vm, succeeded};
use crate::disk_races::Bench;
use crate::sandbox::{run, virsh};

const MIB: u64 = 1 << 20;

/// Whoever did not succeed may try again.
#[track_caller]
fn assert_retryable(answers: &Answers<'_>) {
    for answer in [answers.one, answers.other] {
        assert!(
            succeeded(answer) || answer["error"]["ok_to_retry"] == true,
            "{}",
            answers.what
        );
    }
}

#[test]
fn a_detached_disk_that_two_calls_grow_never_shrinks() {
    let bench = Bench::new();
    let current = RefCell::new(String::new());
    let mut grown = [0, 0];
    meet(
        &bench,
        || {
            let disk = bench.disk();
            current.replace(disk.clone());
            (
                ("resize_disk", json!([disk, 16])),
                ("resize_disk", json!([disk, 24])),
            )
        },
        |answers| {
            let (to_16, to_24) = answers.outcomes();
            // The smaller size may come too late.
            assert!(
                to_24 || answers.other["error"]["ok_to_retry"] == true,
                "{}",
                answers.what
            );
            let size = fs::metadata(bench.file_of(&current.borrow())).unwrap().len();
            let expected = if to_24 { 24 } else { 16 };
            assert_eq!(size, expected * MIB, "{}", answers.what);
            grown = [grown[0] + usize::from(to_16), grown[1] + usize::from(to_24)];
            bench
                .sandbox
                .call("delete_disk", json!([*current.borrow()]))
                .result();
        },
    );
    assert!(grown[0] > 0 && grown[1] > 0, "{grown:?}");
}

#[test]
fn a_snapshot_of_a_disk_that_grows_is_the_disk_before_or_after() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    for vm in [None, Some(running_vm(&bench))] {
        let current = RefCell::new(String::new());
        let (mut grown, mut taken) = (0, 0);
        meet(
            &bench,
            || {
                let disk = bench.disk();
                fill(&bench.file_of(&disk));
                if let Some(vm) = &vm {
                    sandbox.call("attach_disk", json!([vm, disk])).result();
                }
                current.replace(disk.clone());
                (
                    ("resize_disk", json!([disk, 16])),
                    ("snapshot_disk", json!([disk, {}])),
                )
            },
            |answers| {
                let (what, disk) = (&answers.what, current.borrow().clone());
                let (is_grown, is_taken) = answers.outcomes();
                assert_retryable(answers);
                (grown, taken) = (grown + usize::from(is_grown), taken + usize::from(is_taken));
                let size = |name: &str| fs::metadata(bench.file_of(name)).unwrap().len();
                assert_eq!(size(&disk), if is_grown { 16 } else { 8 } * MIB, "{what}");
                if is_taken {
                    let snapshot = answers.other["result"].as_str().unwrap();
                    assert!([8 * MIB, size(&disk)].contains(&size(snapshot)), "{what}");
                    // A longer one has nothing but zeros there: without -s, qemu-img takes them as equal.
                    let files = [&disk, snapshot].map(|name| bench.file_of(name).display().to_string());
                    let compare = ["compare", "-U", "-f", "raw", "-F", "raw", &files[0], &files[1]];
                    run("qemu-img", &compare).unwrap_or_else(|e| panic!("{what}: {e}"));
                    sandbox.call("delete_snapshot", json!([snapshot])).result();
                }
                require_nothing_of(sandbox, "snap", what);
                if let Some(vm) = &vm {
                    sandbox.call("detach_disk", json!([vm, disk])).result();
                }
                sandbox.call("delete_disk", json!([disk])).result();
            },
        );
        assert!(grown > 0 && taken > 0, "{grown} grown, {taken} taken");
    }
}

#[test]
fn two_snapshots_of_a_disk_at_once_are_both_complete() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let disk = bench.disk();
    fill(&bench.file_of(&disk));
    for vm in [None, Some(running_vm(&bench))] {
        if let Some(vm) = &vm {
            sandbox.call("attach_disk", json!([vm, disk])).result();
        }
        let mut both = 0;
        meet(
            &bench,
            || {
                let call = ("snapshot_disk", json!([disk, {}]));
                (call.clone(), call)
            },
            |answers| {
                let what = &answers.what;
                let taken = answers.outcomes();
                assert_retryable(answers);
                both += usize::from(taken == (true, true));
                let snapshots: Vec<&Value> = [answers.one, answers.other]
                    .into_iter()
                    .filter(|answer| succeeded(answer))
                    .map(|answer| &answer["result"])
                    .collect();
                assert!(!snapshots.is_empty(), "{what}");
                for snapshot in snapshots {
                    let files = [&disk, snapshot.as_str().unwrap()]
                        .map(|name| bench.file_of(name).display().to_string());
                    let compare = [
                        "compare", "-s", "-U", "-f", "raw", "-F", "raw", &files[0], &files[1],
                    ];
                    run("qemu-img", &compare).unwrap_or_else(|e| panic!("{what}: {e}"));
                    sandbox.call("delete_snapshot", json!([snapshot])).result();
                }
                require_nothing_of(sandbox, "snap", what);
            },
        );
        assert!(both > 0);
        if let Some(vm) = &vm {
            assert_eq!(virsh(&["domstate", vm]).trim(), "running");
            sandbox.call("detach_disk", json!([vm, disk])).result();
        }
    }
}

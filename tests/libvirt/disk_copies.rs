//! Copies of detached disks: nothing replaces a disk that is not what was asked for, and what goes wrong after that is
//! no reason to say that it was not replaced. And a deletion that somebody else was faster with.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Answer, Sandbox, run, virsh};

/// Procedures of libvirt's remote protocol.
const COPY_VOLUME: u32 = 125;
const DELETE_VOLUME: u32 = 94;
const FIND_VOLUME: u32 = 95;

struct Bench {
    sandbox: Sandbox,
    proxy: RpcProxy,
}

impl Bench {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let proxy = RpcProxy::of(&mut sandbox);
        Self { sandbox, proxy }
    }

    /// A disk with something in it, and in its record.
    fn disk(&self) -> String {
        let properties = json!({"format": "qcow2", "cache": "none"});
        let disk = self.sandbox.call("create_disk", json!([8, properties])).text();
        let file = self.file_of(&disk);
        run(
            "qemu-io",
            &["-f", "qcow2", "-c", "write -P 7 1M 1M", file.to_str().unwrap()],
        )
        .unwrap();
        self.sandbox.refresh_pool();
        disk
    }

    fn file_of(&self, name: &str) -> PathBuf {
        self.sandbox.directory().join("pool").join(name)
    }

    fn once_copied(&self, disk: &str, event: impl FnOnce(&Path) + Send + 'static) {
        plan_once_copied(&self.proxy, self.file_of(""), disk.to_owned(), Box::new(event));
    }

    /// A call in which what was planned happens.
    #[track_caller]
    fn call(&self, method: &str, arguments: Value) -> Answer {
        let answer = self.sandbox.call(method, arguments);
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        assert!(happened, "{}", answer.stderr);
        answer
    }
}

type Event = Box<dyn FnOnce(&Path) + Send>;

/// Lets this happen to the copy that a call makes of the disk, before the call hears that it is made. Libvirt is asked a
/// second time where it cannot share blocks between files.
fn plan_once_copied(proxy: &RpcProxy, pool: PathBuf, disk: String, event: Event) {
    let again = proxy.clone();
    proxy.plan_event(
        At::Procedure(COPY_VOLUME, 1),
        Fault::After,
        move || match copy_of(&disk, &pool) {
            Some(copy) => event(&copy),
            None => plan_once_copied(&again, pool, disk, event),
        },
    );
}

/// The file of a disk or snapshot in this directory that is not that one.
fn copy_of(disk: &str, pool: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(pool).unwrap().map(|entry| entry.unwrap().path());
    let mut copies = files.filter(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        (name.starts_with("disk") || name.starts_with("snap")) && !name.contains('.') && name != disk
    });
    copies.next()
}

fn grow(copy: &Path) {
    let file = fs::File::options().write(true).open(copy).unwrap();
    file.set_len(9 << 20).unwrap();
}

fn reformat(copy: &Path) {
    let create = ["create", "-f", "qcow2", copy.to_str().unwrap(), "8M"];
    run("qemu-img", &create).unwrap();
}

#[test]
fn a_copy_that_is_not_what_was_asked_for_replaces_no_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let disk = bench.disk();
    let update = json!([disk, 8, {"format": "raw"}]);
    let record = bench.file_of(&format!("{disk}.record"));
    let state = || {
        let contents = [bench.file_of(&disk), record.clone()].map(|file| fs::read(file).unwrap());
        (sandbox.volumes(), contents)
    };
    let before = state();
    for (harm, says) in [
        (grow as fn(&Path), "has 9437184 bytes as Some(Raw)"),
        (reformat, "has 8388608 bytes as Some(Qcow2)"),
    ] {
        let name = sandbox.name.clone();
        bench.once_copied(&disk, move |copy| {
            harm(copy);
            virsh(&["pool-refresh", &name]);
        });
        let message = bench
            .call("update_disk", update.clone())
            .error("CloudError", false);
        assert!(message.contains(says), "{message}");
        assert!(state() == before, "{:?}", sandbox.volumes());
    }
    let copy = sandbox.call("update_disk", update).text();
    assert!(!bench.file_of(&disk).exists());
    let file = bench.file_of(&copy);
    run(
        "qemu-io",
        &["-f", "raw", "-c", "read -P 7 1M 1M", file.to_str().unwrap()],
    )
    .unwrap();
}

/// The Director must hear of the copy.
#[test]
fn a_disk_is_replaced_though_its_old_volume_cannot_be_deleted() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let disk = bench.disk();
    let before = sandbox.volumes();
    let deleting = At::Procedure(DELETE_VOLUME, 1);
    bench.proxy.plan(Some((deleting, Fault::Refused)));
    let answer = bench.call("update_disk", json!([disk, 8, {}]));
    let log = answer.stderr.clone();
    let copy = answer.text();
    let says = format!("disk {disk} was replaced by {copy}, but its volume is still there: ");
    assert!(log.contains(&says), "{log}");
    // No mark is left that would keep the old one from being deleted.
    let mut expected = [before, vec![copy.clone(), format!("{copy}.record")]].concat();
    expected.sort();
    let mut left = sandbox.volumes();
    left.sort();
    assert_eq!(left, expected);
    for disk in [copy, disk] {
        sandbox.call("delete_disk", json!([disk])).result();
    }
    assert_eq!(sandbox.volumes(), [""; 0]);
}

#[test]
fn a_disk_that_somebody_else_deletes_at_that_moment_is_gone() {
    let bench = Bench::new();
    let disk = bench.disk();
    let (pool, gone) = (bench.sandbox.name.clone(), disk.clone());
    let deleting = At::Procedure(DELETE_VOLUME, 1);
    bench.proxy.plan_event(deleting, Fault::Before, move || {
        virsh(&["vol-delete", "--pool", &pool, &gone]);
    });
    bench.call("delete_disk", json!([disk])).result();
    assert_eq!(bench.sandbox.volumes(), [""; 0]);
}

/// Whoever shows how far the copy is may get an error or no answer; the copy counts all the same.
#[test]
fn a_copy_does_not_wait_for_those_who_only_watch_it() {
    let bench = Bench::new();
    let disk = bench.disk();
    for (fault, still_waits) in [(Fault::Before, true), (Fault::Refused, false)] {
        let proxy = bench.proxy.clone();
        bench.once_copied(&disk, move |_| {
            let looking = At::Procedure(FIND_VOLUME, 1);
            proxy.plan_event(looking, fault, || sleep(Duration::from_secs(3)));
            // The first look is after a second.
            sleep(Duration::from_millis(1_500));
        });
        let answer = bench.call("snapshot_disk", json!([disk, {}]));
        let log = answer.stderr.clone();
        let snapshot = answer.text();
        assert_eq!(
            log.contains("what watched the copy still waits"),
            still_waits,
            "{log}"
        );
        bench.sandbox.call("delete_snapshot", json!([snapshot])).result();
    }
}

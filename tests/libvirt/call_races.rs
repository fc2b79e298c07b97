//! Two calls about the same VM, disk, snapshot or stemcell: each is made within the other, at its messages to libvirt
//! one after the other, and afterwards. docs/DEVELOPING.md has a table of all pairs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::disk_races::Bench;
use crate::lvm_host::{LvmHost, POOL};
use crate::points;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, call_cpi, run, try_virsh, virsh, wait_for};
use crate::tiny_guest;

/// `make test` takes every seventh message, `CPI_TEST_FAULTS=all` each.
const STEP: usize = 7;

/// `virStorageVolCreateXML` in libvirt's remote protocol.
const CREATE_VOLUME: u32 = 93;

pub type Call = (&'static str, Value);

/// What two calls answered.
pub struct Answers<'a> {
    pub what: String,
    pub one: &'a Value,
    pub other: &'a Value,
}

impl Answers<'_> {
    /// Whether the calls succeeded. Those that did not must be retryable, or say that the thing is gone or in use.
    #[track_caller]
    pub fn outcomes(&self) -> (bool, bool) {
        for answer in [self.one, self.other] {
            let error = &answer["error"];
            assert!(
                error["type"] != "Bosh::Clouds::CpiError" && error["type"] != "Unknown",
                "{}",
                self.what
            );
        }
        (succeeded(self.one), succeeded(self.other))
    }
}

pub fn succeeded(answer: &Value) -> bool {
    answer["error"].is_null()
}

/// Past the proxy, so that no event is due.
fn directly(bench: &Bench, call: &Call) -> Value {
    let request = json!({"method": call.0, "arguments": call.1, "api_version": 2}).to_string();
    call_cpi(&bench.direct, bench.sandbox.directory(), &request).response
}

/// Makes each of two calls within the other, and looks at what came of both. `calls` makes what they are about anew.
#[track_caller]
pub fn meet(bench: &Bench, mut calls: impl FnMut() -> (Call, Call), mut check: impl FnMut(&Answers<'_>)) {
    let step = if points::all_of(1).is_some() { 1 } else { STEP };
    for swapped in [false, true] {
        let mut number = 1;
        loop {
            let (one, other) = calls();
            let (outer, inner) = if swapped { (&other, &one) } else { (&one, &other) };
            let (of_outer, of_inner) =
                bench.call_within((outer.0, &outer.1), At::Number(number), (inner.0, &inner.1));
            let met = of_inner.is_some();
            let of_inner = of_inner.unwrap_or_else(|| directly(bench, inner));
            let place = if met {
                format!("at message {number} of")
            } else {
                "after".to_owned()
            };
            let what = format!("{} {place} {}: {of_inner} and {of_outer}", inner.0, outer.0);
            let (one, other) = if swapped {
                (&of_inner, &of_outer)
            } else {
                (&of_outer, &of_inner)
            };
            check(&Answers { what, one, other });
            if !met {
                break;
            }
            number += step;
        }
        assert!(number > 2 * step, "they met {number} times");
    }
}

/// Whether the running VM has the disk, and whether its next start will.
fn has(vm: &str, disk: &str) -> (bool, bool) {
    let live = virsh(&["domstate", vm]).trim() == "running" && virsh(&["dumpxml", vm]).contains(disk);
    (live, virsh(&["dumpxml", vm, "--inactive"]).contains(disk))
}

/// A running VM whose guest releases disks.
pub fn running_vm(bench: &Bench) -> String {
    let sandbox = &bench.sandbox;
    let image = tiny_guest::image(sandbox.directory());
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let properties = json!({"memory": 32, "machine": "pc"});
    let arguments = json!(["a", stemcell, properties, sandbox.manual_network(20), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox.wait_for_console(&vm, tiny_guest::UP, 1);
    vm
}

#[track_caller]
pub fn require_nothing_of(sandbox: &Sandbox, cid: &str, what: &str) {
    let left = sandbox.volumes();
    assert!(!left.iter().any(|name| name.contains(cid)), "{what}: {left:?}");
}

fn new_vm_arguments(bench: &Bench, stemcell: &str, host: u8) -> Value {
    json!(["a", stemcell, {"memory": 32}, bench.sandbox.manual_network(host), [], {}])
}

pub fn fill(file: &Path) {
    let of = format!("of={}", file.display());
    run(
        "dd",
        &["if=/dev/urandom", &of, "bs=1M", "count=2", "conv=notrunc"],
    )
    .unwrap();
}

#[test]
fn create_vm_and_create_vm_wait_for_the_throttle() {
    let mut bench = Bench::new();
    let path = bench.sandbox.directory().join("lock");
    let throttle = json!({"throttle": {"name": "file-lock", "path": path, "timeout": 1}});
    let mut direct: Value = serde_json::from_slice(&fs::read(&bench.direct).unwrap()).unwrap();
    direct["throttle"] = throttle["throttle"].clone();
    fs::write(&bench.direct, direct.to_string()).unwrap();
    bench.sandbox.configure(throttle);
    let [one, other] = [30, 31].map(|host| new_vm_arguments(&bench, &bench.stemcell, host));
    // While the first one makes its first volume, it holds the lock.
    let at = At::Procedure(CREATE_VOLUME, 1);
    let (first, second) = bench.call_within(("create_vm", &one), at, ("create_vm", &other));
    assert!(succeeded(&first), "{first}");
    let second = second.unwrap();
    let message = second["error"]["message"].as_str().unwrap();
    assert!(
        second["error"]["type"] == "Bosh::Clouds::VMCreationFailed"
            && second["error"]["ok_to_retry"] == true
            && message.contains("request cpi-create_vm"),
        "{second}"
    );
    assert!(succeeded(&directly(&bench, &("create_vm", other))));
    assert_eq!(bench.sandbox.domains().len(), 2);
}

#[test]
fn attach_disk_and_snapshot_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    for vm in [bench.stopped_vm(), running_vm(&bench)] {
        let disk = bench.disk();
        fill(&bench.file_of(&disk));
        let (mut attached, mut taken) = (0, 0);
        meet(
            &bench,
            || {
                (
                    ("attach_disk", json!([vm, disk])),
                    ("snapshot_disk", json!([disk, {}])),
                )
            },
            |answers| {
                let what = &answers.what;
                let (is_attached, is_taken) = answers.outcomes();
                (attached, taken) = (attached + usize::from(is_attached), taken + usize::from(is_taken));
                let running = virsh(&["domstate", &vm]).trim() == "running";
                assert_eq!(has(&vm, &disk), (is_attached && running, is_attached), "{what}");
                if is_attached {
                    sandbox.call("detach_disk", json!([vm, disk])).result();
                }
                if is_taken {
                    let snapshot = answers.other["result"].as_str().unwrap();
                    let files = [&disk, snapshot].map(|name| bench.file_of(name).display().to_string());
                    let compare = ["compare", "-U", "-f", "raw", "-F", "raw", &files[0], &files[1]];
                    run("qemu-img", &compare).unwrap_or_else(|e| panic!("{what}: {e}"));
                    sandbox.call("delete_snapshot", json!([snapshot])).result();
                } else {
                    assert_eq!(answers.other["error"]["ok_to_retry"], true, "{what}");
                }
                require_nothing_of(sandbox, "snap", what);
            },
        );
        assert!(attached > 0 && taken > 0, "{attached} attached, {taken} taken");
        sandbox.call("delete_disk", json!([disk])).result();
    }
}

#[test]
fn detach_disk_and_delete_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    for vm in [bench.stopped_vm(), running_vm(&bench)] {
        let current = std::cell::RefCell::new(String::new());
        let mut deleted = 0;
        meet(
            &bench,
            || {
                let disk = bench.disk();
                sandbox.call("attach_disk", json!([vm, disk])).result();
                *current.borrow_mut() = disk.clone();
                (("detach_disk", json!([vm, disk])), ("delete_disk", json!([disk])))
            },
            |answers| {
                let (what, disk) = (&answers.what, current.borrow().clone());
                let (is_detached, is_deleted) = answers.outcomes();
                assert!(is_detached, "{what}");
                assert_eq!(has(&vm, &disk), (false, false), "{what}");
                assert_eq!(bench.file_of(&disk).exists(), !is_deleted, "{what}");
                deleted += usize::from(is_deleted);
                if !is_deleted {
                    sandbox.call("delete_disk", json!([disk])).result();
                }
                require_nothing_of(sandbox, &disk, what);
            },
        );
        assert!(deleted > 0);
    }
}

#[test]
fn delete_snapshot_and_attach_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let vm = bench.stopped_vm();
    let disk = bench.disk();
    let current = std::cell::RefCell::new(String::new());
    let (mut attached, mut deleted) = (0, 0);
    meet(
        &bench,
        || {
            let snapshot = directly(&bench, &("snapshot_disk", json!([disk, {}])))["result"].clone();
            *current.borrow_mut() = snapshot.as_str().unwrap().to_owned();
            (
                ("attach_disk", json!([vm, snapshot])),
                ("delete_snapshot", json!([snapshot])),
            )
        },
        |answers| {
            let (what, snapshot) = (&answers.what, current.borrow().clone());
            let (is_attached, is_deleted) = answers.outcomes();
            assert!(!(is_attached && is_deleted), "{what}");
            (attached, deleted) = (
                attached + usize::from(is_attached),
                deleted + usize::from(is_deleted),
            );
            assert_eq!(has(&vm, &snapshot), (false, is_attached), "{what}");
            assert_eq!(bench.file_of(&snapshot).exists(), !is_deleted, "{what}");
            if is_attached {
                sandbox.call("detach_disk", json!([vm, snapshot])).result();
            }
            if !is_deleted {
                sandbox.call("delete_snapshot", json!([snapshot])).result();
            }
            require_nothing_of(sandbox, &snapshot, what);
        },
    );
    assert!(
        attached > 0 && deleted > 0,
        "{attached} attached, {deleted} deleted"
    );
}

#[test]
fn snapshot_disk_and_delete_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let current = std::cell::RefCell::new(String::new());
    let original = sandbox.directory().join("original");
    let (mut taken, mut deleted) = (0, 0);
    meet(
        &bench,
        || {
            let disk = bench.disk();
            fill(&bench.file_of(&disk));
            fs::copy(bench.file_of(&disk), &original).unwrap();
            *current.borrow_mut() = disk.clone();
            (
                ("snapshot_disk", json!([disk, {}])),
                ("delete_disk", json!([disk])),
            )
        },
        |answers| {
            let (what, disk) = (&answers.what, current.borrow().clone());
            let (is_taken, is_deleted) = answers.outcomes();
            (taken, deleted) = (taken + usize::from(is_taken), deleted + usize::from(is_deleted));
            assert_eq!(bench.file_of(&disk).exists(), !is_deleted, "{what}");
            if is_taken {
                let snapshot = answers.one["result"].as_str().unwrap();
                assert_eq!(
                    fs::read(bench.file_of(snapshot)).unwrap(),
                    fs::read(&original).unwrap(),
                    "{what}"
                );
                sandbox.call("delete_snapshot", json!([snapshot])).result();
            }
            if !is_deleted {
                sandbox.call("delete_disk", json!([disk])).result();
            }
            require_nothing_of(sandbox, "snap", what);
            require_nothing_of(sandbox, &disk, what);
        },
    );
    assert!(taken > 0 && deleted > 0, "{taken} taken, {deleted} deleted");
}

#[test]
fn resize_disk_and_attach_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    for vm in [bench.stopped_vm(), running_vm(&bench)] {
        let running = virsh(&["domstate", &vm]).trim() == "running";
        let current = std::cell::RefCell::new(String::new());
        let mut resized = 0;
        meet(
            &bench,
            || {
                let disk = bench.disk();
                *current.borrow_mut() = disk.clone();
                (
                    ("resize_disk", json!([disk, 16])),
                    ("attach_disk", json!([vm, disk])),
                )
            },
            |answers| {
                let (what, disk) = (&answers.what, current.borrow().clone());
                let (is_resized, is_attached) = answers.outcomes();
                assert!(is_attached, "{what}");
                resized += usize::from(is_resized);
                let size: u64 = if is_resized { 16 << 20 } else { 8 << 20 };
                assert_eq!(fs::metadata(bench.file_of(&disk)).unwrap().len(), size, "{what}");
                if running {
                    let path = bench.file_of(&disk).display().to_string();
                    let seen = virsh(&["domblkinfo", &vm, &path]);
                    assert!(seen.contains(&size.to_string()), "{what}: the guest sees {seen}");
                }
                sandbox.call("detach_disk", json!([vm, disk])).result();
                sandbox.call("delete_disk", json!([disk])).result();
            },
        );
        assert!(resized > 0);
    }
}

#[test]
fn update_disk_and_what_a_vm_writes_meanwhile() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let vm = bench.stopped_vm();
    let step = if points::all_of(1).is_some() { 1 } else { STEP };
    let mut number = 1;
    let (mut updated, mut written) = (0, 0);
    loop {
        let disk = bench.disk();
        let file = bench.file_of(&disk);
        let marker = sandbox.directory().join(format!("written-{disk}"));
        let calls = [
            ("attach_disk", json!([vm, disk])),
            ("detach_disk", json!([vm, disk])),
        ]
        .map(|(method, arguments)| {
            json!({"method": method, "arguments": arguments, "api_version": 2}).to_string()
        });
        let (direct, directory, done) = (
            bench.direct.clone(),
            sandbox.directory().to_owned(),
            marker.clone(),
        );
        bench
            .proxy
            .plan_event(At::Number(number), Fault::Before, move || {
                let attached = call_cpi(&direct, &directory, &calls[0]).response;
                if succeeded(&attached) {
                    let path = file.to_str().unwrap();
                    run("qemu-io", &["-f", "raw", "-c", "write -P 0x5a 1M 64k", path]).unwrap();
                    fs::write(&done, "").unwrap();
                    let detached = call_cpi(&direct, &directory, &calls[1]).response;
                    assert!(succeeded(&detached), "{detached}");
                }
            });
        let answer = sandbox
            .call("update_disk", json!([disk, 8, {"format": "qcow2"}]))
            .response;
        let (_, happened) = bench.proxy.seen();
        bench.proxy.plan(None);
        let what = format!("message {number}: {answer}, written {}", marker.exists());
        let now = answer["result"].as_str().unwrap_or(&disk).to_owned();
        let path = bench.file_of(&now).display().to_string();
        let format = if succeeded(&answer) { "qcow2" } else { "raw" };
        let pattern = if marker.exists() { "0x5a" } else { "0" };
        let read = format!("read -P {pattern} 1M 64k");
        let said = run("qemu-io", &["-f", format, "-c", &read, &path]);
        assert!(said.is_ok(), "{what}: {said:?}");
        (updated, written) = (
            updated + usize::from(succeeded(&answer)),
            written + usize::from(marker.exists()),
        );
        sandbox.call("delete_disk", json!([now])).result();
        require_nothing_of(sandbox, &disk, &what);
        require_nothing_of(sandbox, "disk", &what);
        if !happened {
            break;
        }
        number += step;
    }
    assert!(updated > 0 && written > 0, "{updated} updated, {written} written");
}

/// Of a VM that is being deleted nothing stays, and its disks do.
fn delete_vm_and(method: &'static str, arguments: impl Fn(&str, &str) -> Value) {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let stemcell = Sandbox::stemcell_volumes(&bench.stemcell);
    let current = std::cell::RefCell::new((String::new(), String::new()));
    let mut done = 0;
    meet(
        &bench,
        || {
            let create = ("create_vm", new_vm_arguments(&bench, &bench.stemcell, 30));
            let vm = directly(&bench, &create)["result"][0]
                .as_str()
                .unwrap()
                .to_owned();
            let disk = bench.disk();
            let calls = ((method, arguments(&vm, &disk)), ("delete_vm", json!([vm])));
            *current.borrow_mut() = (vm, disk);
            calls
        },
        |answers| {
            let (what, (vm, disk)) = (&answers.what, current.borrow().clone());
            let (is_done, is_deleted) = answers.outcomes();
            done += usize::from(is_done);
            assert!(is_deleted, "{what}");
            if !is_done {
                let error = &answers.one["error"];
                let is_fair = error["type"] == "Bosh::Clouds::VMNotFound" || error["ok_to_retry"] == true;
                assert!(is_fair, "{what}");
            }
            assert!(try_virsh(&["domstate", &vm]).is_err(), "{what}");
            wait_for("QEMU to end", Duration::from_secs(20), || {
                run("pgrep", &["-f", &format!("guest={vm}")]).is_err()
            });
            assert!(bench.file_of(&disk).exists(), "{what}");
            sandbox.call("delete_disk", json!([disk])).result();
            let mut left = sandbox.volumes();
            left.retain(|name| !stemcell.contains(name));
            assert_eq!(left, [""; 0], "{what}");
        },
    );
    assert!(done > 0);
}

#[test]
fn attach_disk_and_delete_vm() {
    delete_vm_and("attach_disk", |vm, disk| json!([vm, disk]));
}

#[test]
fn reboot_vm_and_delete_vm() {
    delete_vm_and("reboot_vm", |vm, _| json!([vm]));
}

#[test]
fn set_vm_metadata_and_delete_vm() {
    delete_vm_and("set_vm_metadata", |vm, _| json!([vm, {"job": "db", "index": 0}]));
}

/// Blocks do not tell when they were written.
#[test]
fn update_disk_out_of_blocks_and_what_a_vm_writes_meanwhile() {
    let lvm = LvmHost::new();
    let directory = lvm.host.directory().to_owned();
    let proxy = RpcProxy::to(&lvm.host.socket(), &directory.join("proxy-sock"));
    let config = |name: &str, socket: &Path| {
        let path = directory.join(name);
        let config = json!({
            "libvirt": {"type": "socket", "socket": socket},
            "settings": {"domain_type": "qemu"},
        });
        fs::write(&path, config.to_string()).unwrap();
        path
    };
    let (direct, through) = (
        config("direct.json", &lvm.host.socket()),
        config("through.json", &proxy.socket),
    );
    let call = |config: &Path, method: &str, arguments: Value| {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2}).to_string();
        call_cpi(config, &directory, &request)
    };
    let image = tiny_guest::image(&directory);
    let stemcell = call(&direct, "create_stemcell", json!([image, {}])).text();
    let networks = json!({"n": {"type": "dynamic", "cloud_properties": {}}});
    let arguments = json!(["a", stemcell, {"memory": 32}, networks, [], {}]);
    let vm = call(&direct, "create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    lvm.host.virsh(&["destroy", &vm]);

    let step = if points::all_of(1).is_some() { 1 } else { STEP };
    let mut number = 1;
    let (mut updated, mut written) = (0, 0);
    loop {
        let disk = call(&direct, "create_disk", json!([8, {"storage_pool": POOL}])).text();
        let marker = directory.join(format!("written-{disk}"));
        let write = {
            let (direct, directory, vm, disk, marker) = (
                direct.clone(),
                directory.clone(),
                vm.clone(),
                disk.clone(),
                marker.clone(),
            );
            let enter = lvm.host.enter();
            move || {
                let call = |method: &str| {
                    let request =
                        json!({"method": method, "arguments": [vm, disk], "api_version": 2}).to_string();
                    succeeded(&call_cpi(&direct, &directory, &request).response)
                };
                if !call("attach_disk") {
                    return;
                }
                let device = LvmHost::device(&disk);
                let io = ["qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 64k", &device];
                let words: Vec<&str> = enter.iter().map(String::as_str).chain(io).collect();
                run(words[0], &words[1..]).unwrap();
                fs::write(marker, "").unwrap();
                assert!(call("detach_disk"));
            }
        };
        proxy.plan_event(At::Number(number), Fault::Before, write);
        let answer = call(
            &through,
            "update_disk",
            json!([disk, 8, {"storage_pool": "default"}]),
        )
        .response;
        let (_, happened) = proxy.seen();
        proxy.plan(None);
        let what = format!("message {number}: {answer}, written {}", marker.exists());
        let (now, path) = match answer["result"].as_str() {
            Some(copy) => (copy.to_owned(), lvm.host.pool().join(copy).display().to_string()),
            None => (disk.clone(), LvmHost::device(&disk)),
        };
        let pattern = if marker.exists() { "0x5a" } else { "0" };
        let read = format!("read -P {pattern} 1M 64k");
        let said = lvm
            .host
            .inside(&["qemu-io", "-r", "-f", "raw", "-c", &read, &path]);
        assert!(said.is_ok(), "{what}: {said:?}");
        (updated, written) = (
            updated + usize::from(succeeded(&answer)),
            written + usize::from(marker.exists()),
        );
        call(&direct, "delete_disk", json!([now])).result();
        assert_eq!(lvm.volumes(), [""; 0], "{what}");
        if !happened {
            break;
        }
        number += step;
    }
    assert!(updated > 0 && written > 0, "{updated} updated, {written} written");
}

/// Never is there a VM whose backing file is gone, nor a stemcell that was said to be deleted.
#[test]
fn create_vm_and_delete_stemcell() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let image = sandbox.image_without_system();
    let current = std::cell::RefCell::new(String::new());
    let (mut created, mut deleted) = (0, 0);
    meet(
        &bench,
        || {
            let upload = ("create_stemcell", json!([image, {}]));
            let stemcell = directly(&bench, &upload)["result"].as_str().unwrap().to_owned();
            *current.borrow_mut() = stemcell.clone();
            let create = new_vm_arguments(&bench, &stemcell, 30);
            (("create_vm", create), ("delete_stemcell", json!([stemcell])))
        },
        |answers| {
            let (what, stemcell) = (&answers.what, current.borrow().clone());
            let (is_created, is_deleted) = answers.outcomes();
            (created, deleted) = (
                created + usize::from(is_created),
                deleted + usize::from(is_deleted),
            );
            assert!(!(is_created && is_deleted), "{what}");
            assert_eq!(bench.file_of(&stemcell).exists(), !is_deleted, "{what}");
            if is_created {
                let vm = answers.one["result"][0].as_str().unwrap();
                assert_eq!(virsh(&["domstate", vm]).trim(), "running", "{what}");
                let boot = bench.file_of(&format!("{vm}-boot")).display().to_string();
                run("qemu-img", &["info", "-U", "--backing-chain", &boot])
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                sandbox.call("delete_vm", json!([vm])).result();
            }
            sandbox.call("delete_stemcell", json!([stemcell])).result();
            require_nothing_of(sandbox, &stemcell, what);
            require_nothing_of(sandbox, "vm-", what);
        },
    );
    assert!(created > 0 && deleted > 0, "{created} created, {deleted} deleted");
}

#[test]
fn attach_disk_and_detach_disk() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    for vm in [bench.stopped_vm(), running_vm(&bench)] {
        let running = virsh(&["domstate", &vm]).trim() == "running";
        let disk = bench.disk();
        meet(
            &bench,
            || {
                (
                    ("attach_disk", json!([vm, disk])),
                    ("detach_disk", json!([vm, disk])),
                )
            },
            |answers| {
                let what = &answers.what;
                answers.outcomes();
                // Whatever the order, the running VM and its next start agree.
                let (live, persistent) = has(&vm, &disk);
                assert_eq!(live, persistent && running, "{what}");
                if persistent {
                    sandbox.call("detach_disk", json!([vm, disk])).result();
                }
            },
        );
        sandbox.call("delete_disk", json!([disk])).result();
    }
}

#[test]
fn set_disk_metadata_and_delete_disk() {
    let bench = Bench::new();
    let current = std::cell::RefCell::new(String::new());
    meet(
        &bench,
        || {
            let disk = bench.disk();
            *current.borrow_mut() = disk.clone();
            (
                ("set_disk_metadata", json!([disk, {"job": "db"}])),
                ("delete_disk", json!([disk])),
            )
        },
        |answers| {
            let (_, is_deleted) = answers.outcomes();
            assert!(is_deleted, "{}", answers.what);
            require_nothing_of(&bench.sandbox, &current.borrow(), &answers.what);
        },
    );
}

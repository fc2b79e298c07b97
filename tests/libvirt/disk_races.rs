//! Calls about the same disk at the same time, each made to happen at an exact point of the other: no disk is deleted that
//! a VM has, no VM has a disk that is deleted, and no copy is taken for one that is not what the disk was at one moment.

use std::path::PathBuf;
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::loop_pool::LoopPool;
use crate::points;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, call_cpi, run, virsh};

/// Procedures of libvirt's remote protocol.
const COPY_VOLUME: u32 = 125;
const DELETE_VOLUME: u32 = 94;

/// Not every set of calls meets.
const ATTEMPTS: usize = 4;

/// A sandbox, and what is between its CPI and libvirtd.
pub struct Bench {
    pub sandbox: Sandbox,
    pub proxy: RpcProxy,
    /// For calls that go past the proxy.
    pub direct: PathBuf,
    pub stemcell: String,
}

impl Bench {
    pub fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let direct = sandbox.directory().join("direct.json");
        std::fs::copy(sandbox.config_path(), &direct).unwrap();
        let proxy = RpcProxy::of(&mut sandbox);
        let image = sandbox.image_without_system();
        let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
        Self {
            sandbox,
            proxy,
            direct,
            stemcell,
        }
    }

    /// A VM that does not run: it lets go of a disk at once.
    pub fn stopped_vm(&self) -> String {
        let vm = self.sandbox.vm(&self.stemcell, 10);
        virsh(&["destroy", &vm]);
        vm
    }

    pub fn disk(&self) -> String {
        self.sandbox
            .call("create_disk", json!([8, {"cache": "none"}]))
            .text()
    }

    pub fn file_of(&self, disk: &str) -> PathBuf {
        self.sandbox.directory().join("pool").join(disk)
    }

    /// Makes the first call, and the second at that point of it. Their responses, the second's if it came to that.
    pub fn call_within(
        &self,
        first: (&str, &Value),
        at: At,
        second: (&str, &Value),
    ) -> (Value, Option<Value>) {
        let (sender, answers) = channel();
        let (config, directory) = (self.direct.clone(), self.sandbox.directory().to_owned());
        let request = json!({"method": second.0, "arguments": second.1, "api_version": 2}).to_string();
        self.proxy.plan_event(at, Fault::Before, move || {
            let answer = call_cpi(&config, &directory, &request);
            sender.send(answer.response).unwrap();
        });
        let response = self.sandbox.call(first.0, first.1.clone()).response;
        self.proxy.plan(None);
        (response, answers.try_recv().ok())
    }

    /// The call fails in a way that a second try mends.
    #[track_caller]
    fn fails_when(&self, call: (&str, Value), at: At, event: impl FnOnce() + Send + 'static) -> String {
        self.proxy.plan_event(at, Fault::Before, event);
        let answer = self.sandbox.call(call.0, call.1);
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        assert!(happened, "{}", answer.stderr);
        answer.error("CloudError", true)
    }
}

/// Makes one of the two calls within the other, at each of its messages, and looks at what came of both.
fn delete_and_attach(outer: &str) {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let vm = bench.stopped_vm();
    // `make test` takes some of the messages, by `CPI_TEST_SEED`.
    let all = points::all_of(1).is_some();
    let step = if all { 1 } else { 4 };
    let mut number = if all { 0 } else { points::seed() % step };
    // Both orders come about, and neither call is refused for nothing.
    let (mut deleted, mut attached) = (0, 0);
    loop {
        number += step;
        let disk = bench.disk();
        let (delete, attach) = (json!([disk]), json!([vm, disk]));
        let calls = [("delete_disk", &delete), ("attach_disk", &attach)];
        let (first, second) = match outer {
            "delete_disk" => (calls[0], calls[1]),
            _ => (calls[1], calls[0]),
        };
        let (first, second) = bench.call_within(first, At::Number(number), second);
        let Some(second) = second else {
            // There are no more messages; the disk of this round is the sandbox's to clear away.
            assert_eq!(first["error"], Value::Null);
            break;
        };
        let what = format!("{outer}, message {number}: {first} and {second}");
        let succeeded = |response: &Value| response["error"].is_null();
        let (of_delete, of_attach) = match outer {
            "delete_disk" => (succeeded(&first), succeeded(&second)),
            _ => (succeeded(&second), succeeded(&first)),
        };
        assert!(!(of_delete && of_attach), "{what}");
        deleted += usize::from(of_delete);
        attached += usize::from(of_attach);
        assert_eq!(bench.file_of(&disk).exists(), !of_delete, "{what}");
        let has = virsh(&["dumpxml", &vm, "--inactive"]).contains(&format!("/{disk}'"));
        assert_eq!(has, of_attach, "{what}");
        if has {
            sandbox.call("detach_disk", attach).result();
        }
        if !of_delete {
            sandbox.call("delete_disk", delete).result();
        }
        let left: Vec<String> = sandbox.volumes();
        assert!(!left.iter().any(|name| name.contains(&disk)), "{what}: {left:?}");
    }
    assert!(
        deleted > 0 && attached > 0,
        "{deleted} deleted, {attached} attached"
    );
}

#[test]
fn a_disk_that_is_attached_within_delete_disk_is_not_deleted() {
    delete_and_attach("delete_disk");
}

#[test]
fn a_disk_that_is_deleted_within_attach_disk_is_not_attached() {
    delete_and_attach("attach_disk");
}

/// What a killed delete_disk leaves keeps the disk from being attached, and says how to go on.
#[test]
fn a_disk_whose_deletion_was_killed_can_be_kept_and_can_be_deleted() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let vm = bench.stopped_vm();
    for keep in [true, false] {
        let disk = bench.disk();
        let mark = format!("{disk}.deleting");
        let deleting = At::Procedure(DELETE_VOLUME, 1);
        bench.proxy.plan(Some((deleting, Fault::KilledBefore)));
        let call = sandbox.start("delete_disk", json!([disk]));
        bench.proxy.set_pid(call.id());
        assert!(!call.wait_with_output().unwrap().status.success());
        bench.proxy.plan(None);
        assert!(sandbox.volumes().contains(&mark));

        let message = sandbox
            .call("attach_disk", json!([vm, disk]))
            .error("CloudError", false);
        assert!(
            message.contains(&mark) && message.contains("cpi prune"),
            "{message}"
        );
        assert!(!virsh(&["dumpxml", &vm, "--inactive"]).contains(&disk));
        if keep {
            let prune = || {
                let report = sandbox.operator_json(&["prune", "--yes", "--in", &sandbox.name]);
                report
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|leftover| (leftover["name"].clone(), leftover["deleted"].clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(prune(), [(json!(mark), json!(false))]);
            for entry in std::fs::read_dir(sandbox.directory().join("pool")).unwrap() {
                let path = entry.unwrap().path();
                run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
            }
            assert_eq!(prune(), [(json!(mark), json!(true))]);
            sandbox.call("attach_disk", json!([vm, disk])).result();
            sandbox.call("detach_disk", json!([vm, disk])).result();
        }
        sandbox.call("delete_disk", json!([disk])).result();
        let left = sandbox.volumes();
        assert!(!left.iter().any(|name| name.contains(&disk)), "{left:?}");
    }
}

/// Deleting is what makes room, so it must do without.
#[test]
fn a_disk_can_be_deleted_where_there_is_no_room_for_a_mark() {
    let pool = LoopPool::ext4(8);
    let sandbox = Sandbox::with_config(json!({"settings": {"storage_pool_name": pool.name}}));
    let disk = sandbox.call("create_disk", json!([1, {}])).text();
    let fill = format!(
        "mkdir {0}/full && i=0 && while : >{0}/full/$i; do i=$((i + 1)); done",
        pool.path().display()
    );
    let filled = run("sh", &["-c", &fill]);
    assert!(
        filled.as_ref().is_err_and(|said| said.contains("No space left")),
        "{filled:?}"
    );
    sandbox
        .call("create_disk", json!([1, {}]))
        .error("NoDiskSpace", false);
    let answer = sandbox.call("delete_disk", json!([disk]));
    assert!(
        answer.stderr.contains("has no room for the marker"),
        "{}",
        answer.stderr
    );
    answer.result();
    assert!(!pool.path().join(&disk).exists());
}

fn write_to(file: PathBuf) -> impl FnOnce() + Send + 'static {
    move || {
        let of = format!("of={}", file.display());
        let write = [
            "if=/dev/urandom",
            &of,
            "bs=4096",
            "count=1",
            "seek=9",
            "conv=notrunc",
        ];
        run("dd", &write).unwrap();
    }
}

#[test]
fn a_copy_of_a_disk_that_changed_meanwhile_is_no_snapshot() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let vm = sandbox.vm(&bench.stemcell, 10);
    let disk = bench.disk();
    let before = sandbox.volumes();
    let snapshot = || ("snapshot_disk", json!([disk, {}]));
    let copying = At::Procedure(COPY_VOLUME, 1);

    let message = bench.fails_when(snapshot(), copying, write_to(bench.file_of(&disk)));
    assert!(message.contains("has written to it"), "{message}");
    assert_eq!(sandbox.volumes(), before);

    // `cpi prune` that takes it for dead.
    let (pool, files) = (sandbox.name.clone(), sandbox.directory().join("pool"));
    let message = bench.fails_when(snapshot(), copying, move || {
        let names = std::fs::read_dir(&files).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mark = names.find(|name| name.ends_with(".partial")).unwrap();
        virsh(&["vol-delete", "--pool", &pool, &mark]);
    });
    assert!(message.contains("cpi prune"), "{message}");
    assert_eq!(sandbox.volumes(), before);

    let (user, path) = (vm.clone(), bench.file_of(&disk).display().to_string());
    let message = bench.fails_when(snapshot(), copying, move || {
        virsh(&["attach-disk", &user, &path, "vdz", "--live"]);
    });
    assert!(message.contains(&format!("{vm} has got it")), "{message}");
    assert_eq!(sandbox.volumes(), before);
    // Now it is one moment of a disk in use.
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    sandbox.call("delete_snapshot", json!([snapshot])).result();
}

#[test]
fn update_disk_replaces_no_disk_that_changed_or_was_attached_meanwhile() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let vm = bench.stopped_vm();
    let disk = bench.disk();
    let before = sandbox.volumes();
    let update = json!([disk, 8, {"format": "qcow2"}]);
    let copying = At::Procedure(COPY_VOLUME, 1);

    let message = bench.fails_when(
        ("update_disk", update.clone()),
        copying,
        write_to(bench.file_of(&disk)),
    );
    assert!(message.contains("has written to it"), "{message}");
    assert_eq!(sandbox.volumes(), before);

    // From the begin of the copy on, the old disk goes to nobody: what a guest writes to it would be lost.
    let mut disk = disk;
    for (at, format) in [(copying, "qcow2"), (At::Procedure(DELETE_VOLUME, 1), "raw")] {
        let update = json!([disk, 8, {"format": format}]);
        let attach = json!([vm, disk]);
        let (updated, attached) = bench.call_within(("update_disk", &update), at, ("attach_disk", &attach));
        let refused = attached.unwrap()["error"]["message"].to_string();
        assert!(
            refused.contains("a delete or an update of it is in progress"),
            "{refused}"
        );
        let copy = updated["result"]
            .as_str()
            .unwrap_or_else(|| panic!("{updated}"))
            .to_owned();
        assert!(!bench.file_of(&disk).exists());
        assert!(!virsh(&["dumpxml", &vm, "--inactive"]).contains(&disk));
        disk = copy;
    }
    sandbox.call("delete_disk", json!([disk])).result();
    assert!(!sandbox.volumes().iter().any(|name| name.starts_with("disk")));
}

/// Killed before the old disk goes, and, after that disk was used again, once it is gone: there are two copies then.
#[test]
fn update_disk_that_was_killed_twice_goes_on_with_the_last_copy() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let disk = bench.disk();
    let update = json!([disk, 8, {"format": "qcow2"}]);
    let copies = || -> Vec<String> {
        let mut names = sandbox.volumes();
        names.retain(|name| name.starts_with("disk") && !name.contains('.') && *name != disk);
        names
    };
    for fault in [Fault::KilledBefore, Fault::KilledAfter] {
        write_to(bench.file_of(&disk))();
        bench.proxy.plan(Some((At::Procedure(DELETE_VOLUME, 1), fault)));
        let call = sandbox.start("update_disk", update.clone());
        bench.proxy.set_pid(call.id());
        assert!(!call.wait_with_output().unwrap().status.success());
        bench.proxy.plan(None);
        if fault == Fault::KilledBefore {
            std::fs::copy(bench.file_of(&disk), sandbox.directory().join("stale")).unwrap();
        }
    }
    assert!(!bench.file_of(&disk).exists());
    assert_eq!(copies().len(), 2);
    let found = sandbox.call("update_disk", update).text();
    let stale = sandbox.directory().join("stale").display().to_string();
    for copy in copies() {
        let file = bench.file_of(&copy).display().to_string();
        let is_stale = run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "qcow2", &stale, &file],
        )
        .is_ok();
        assert_eq!(
            is_stale,
            copy != found,
            "{copy} of {:?}, and {found} was found",
            copies()
        );
    }
}

#[test]
fn a_vm_that_is_deleted_twice_at_once_is_gone() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    sandbox.serve_dhcp();
    let before = sandbox.state();
    for _ in 0..ATTEMPTS {
        let vm = sandbox.vm(&bench.stemcell, 10);
        let calls = [0; 3].map(|_| sandbox.start("delete_vm", json!([vm])));
        for call in calls {
            let output = call.wait_with_output().unwrap();
            let response: Value = serde_json::from_slice(&output.stdout).unwrap();
            let error = &response["error"];
            assert!(
                error.is_null() || error["type"] == "Bosh::Clouds::VMNotFound",
                "{response}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert_eq!(sandbox.state(), before);
    }
}

//! The lock file that heavy work is done under.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fs2::FileExt;
use serde_json::json;

use crate::sandbox::{Sandbox, run, stemcell_image, virsh, wait_for};

#[test]
fn heavy_calls_wait_for_the_lock_and_light_ones_do_not() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let path = sandbox.directory().join("throttle.lock");
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path}}));
    let lock = File::create(&path).unwrap();
    lock.lock_exclusive().unwrap();

    let (done, outcomes) = channel();
    std::thread::scope(|scope| {
        for (method, arguments) in [
            ("create_stemcell", json!([stemcell_image("qcow2"), {}])),
            (
                "create_vm",
                json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(10), [], {}]),
            ),
        ] {
            let (done, sandbox) = (done.clone(), &sandbox);
            scope.spawn(move || done.send(sandbox.call(method, arguments).result()).unwrap());
        }
        assert_eq!(sandbox.call("has_vm", json!(["vm-x"])).result(), false);
        sandbox.call("create_disk", json!([8, {}])).result();
        assert!(
            outcomes.recv_timeout(Duration::from_secs(2)).is_err(),
            "a heavy call did not wait"
        );
        FileExt::unlock(&lock).unwrap();
        // Woken by the kernel, not by the next look of a poll.
        for _ in 0..2 {
            outcomes.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    });

    // A holder that dies releases the lock.
    sandbox.configure(json!({"throttle": {"name": "none"}}));
    let mut holder = std::process::Command::new("flock")
        .arg(&path)
        .args(["sleep", "100"])
        .spawn()
        .unwrap();
    wait_for("flock to hold the lock", Duration::from_secs(10), || {
        lock.try_lock_exclusive().is_err() || {
            FileExt::unlock(&lock).unwrap();
            false
        }
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_an_error_that_names_it() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": "/no/such/directory/lock"}}));
    let before = sandbox.state();
    let arguments = json!(["a", stemcell, {}, sandbox.manual_network(10), [], {}]);
    let message = sandbox.call("create_vm", arguments).error("CpiError", false);
    assert!(
        message.contains("throttle.path /no/such/directory/lock"),
        "{message}"
    );
    assert_eq!(sandbox.state(), before);
}

#[test]
fn a_timeout_names_the_lock_holder_and_since_when() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let path = sandbox.directory().join("throttle.lock");
    let create_vm = json!(["a", stemcell, {"memory": 32}, sandbox.manual_network(10), [], {}]);
    for limit in [1, 2] {
        sandbox.configure(
            json!({"throttle": {"name": "file-lock", "path": path, "limit": limit, "timeout": 1}}),
        );
        let slots: Vec<File> = ["", ".2"][..limit]
            .iter()
            .map(|suffix| {
                let mut name = path.clone().into_os_string();
                name.push(suffix);
                let mut file = File::create(name).unwrap();
                file.lock_exclusive().unwrap();
                let who =
                    format!("process 4711, request cpi-other{suffix}, since 2026-01-01T00:00:00.000Z\n");
                file.write_all(who.as_bytes()).unwrap();
                file
            })
            .collect();
        let before = sandbox.state();
        let started = Instant::now();
        let message = sandbox
            .call("create_vm", create_vm.clone())
            .error("VMCreationFailed", true);
        assert!(
            (1..4).contains(&started.elapsed().as_secs()),
            "{:?}",
            started.elapsed()
        );
        for says in [
            "throttle.timeout",
            "process 4711, request cpi-other",
            "since 2026-01-01T00:00:00.000Z",
        ] {
            assert!(message.contains(says), "{says:?} is not in {message:?}");
        }
        assert_eq!(message.contains("cpi-other.2"), limit == 2, "{message}");
        assert_eq!(sandbox.state(), before);

        // One free slot is enough.
        FileExt::unlock(slots.last().unwrap()).unwrap();
        let vm = sandbox.call("create_vm", create_vm.clone()).result()[0].clone();
        sandbox.call("delete_vm", json!([vm])).result();
    }
}

#[test]
fn a_lock_holder_signs_the_file_and_as_many_hold_a_slot_as_the_limit_says() {
    let mut sandbox = Sandbox::new();
    let path = sandbox.directory().join("throttle.lock");
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path, "limit": 2}}));
    let signatures = || -> Vec<String> {
        ["throttle.lock", "throttle.lock.2", "throttle.lock.3"]
            .iter()
            .map(|name| std::fs::read_to_string(sandbox.directory().join(name)).unwrap_or_default())
            .collect()
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| sandbox.stemcell());
        }
        wait_for("two calls to work at once", Duration::from_secs(20), || {
            let holders = signatures();
            holders[..2]
                .iter()
                .all(|who| who.contains(", request cpi-create_stemcell, since 20"))
        });
    });
    assert_eq!(signatures(), ["", "", ""]);
    assert!(!sandbox.directory().join("throttle.lock.3").exists());
    assert_eq!(sandbox.volumes().len(), 8);
}

/// `nobody` of Debian.
const OTHER_USER: u32 = 65534;

/// Puts something in the place of the lock file.
type Plant = Box<dyn Fn(&Path)>;

/// A directory as /var/lock is, in which anybody may have made anything.
fn shared_directory(sandbox: &Sandbox) -> std::path::PathBuf {
    let directory = sandbox.directory().join("shared");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    directory
}

fn make_fifo(path: &Path) {
    run("mkfifo", &[path.to_str().unwrap()]).unwrap();
}

fn make_device(path: &Path) {
    run("mknod", &[path.to_str().unwrap(), "c", "1", "3"]).unwrap();
}

/// A call that needs the lock, and nothing of the pool but a volume that is there.
fn light_stemcell(sandbox: &Sandbox) -> serde_json::Value {
    let (name, volume) = (&sandbox.name, "operators.img");
    if !sandbox.volumes().iter().any(|other| other == volume) {
        virsh(&["vol-create-as", name, volume, "8M"]);
    }
    json!(["/no/image", {"volume": volume}])
}

#[test]
fn what_is_no_plain_file_is_refused_and_stays_as_it_is() {
    let mut sandbox = Sandbox::new();
    let arguments = light_stemcell(&sandbox);
    let directory = shared_directory(&sandbox);
    let victim = sandbox.directory().join("victim");
    let text = "precious\n";
    fs::write(&victim, text).unwrap();
    let plants: [(&str, &str, Plant); 6] = [
        ("link", "symbolic link", {
            let victim = victim.clone();
            Box::new(move |path| symlink(&victim, path).unwrap())
        }),
        ("dangling", "symbolic link", {
            let target = sandbox.directory().join("not-made");
            Box::new(move |path| symlink(&target, path).unwrap())
        }),
        ("hard-link", "names (hard links)", {
            let victim = victim.clone();
            Box::new(move |path| fs::hard_link(&victim, path).unwrap())
        }),
        ("fifo", "not a regular file", Box::new(make_fifo)),
        ("device", "not a regular file", Box::new(make_device)),
        (
            "socket",
            "not a regular file",
            Box::new(|path| {
                drop(std::os::unix::net::UnixListener::bind(path).unwrap());
            }),
        ),
    ];
    let before = sandbox.state();
    for (name, says, plant) in plants {
        // The file itself, another slot's, and the queue's.
        for suffix in ["", ".2", ".queue"] {
            let path = directory.join(format!("{name}-{}", suffix.len()));
            let planted = format!("{}{suffix}", path.display());
            plant(Path::new(&planted));
            // The second slot is opened when the first one is held.
            let first_slot = (suffix == ".2").then(|| File::create(&path).unwrap());
            if let Some(file) = &first_slot {
                file.lock_exclusive().unwrap();
            }
            let limit = if suffix.is_empty() { 1 } else { 2 };
            sandbox.configure(
                json!({"throttle": {"name": "file-lock", "path": path, "limit": limit, "timeout": 5}}),
            );
            let started = Instant::now();
            let message = sandbox
                .call("create_stemcell", arguments.clone())
                .error("CpiError", false);
            assert!(
                started.elapsed() < Duration::from_secs(4),
                "{name}{suffix} blocked the call"
            );
            assert!(
                message.contains(says) && message.contains(&planted),
                "{name}{suffix}: {message}"
            );
        }
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), text);
    assert!(!sandbox.directory().join("not-made").exists());
    assert_eq!(sandbox.state(), before);
}

#[test]
fn a_file_with_somebody_elses_text_is_locked_and_not_written_to() {
    let mut sandbox = Sandbox::new();
    let arguments = light_stemcell(&sandbox);
    let path = shared_directory(&sandbox).join("lock");
    fs::write(&path, "4711 another program's\n").unwrap();
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path, "timeout": 1}}));
    sandbox.call("create_stemcell", arguments.clone()).result();
    let lock = File::open(&path).unwrap();
    lock.lock_exclusive().unwrap();
    let message = sandbox
        .call("create_stemcell", arguments)
        .error("CloudError", true);
    assert!(
        message.contains("/proc/locks") && !message.contains("another program"),
        "{message}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "4711 another program's\n");
}

#[test]
fn the_lock_file_of_another_user_of_the_host_can_be_locked() {
    let mut sandbox = Sandbox::new();
    let arguments = light_stemcell(&sandbox);
    let directory = shared_directory(&sandbox);
    let path = directory.join("lock");
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path}}));
    // Root's call, the file another user's.
    File::create(&path).unwrap();
    chown(&path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    sandbox.call("create_stemcell", arguments).result();

    // The other way round. The executable may be where others cannot get to.
    let cpi = sandbox.directory().join("cpi");
    fs::copy(env!("CARGO_BIN_EXE_cpi"), &cpi).unwrap();
    fs::set_permissions(&cpi, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(sandbox.config_path(), Permissions::from_mode(0o644)).unwrap();
    let check = || {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&cpi)
            .args(["check", "--config"])
            .arg(sandbox.config_path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    chown(&path, Some(0), Some(0)).unwrap();
    let is_free = format!("OK lock file: {} can be locked", path.display());
    for (mode, expected) in [
        (0o644, is_free.as_str()),
        (0o666, is_free.as_str()),
        (0o600, "WRONG lock file: locking throttle.path"),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let said = check();
        assert!(said.contains(expected), "{mode:o}: {said}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let lock = File::open(&path).unwrap();
    lock.lock_exclusive().unwrap();
    let said = check();
    assert!(said.contains("held by an unknown process"), "{said}");
}

#[test]
fn a_lock_on_a_removed_file_is_not_taken_for_the_lock() {
    let mut sandbox = Sandbox::new();
    let arguments = light_stemcell(&sandbox);
    let path = shared_directory(&sandbox).join("lock");
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path, "timeout": 5}}));
    let removed = File::create(&path).unwrap();
    removed.lock_exclusive().unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| sandbox.call("create_stemcell", arguments.clone()));
        // It waits for the first file; then the name is another's, which somebody holds.
        wait_for("the call to wait", Duration::from_secs(10), || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks
                .lines()
                .any(|line| line.contains("->") && line.contains(&inode(&path)))
        });
        fs::remove_file(&path).unwrap();
        let current = File::create(&path).unwrap();
        current.lock_exclusive().unwrap();
        drop(removed);
        let message = call.join().unwrap().error("CloudError", true);
        assert!(message.contains("throttle.timeout"), "{message}");
        drop(current);
    });
    sandbox.call("create_stemcell", arguments).result();
}

/// As /proc/locks ends with it.
fn inode(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    format!(":{} ", fs::metadata(path).unwrap().ino())
}

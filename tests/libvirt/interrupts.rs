//! A call that is told to end (SIGTERM, Ctrl-C) rolls back and answers. A second signal, or one that does not ask, ends it.

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fs2::FileExt;
use serde_json::{Value, json};

use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, coverage, run, virsh, wait_for};

/// `virDomainAttachDeviceFlags` in libvirt's remote protocol.
const ATTACH_DEVICE_FLAGS: u32 = 160;

/// Sends the signal to a call, which must answer within seconds with an error of this type that names the signal.
#[track_caller]
pub fn interrupted(call: Child, signal: &str, error_type: &str) {
    run("kill", &[&format!("-{signal}"), &call.id().to_string()]).unwrap();
    let told = Instant::now();
    let output = call.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(told.elapsed() < Duration::from_secs(10), "{log}");
    assert!(output.status.success(), "{:?}: {log}", output.status);
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &response["error"];
    assert_eq!(error["type"], format!("Bosh::Clouds::{error_type}"), "{response}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("interrupted by SIG{signal}")),
        "{message}"
    );
}

#[test]
fn a_call_that_waits_for_its_turn_ends_when_told_to() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let path = sandbox.directory().join("throttle.lock");
    let lock = File::create(&path).unwrap();
    lock.lock_exclusive().unwrap();
    for timeout in [0, 600] {
        sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path, "timeout": timeout}}));
        let before = sandbox.state();
        let arguments = json!(["a", stemcell, {"memory": 32}, sandbox.manual_network(10), [], {}]);
        let call = sandbox.start("create_vm", arguments);
        let waits = format!("/proc/{}/task", call.id());
        wait_for("the call to wait for the lock", Duration::from_secs(10), || {
            let threads = std::fs::read_dir(&waits).unwrap();
            threads
                .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok())
                .any(|name| name.trim() == "throttle")
        });
        interrupted(call, "TERM", "VMCreationFailed");
        assert_eq!(sandbox.state(), before);
    }
}

/// The stemcell's file gives a little and then nothing more, as one on a server that hangs.
#[test]
fn an_upload_that_is_told_to_end_leaves_no_volume() {
    let sandbox = Sandbox::new();
    let before = sandbox.state();
    let path = sandbox.directory().join("image");
    run("mkfifo", &[path.to_str().unwrap()]).unwrap();
    let call = sandbox.start("create_stemcell", json!([path, {"disk": 64}]));
    let mut image = File::options().write(true).open(&path).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("root.img").unwrap();
    header.set_size(64 << 20);
    header.set_cksum();
    image.write_all(header.as_bytes()).unwrap();
    image.write_all(&vec![b'x'; 8 << 20]).unwrap();
    wait_for("the upload to begin", Duration::from_secs(20), || {
        sandbox.volumes().iter().any(|volume| volume.starts_with("sc-"))
    });
    interrupted(call, "TERM", "CloudError");
    assert_eq!(sandbox.state(), before);
}

/// The guest is in its firmware, which lets go of no disk.
#[test]
fn a_detach_that_is_told_to_end_leaves_the_disk_attached() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let log = sandbox.directory().join("cpi.log");
    let call = sandbox.start_logging_to("detach_disk", json!([vm, disk]), &log);
    wait_for("the call to ask the guest", Duration::from_secs(20), || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("asking the guest to release")
    });
    interrupted(call, "TERM", "CloudError");
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    assert!(virsh(&["dumpxml", &vm]).contains(&disk));
}

/// A call by this command, which runs the CPI, that logs to `cpi.log` in the directory.
fn start(command: &[&str], config: &Path, request: &Value) -> (Child, Log) {
    let directory = config.parent().unwrap();
    let log = Log(directory.join("cpi.log"));
    // Whoever runs the tests in the background may have them ignore some signals, and children inherit that.
    let mut call = Command::new("/usr/bin/env")
        .arg("--default-signal")
        .args(command)
        .arg("--config")
        .arg(config)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", directory)
        .envs(coverage())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&log.0).unwrap())
        .spawn()
        .unwrap();
    let request = request.to_string();
    call.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    (call, log)
}

fn start_plain(config: &Path, request: &Value) -> (Child, Log) {
    start(&[env!("CARGO_BIN_EXE_cpi")], config, request)
}

struct Log(PathBuf);

impl Log {
    fn read(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, text: &str, times: usize) {
        wait_for(&format!("{text:?} in the log"), Duration::from_secs(20), || {
            self.read().matches(text).count() >= times
        });
    }
}

fn tell(call: &Child, signal: &str) {
    run("kill", &[&format!("-{signal}"), &call.id().to_string()]).unwrap();
}

/// The process ends by this signal, at once and without an answer.
#[track_caller]
fn ends_by(mut call: Child, signal: i32, log: &Log) {
    let mut status = None;
    wait_for("the process to end", Duration::from_secs(10), || {
        status = call.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(signal), "{}", log.read());
    let output = call.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

/// The disk is in the VM's definition, and libvirt does not answer what comes next. One signal alone would have the disk
/// taken out again, whenever that answer comes.
#[test]
fn a_call_that_waits_for_libvirt_ends_by_a_second_signal_and_by_one_that_does_not_ask() {
    let mut sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    virsh(&["destroy", &vm]);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let pair = json!([vm, disk]);
    let proxy = RpcProxy::of(&mut sandbox);
    let request = json!({"method": "attach_disk", "arguments": pair, "api_version": 2});
    for (signals, ends) in [
        (&["TERM", "TERM"][..], 15),
        (&["TERM", "INT"], 2),
        (&["HUP", "QUIT"], 3),
        (&["QUIT"], 3),
        (&["USR1"], 10),
    ] {
        let (reached, at_it) = channel();
        let (go_on, held) = channel::<()>();
        proxy.plan_event(
            At::Procedure(ATTACH_DEVICE_FLAGS, 1),
            Fault::Meanwhile,
            move || {
                reached.send(()).unwrap();
                // Until the test is done with it, or has failed.
                let _ = held.recv();
            },
        );
        let (call, log) = start_plain(&sandbox.config_path(), &request);
        at_it.recv_timeout(Duration::from_secs(20)).unwrap();
        let is_attached = || virsh(&["dumpxml", &vm, "--inactive"]).contains(&format!("/{disk}'"));
        wait_for("libvirt to attach the disk", Duration::from_secs(20), is_attached);
        if let [asks, _] = signals {
            tell(&call, asks);
            log.wait_for(&format!("SIG{asks}: rolling back"), 1);
        }
        tell(&call, signals[signals.len() - 1]);
        ends_by(call, ends, &log);
        assert_eq!(
            log.read().contains("rolling back"),
            signals.len() == 2,
            "{}",
            log.read()
        );
        assert!(is_attached());
        drop(go_on);
        proxy.plan(None);
        sandbox.call("attach_disk", pair.clone()).result();
        sandbox.call("detach_disk", pair.clone()).result();
    }
}

/// The guest is in its firmware, which lets go of no disk, so that rolling back takes as long as it may.
#[test]
fn a_roll_back_goes_on_when_told_to_end_and_ends_by_a_second_signal_and_by_one_that_does_not_ask() {
    let mut sandbox = Sandbox::with_config(json!({"settings": {"detach_timeout": 600}}));
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let pair = json!([vm, disk]);
    let proxy = RpcProxy::of(&mut sandbox);
    let request = json!({"method": "attach_disk", "arguments": pair, "api_version": 2});
    for (asks, insists, ends) in [(true, "TERM", 15), (false, "QUIT", 3)] {
        // The first is for the next start.
        proxy.plan(Some((At::Procedure(ATTACH_DEVICE_FLAGS, 2), Fault::Lost)));
        let (call, log) = start_plain(&sandbox.config_path(), &request);
        log.wait_for("asking the guest to release", 1);
        if asks {
            tell(&call, "TERM");
            log.wait_for("SIGTERM: rolling back", 1);
            // Libvirt waits five seconds for the guest, each time.
            log.wait_for("asking the guest to release", 2);
        }
        tell(&call, insists);
        ends_by(call, ends, &log);
        proxy.plan(None);
        for further in [&[][..], &["--inactive"]] {
            let xml = virsh(&[&["dumpxml", &vm], further].concat());
            assert!(xml.contains(&format!("/{disk}'")), "{xml}");
        }
        sandbox.call("attach_disk", pair.clone()).result();
        virsh(&["destroy", &vm]);
        sandbox.call("detach_disk", pair.clone()).result();
        sandbox.call("reboot_vm", json!([vm])).result();
    }
}

/// A configuration that wants keys in files; they are read only where a host has said something.
fn by_ssh() -> Value {
    let private_key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    json!({"type": "ssh", "host": "127.0.0.1", "username": "root",
        "ssh": {"private_key": private_key, "host_key": "ssh-ed25519 AAAA"}})
}

/// A host that lets connect and says nothing, and a configuration for it.
struct SilentHost {
    directory: tempfile::TempDir,
    listener: TcpListener,
}

impl SilentHost {
    fn new(libvirt: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Self {
            directory: tempfile::tempdir().unwrap(),
            listener,
        };
        host.listener.set_nonblocking(true).unwrap();
        let mut libvirt = libvirt;
        libvirt["port"] = json!(host.listener.local_addr().unwrap().port());
        fs::write(host.config(), json!({ "libvirt": libvirt }).to_string()).unwrap();
        host
    }

    /// Waits for a call to connect.
    #[track_caller]
    fn accept(&self) -> TcpStream {
        let mut accepted = None;
        wait_for("the call to connect", Duration::from_secs(20), || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        accepted.unwrap().0
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("cpi.json")
    }

    fn request() -> Value {
        json!({"method": "has_vm", "arguments": ["vm-00000000-0000-4000-8000-000000000000"]})
    }
}

/// As `nohup` and some supervisors do, so that a closed terminal or a reload does not end what they run.
#[test]
fn a_signal_that_the_caller_has_the_call_ignore_does_not_end_it() {
    for (nohup, says) in [
        (true, "no answer within 2 s (libvirt.connect_timeout)"),
        (false, "interrupted by SIGHUP"),
    ] {
        let host = SilentHost::new(json!({"type": "tcp", "host": "127.0.0.1", "connect_timeout": 2}));
        let cpi = env!("CARGO_BIN_EXE_cpi");
        let command = if nohup { &["nohup", cpi][..] } else { &[cpi] };
        let (call, log) = start(command, &host.config(), &SilentHost::request());
        let _connection = host.accept();
        tell(&call, "HUP");
        let output = call.wait_with_output().unwrap();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        let message = response["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}: {}", log.read());
    }
}

/// A file system mounted on a directory, for as long as this lives.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(on: PathBuf) -> Self {
        run("mount", &["-t", "tmpfs", "none", on.to_str().unwrap()]).unwrap();
        Self(on)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &[self.0.to_str().unwrap()]);
    }
}

#[test]
fn keys_that_cannot_be_removed_are_named_and_the_process_ends_by_the_signal() {
    let host = SilentHost::new(by_ssh());
    let (call, log) = start_plain(&host.config(), &SilentHost::request());
    // SSH connects once its files are there.
    let connection = host.accept();
    let mut names = fs::read_dir(host.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let keys = names
        .find(|path| path.to_str().unwrap().contains("/libvirt-bosh-cpi-"))
        .unwrap();
    let mount = Mount::tmpfs(keys.clone());
    tell(&call, "QUIT");
    ends_by(call, 3, &log);
    let warning = format!("removing {}: ", keys.display());
    assert!(log.read().contains(&warning), "{}", log.read());
    drop(mount);
    assert!(keys.join("ssh_key").exists());
    // The client that libvirt has started goes with its connection.
    drop(connection);
}

/// What keeps signals from being watched: nothing can be opened for it, or no thread started.
const LIMITS: [&[&str]; 2] = [
    &["bash", "-c", "exec 3>&-; exec prlimit --nofile=4 \"$@\"", "bash"],
    // Root has no such limit.
    &[
        "prlimit",
        "--nproc=1",
        "setpriv",
        "--reuid=59999",
        "--clear-groups",
    ],
];

#[test]
fn a_call_whose_signals_cannot_be_watched_says_so_and_answers_and_signals_still_end_it() {
    let directory = tempfile::tempdir().unwrap();
    run("chmod", &["755", directory.path().to_str().unwrap()]).unwrap();
    // Where everybody can run it.
    let cpi = directory.path().join("cpi");
    fs::copy(env!("CARGO_BIN_EXE_cpi"), &cpi).unwrap();
    // The call waits for its configuration.
    let config = directory.path().join("cpi.json");
    run("mkfifo", &["-m", "644", config.to_str().unwrap()]).unwrap();
    let begin = |limit: &[&str], method: &str| {
        let command = [limit, &[cpi.to_str().unwrap()]].concat();
        let arguments = match method {
            "info" => json!([]),
            _ => json!(["vm-00000000-0000-4000-8000-000000000000"]),
        };
        let request = json!({"method": method, "arguments": arguments});
        let (call, log) = start(&command, &config, &request);
        log.wait_for("signals end this call without roll-back: ", 1);
        (call, log)
    };
    for limit in LIMITS {
        let (call, log) = begin(limit, "info");
        fs::write(&config, "{}").unwrap();
        let output = call.wait_with_output().unwrap();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(
            response["result"]["api_version"].is_u64(),
            "{response}: {}",
            log.read()
        );

        // Keys would stay behind.
        let (call, log) = begin(limit, "get_disks");
        fs::write(&config, json!({ "libvirt": by_ssh() }).to_string()).unwrap();
        let output = call.wait_with_output().unwrap();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        let message = response["error"]["message"].to_string();
        assert!(
            message.contains("writing certificates and keys"),
            "{message}: {}",
            log.read()
        );

        let (call, log) = begin(limit, "info");
        tell(&call, "TERM");
        ends_by(call, 15, &log);
    }
}

/// Nobody waits for its answer.
#[test]
fn an_operators_command_ends_by_the_first_signal_and_leaves_no_keys() {
    let host = SilentHost::new(by_ssh());
    let (call, log) = start(&[env!("CARGO_BIN_EXE_cpi"), "list"], &host.config(), &Value::Null);
    let connection = host.accept();
    let keys = || {
        fs::read_dir(host.directory.path())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with("libvirt-bosh-cpi-")
            })
            .count()
    };
    assert_eq!(keys(), 1);
    tell(&call, "TERM");
    ends_by(call, 15, &log);
    assert_eq!(keys(), 0);
    drop(connection);
}

//! SSH through the OpenSSH client: long replies, jump hosts, and what the client is started with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::hosts_transports::sshd;
use crate::sandbox::{merge, run, wait_for};

const VM: &str = "vm-00000000-0000-4000-8000-0000000000c1";
/// Bytes of a VM's XML, about. Packets of SSH, and what libvirt reads at once, end at different places of these.
const SIZES: [usize; 5] = [4_000, 16_000, 19_000, 28_000, 60_000];

/// A host whose libvirtd sends no keepalive messages, which would find a lost reply, too.
fn host() -> (Host, Value) {
    let host = Host::with(|address, directory| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\nkeepalive_interval = -1\n".to_owned(),
        commands: sshd(address, directory),
    });
    let read = |name: &str| fs::read_to_string(host.directory().join(name)).unwrap();
    let libvirt = json!({"type": "ssh", "host": host.address, "port": 2222, "username": "root",
        "ssh": {"private_key": read("client_key"), "host_key": read("host_key.pub")}});
    wait_for("sshd", Duration::from_secs(10), || {
        std::net::TcpStream::connect(format!("{}:2222", host.address)).is_ok()
    });
    (host, libvirt)
}

fn define_vm_of(host: &Host, size: usize) {
    let file = host.directory().join("vm.xml");
    let xml = format!(
        "<domain type='qemu'><name>{VM}</name><uuid>{}</uuid><memory>1024</memory><os><type>hvm</type></os>\
         <description>{}</description></domain>",
        &VM["vm-".len()..],
        "x".repeat(size)
    );
    fs::write(&file, xml).unwrap();
    host.virsh(&["define", file.to_str().unwrap()]);
}

/// With libvirt's libssh transport, 50 of 50 such calls stalled for 5 s, or died of SIGSEGV (CVE-2024-4418).
#[test]
fn long_replies_come_at_once_and_kill_no_call() {
    let (host, libvirt) = host();
    let mut libvirt = libvirt;
    // No keepalive message of ours that would find a lost reply.
    merge(&mut libvirt, json!({"keepalive_timeout": 120}));
    for size in SIZES {
        define_vm_of(&host, size);
        let mut took: Vec<Duration> = (0..10)
            .map(|_| {
                let started = Instant::now();
                let answer = host.call(&libvirt, "get_disks", json!([VM]));
                assert_eq!(answer.result(), json!([]));
                started.elapsed()
            })
            .collect();
        took.sort();
        // A lost reply takes 5 s each time; a loaded machine takes as long once.
        assert!(
            took[5] < Duration::from_secs(4) && took[9] < Duration::from_secs(15),
            "XML of {size} bytes took {took:?}"
        );
    }
}

/// The way leads through a second SSH server, whose key has to be known, too.
#[test]
fn through_a_jump_host() {
    let (host, libvirt) = host();
    let jump = format!("root@{}:2222", host.address);
    let through = |jump: &str, host_key: &str| {
        let mut libvirt = libvirt.clone();
        // Only the jump host gets there.
        merge(&mut libvirt, json!({"host": "127.0.0.1", "port": 2223}));
        merge(
            &mut libvirt,
            json!({"ssh": {"jump_host": jump, "host_key": host_key}}),
        );
        host.call(&libvirt, "has_vm", json!([VM]))
    };
    let key = fs::read_to_string(host.directory().join("host_key.pub")).unwrap();
    let keys = format!("{key}\n[{}]:2222 {key}", host.address);
    host.inside(&[
        "/usr/sbin/sshd",
        "-f",
        host.directory().join("sshd_config").to_str().unwrap(),
        "-o",
        "ListenAddress=127.0.0.1:2223",
    ])
    .unwrap();
    assert_eq!(through(&jump, &keys).result(), false);
    for (jump, keys) in [(jump.as_str(), key.as_str()), ("", &keys)] {
        through(jump, keys).error("CloudError", jump.is_empty());
    }
}

/// What a client in PATH before the real one is started with.
#[test]
fn the_client_has_no_agent_no_other_configuration_and_a_session_of_its_own() {
    let (host, libvirt) = host();
    let programs = host.directory().join("programs");
    let seen = host.directory().join("seen");
    fs::create_dir(&programs).unwrap();
    let script = format!(
        "#!/bin/sh\n{{ env; echo SESSION $(ps -o sid= -p $$) $$; echo \"ARGUMENTS $*\"; }} >{}\nexec /usr/bin/ssh \"$@\"\n",
        seen.display()
    );
    let program = programs.join("ssh");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let call = start(
        &libvirt,
        &host.directory().join("tmp"),
        &[
            ("PATH", &path),
            ("SSH_AUTH_SOCK", "/nonexistent"),
            ("DISPLAY", ":9"),
            ("SSH_ASKPASS", "/bin/true"),
        ],
    );
    assert_eq!(result(call), false);
    let seen = fs::read_to_string(seen).unwrap();
    for line in seen.lines() {
        // The shell of the script adds PWD and its own.
        let name = line.split(['=', ' ']).next().unwrap();
        let known = [
            "HOME",
            "PATH",
            "PWD",
            "SHLVL",
            "_",
            "OLDPWD",
            "SESSION",
            "ARGUMENTS",
        ];
        assert!(known.contains(&name), "{line}");
    }
    let session = seen.lines().find(|line| line.starts_with("SESSION")).unwrap();
    let numbers: Vec<&str> = session.split_whitespace().skip(1).collect();
    assert_eq!(numbers[0], numbers[1], "{seen}");
    assert!(
        seen.contains("ARGUMENTS -F ") && seen.contains("/ssh_config -p 2222 -l root"),
        "{seen}"
    );
    assert!(!seen.contains("PRIVATE KEY"));
}

/// As /tmp is on a stemcell.
#[test]
fn where_no_program_can_be_run_in_tmpdir() {
    let (host, libvirt) = host();
    let tmp = host.directory().join("tmp");
    let script = "mount -t tmpfs -o noexec,mode=1777 none \"$TMPDIR\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_cpi"));
    assert_eq!(result(start_by(command, &libvirt, &tmp, &[])), false);
}

/// The client may be stuck anywhere: it goes with the call all the same.
#[test]
fn no_client_outlives_its_call() {
    let directory = tempfile::tempdir().unwrap();
    let tmpdir = directory.path().join("tmp");
    fs::create_dir(&tmpdir).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let libvirt = json!({"type": "ssh", "host": "127.0.0.1", "port": port, "connect_timeout": 60});
    let mut call = start(&libvirt, &tmpdir, &[]);
    let client = || clients_of(&tmpdir);
    wait_for("the client", Duration::from_secs(20), || !client().is_empty());
    // It has connected, and hears nothing.
    let _connection = listener.accept().unwrap();
    call.kill().unwrap();
    call.wait().unwrap();
    wait_for("the client's end", Duration::from_secs(5), || client().is_empty());
}

/// A call that looks for the VM, with this TMPDIR and environment.
fn start(libvirt: &Value, tmpdir: &Path, environment: &[(&str, &str)]) -> Child {
    start_by(
        Command::new(env!("CARGO_BIN_EXE_cpi")),
        libvirt,
        tmpdir,
        environment,
    )
}

fn start_by(mut command: Command, libvirt: &Value, tmpdir: &Path, environment: &[(&str, &str)]) -> Child {
    let config = tmpdir.with_extension("json");
    fs::write(&config, json!({ "libvirt": libvirt }).to_string()).unwrap();
    let mut call = command
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env("TMPDIR", tmpdir)
        .envs(environment.iter().copied())
        .spawn()
        .unwrap();
    let request = json!({"method": "has_vm", "arguments": [VM]});
    serde_json::to_writer(call.stdin.take().unwrap(), &request).unwrap();
    call
}

#[track_caller]
fn result(call: Child) -> Value {
    let output = call.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["error"], Value::Null);
    answer["result"].clone()
}

/// Process ids of OpenSSH clients that were started with a configuration in this directory.
fn clients_of(directory: &Path) -> String {
    let pattern = format!("^ssh -F {}/", directory.display());
    run("pgrep", &["-f", &pattern]).unwrap_or_default()
}

//! `cpi check`: what is wrong is found, with what cures it, and nothing is left of the looking.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::loop_pool::LoopPool;
use crate::networks_host::OwnNetwork;
use crate::sandbox::{Sandbox, run, virsh};

fn finding(report: &Value, check: &str) -> Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|finding| finding["check"] == check);
    found
        .unwrap_or_else(|| panic!("no {check} in {report:#}"))
        .clone()
}

#[test]
fn a_sound_host_is_fine_and_nothing_is_left_of_the_look() {
    let sandbox = Sandbox::new();
    // The VM of the look would be among the domains, too.
    let before = sandbox.state();
    let report = sandbox.operator_json(&["check"]);
    assert_eq!(report["ok"], true, "{report:#}");
    for (check, says) in [
        ("configuration", sandbox.config_path().to_str().unwrap()),
        ("lock file", "none: throttle.name is noop"),
        ("connection", "qemu:///system in "),
        ("versions", "libvirt 9.0.0, QEMU 7.2"),
        ("KVM", "not used: settings.domain_type is qemu"),
        ("capabilities", " ms"),
        ("QEMU", "a VM of type qemu booted from a disk of the pool"),
        ("firmware", "BIOS"),
        ("console logs", "/console"),
        ("clock", "is that of this machine"),
    ] {
        let found = finding(&report, check);
        assert_eq!(found["state"], "ok", "{report:#}");
        // Other machines have other versions.
        let says = says.split(" 9.").next().unwrap();
        assert!(found["says"].as_str().unwrap().contains(says), "{found}");
    }
    let pool = finding(&report, &format!("pool {}", sandbox.name));
    let says = pool["says"].as_str().unwrap();
    assert!(
        says.starts_with("dir, ") && says.contains(" free, writable"),
        "{pool}"
    );
    let text = sandbox.operator_says(&["check"]);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.starts_with("WRONG"), "{line}");
    }
    assert!(
        text.starts_with("OK      configuration: ") && text.contains("\nOK      QEMU: "),
        "{text}"
    );
    assert_eq!(sandbox.state(), before);
}

#[test]
fn a_pool_has_the_free_space_that_df_shows() {
    // Half of it is for root alone, which libvirt takes for available.
    let pool = LoopPool::new(&["mkfs.ext4", "-q", "-m", "50", "-O", "^has_journal"], 64);
    let sandbox = Sandbox::with_config(json!({"settings": {"stemcell_pool_name": pool.name}}));
    let available = virsh(&["pool-info", "--bytes", &pool.name]);
    let available = available
        .lines()
        .find_map(|line| line.strip_prefix("Available:"))
        .unwrap();
    let available: u64 = available.trim().parse().unwrap();
    let free = pool.free();
    assert!(available > free + (20 << 20), "{available} {free}");
    let (_, stdout, _) = sandbox.operator(&["check", "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let found = finding(&report, &format!("pool {}", pool.name));
    let says = found["says"].as_str().unwrap();
    assert!(says.starts_with(&format!("dir, {}M of ", free >> 20)), "{says}");
    assert!(!says.contains("reserved"), "{says}");
}

/// A report in which something is wrong.
#[track_caller]
fn report(sandbox: &Sandbox) -> Value {
    let (content, stdout, stderr) = sandbox.operator(&["check", "--json"]);
    assert!(!content, "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], false, "{report:#}");
    report
}

#[track_caller]
fn finds(report: &Value, state: &str, check: &str, says: &str, cure: &str) {
    let found = finding(report, check);
    assert_eq!(found["state"], state, "{report:#}");
    assert!(found["says"].as_str().unwrap().contains(says), "{found}");
    assert!(
        found["cure"].as_str().unwrap_or_default().contains(cure),
        "{found}"
    );
}

#[test]
fn what_is_not_there_or_not_started_is_found() {
    let mut sandbox = Sandbox::new();
    let pool = format!("pool {}", sandbox.name);
    // Connected, but not permitted to do anything.
    sandbox.configure(json!({"libvirt": {"socket": "/run/libvirt/libvirt-sock-ro"}}));
    let found = report(&sandbox);
    for check in [pool.as_str(), "QEMU", "capabilities"] {
        finds(
            &found,
            "wrong",
            check,
            "read only access",
            "not to libvirt-sock-ro",
        );
    }
    sandbox.configure(json!({"libvirt": {"socket": "/run/libvirt/libvirt-sock"}}));

    sandbox.configure(
        json!({"settings": {"network_name": "cpitest-none", "console_log_dir": "/cpitest/none"},
        "throttle": {"name": "file-lock", "path": "/cpitest/none/lock"}}),
    );
    virsh(&["pool-destroy", &sandbox.name]);
    let found = report(&sandbox);
    finds(
        &found,
        "wrong",
        "network cpitest-none",
        "does not exist",
        "virsh net-define",
    );
    finds(
        &found,
        "wrong",
        "console logs",
        "/cpitest/none",
        "mkdir -p /cpitest/none",
    );
    finds(
        &found,
        "wrong",
        "lock file",
        "/cpitest/none/lock",
        "mkdir -p /cpitest/none",
    );
    finds(
        &found,
        "wrong",
        &pool,
        "does not exist",
        &format!("virsh pool-define-as {}", sandbox.name),
    );
    finds(
        &found,
        "warning",
        "clock",
        "no pool that tells the time can be written to",
        "",
    );

    let target = sandbox.directory().join("pool");
    virsh(&[
        "pool-define-as",
        &sandbox.name,
        "dir",
        "--target",
        target.to_str().unwrap(),
    ]);
    let network = OwnNetwork::new(&sandbox, "c", |n| {
        format!("<ip address='{}' netmask='255.255.255.0'/>", n.v4(1))
    });
    virsh(&["net-destroy", &network.name]);
    sandbox.configure(json!({"settings": {"network_name": network.name}}));
    let found = report(&sandbox);
    finds(
        &found,
        "wrong",
        &pool,
        "is inactive",
        &format!("virsh pool-start {}", sandbox.name),
    );
    finds(
        &found,
        "warning",
        &format!("network {}", network.name),
        "is inactive; the next create_vm starts it",
        &format!("virsh net-start {}", network.name),
    );
}

/// What QEMU boots of the disk at this path, taken out; and the disk made an hour older.
fn spoil(path: &Path) -> io::Result<()> {
    let mut disk = OpenOptions::new().write(true).open(path)?;
    disk.write_all(&[0; 512])?;
    disk.set_modified(SystemTime::now() - Duration::from_secs(7200))
}

#[test]
fn what_is_there_and_does_not_work_is_found() {
    let little = LoopPool::ext4(64);
    let mut sandbox = Sandbox::new();
    let network = OwnNetwork::new(&sandbox, "c", |n| {
        format!(
            "<ip address='{}' netmask='255.255.255.0'><dhcp><range start='{}' end='{}'/></dhcp></ip>",
            n.v4(1),
            n.v4(2),
            n.v4(254)
        )
    });
    let of_network = format!("network {}", network.name);
    let lock = sandbox.directory().join("lock");
    let lock = lock.to_str().unwrap();
    sandbox.configure(
        json!({"settings": {"stemcell_pool_name": little.name, "network_name": network.name},
        "throttle": {"name": "file-lock", "path": lock}}),
    );

    // A host on which nothing boots, whose clock is wrong.
    let mut holder = Command::new("flock")
        .args([lock, "sleep", "600"])
        .spawn()
        .unwrap();
    let checked = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !checked.load(SeqCst) {
                for name in little.files() {
                    // It goes while we are at it, in the end.
                    let _ = spoil(&little.path().join(name));
                }
                sleep(Duration::from_millis(5));
            }
        });
        let found = report(&sandbox);
        checked.store(true, SeqCst);
        found
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    finds(
        &found,
        "wrong",
        "QEMU",
        "starts, but within 180 s its CPU did not come as far as the boot sector",
        "uptime",
    );
    finds(
        &found,
        "wrong",
        "clock",
        " behind this machine's: certificates seem invalid",
        "set-ntp",
    );
    finds(
        &found,
        "warning",
        &format!("pool {}", little.name),
        "which is little",
        "cpi prune",
    );
    finds(&found, "ok", "lock file", "can be opened; held by", "");
    finds(
        &found,
        "warning",
        &of_network,
        "DHCP has most of the subnet",
        "virsh net-update",
    );
    assert_eq!(little.files(), [""; 0]);

    // A pool that cannot be written to, and an address that both BOSH and DHCP have given.
    let entry = format!(
        "<host mac='52:54:00:00:00:01' name='vm-00000000-0000-4000-8000-00000000abcd' ip='{}'/>",
        network.v4(9)
    );
    virsh(&[
        "net-update",
        &network.name,
        "add",
        "ip-dhcp-host",
        &entry,
        "--live",
    ]);
    let mounted = little.path();
    run("mount", &["-o", "remount,ro", mounted.to_str().unwrap()]).unwrap();
    let found = report(&sandbox);
    finds(
        &found,
        "wrong",
        &format!("pool {}", little.name),
        "cannot be written to: ",
        &format!("ls -ld {}", mounted.display()),
    );
    finds(
        &found,
        "warning",
        &of_network,
        &format!("BOSH has given {} of this range to vm-", network.v4(9)),
        "reserve the DHCP range in the BOSH network",
    );

    // QEMU's user may not enter the directory, though libvirt may.
    sandbox.configure(json!({"settings": {"stemcell_pool_name": ""}}));
    let pool = sandbox.directory().join("pool");
    let mode = |mode: &str| run("chmod", &[mode, pool.to_str().unwrap()]).unwrap();
    mode("700");
    let found = report(&sandbox);
    mode("755");
    finds(&found, "wrong", "QEMU", "cannot use a disk of pool", "chmod o+x");
    assert_eq!(sandbox.volumes(), [""; 0]);
}

#[test]
fn a_user_whom_libvirt_does_not_let_in_is_told_how_to_get_in() {
    let host = Host::with(|_, _| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\nunix_sock_rw_perms = \"0700\"\n".to_owned(),
        commands: String::new(),
    });
    let config = host.directory().join("cpi.json");
    std::fs::write(&config, json!({"libvirt": {"socket": host.socket()}}).to_string()).unwrap();
    // Where everybody can run it.
    let cpi = host.directory().join("cpi");
    std::fs::copy(env!("CARGO_BIN_EXE_cpi"), &cpi).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&cpi)
        .args(["check", "--config"])
        .arg(&config)
        .env("COLUMNS", "200")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("WRONG   connection: ")
            && text.contains("cure: let the CPI's user in: usermod -aG libvirt"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_kvm_that_qemus_user_cannot_open_is_found_and_the_lack_of_kvm_and_firmware() {
    let machine_has_kvm = std::path::Path::new("/dev/kvm").exists();
    let host = Host::with(|_, directory| {
        Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
        commands: format!(
            "if [ -e /dev/kvm ]; then
               cp -a /dev/kvm {0}/kvm; chmod 600 {0}/kvm; chown root:root {0}/kvm; mount --bind {0}/kvm /dev/kvm
             fi
             for firmware in /usr/share/qemu/firmware /usr/share/OVMF; do mount -t tmpfs none $firmware; done",
            directory.display()
        ),
    }
    });
    let check = |domain_type: &str| -> (Option<i32>, Value) {
        let config = host.directory().join("cpi.json");
        let text = json!({"libvirt": host.libvirt(), "settings": {"domain_type": domain_type}}).to_string();
        std::fs::write(&config, text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_cpi"))
            .args(["check", "--json", "--config", config.to_str().unwrap()])
            .output()
            .unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    let (code, report) = check("kvm");
    assert_eq!(code, Some(1));
    let cure = if machine_has_kvm {
        let found = finding(&report, "capabilities");
        assert_eq!(found["state"], "wrong", "{report:#}");
        assert!(found["cure"].as_str().unwrap().contains("/dev/kvm"), "{found}");
        finds(&report, "ok", "KVM", "offered by libvirt", "");
        "/dev/kvm"
    } else {
        finds(
            &report,
            "wrong",
            "KVM",
            "libvirt does not offer it",
            "modprobe kvm_intel",
        );
        "on the host"
    };
    // So no VM starts either.
    finds(&report, "wrong", "QEMU", "no VM of type kvm starts", cure);
    // Without KVM, libvirt tells nothing of the firmware for it.
    let (_, report) = check("qemu");
    finds(
        &report,
        "warning",
        "firmware",
        "BIOS only",
        "apt-get install ovmf",
    );
}

//! `cpi check`: what is wrong is found, with what cures it, and nothing is left of the looking.

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::sandbox::{Sandbox, virsh};

fn finding(report: &Value, check: &str) -> Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|finding| finding["check"] == check);
    found
        .unwrap_or_else(|| panic!("no {check} in {report:#}"))
        .clone()
}

#[test]
fn a_sound_host_is_fine_and_nothing_is_left_of_the_look() {
    let mut sandbox = Sandbox::new();
    let before = (
        sandbox.state(),
        virsh(&["list", "--all", "--name"]).matches("cpi-check-").count(),
    );
    let report = sandbox.operator_json(&["check"]);
    assert_eq!(report["ok"], true, "{report:#}");
    for check in [
        "configuration",
        "lock file",
        "connection",
        "versions",
        "KVM",
        "capabilities",
        "QEMU",
        "firmware",
        "clock",
    ] {
        assert_eq!(finding(&report, check)["state"], "ok", "{report:#}");
    }
    let pool = finding(&report, &format!("pool {}", sandbox.name));
    assert!(pool["says"].as_str().unwrap().contains("writable"), "{pool}");
    for line in sandbox.operator_says(&["check"]).lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.starts_with("WRONG"), "{line}");
    }
    assert_eq!(
        (
            sandbox.state(),
            virsh(&["list", "--all", "--name"]).matches("cpi-check-").count()
        ),
        before
    );

    // QEMU's user may not enter the directory, though libvirt may.
    let pool = sandbox.directory().join("pool");
    let mode = |mode: &str| crate::sandbox::run("chmod", &[mode, pool.to_str().unwrap()]).unwrap();
    mode("700");
    wrong(&sandbox, "QEMU", "cannot use a disk of pool", "chmod o+x");
    mode("755");

    sandbox.configure(
        json!({"settings": {"network_name": "cpitest-none", "console_log_dir": "/cpitest/none"},
        "throttle": {"name": "file-lock", "path": "/cpitest/none/lock"}}),
    );
    wrong(
        &sandbox,
        "network cpitest-none",
        "does not exist",
        "virsh net-define",
    );
    wrong(
        &sandbox,
        "console logs",
        "/cpitest/none",
        "mkdir -p /cpitest/none",
    );
    wrong(
        &sandbox,
        "lock file",
        "/cpitest/none/lock",
        "mkdir -p /cpitest/none",
    );
    virsh(&["pool-destroy", &sandbox.name]);
    wrong(
        &sandbox,
        &format!("pool {}", sandbox.name),
        "does not exist",
        "virsh pool-define-as",
    );
}

#[track_caller]
fn wrong(sandbox: &Sandbox, check: &str, says: &str, cure: &str) {
    let (content, stdout, stderr) = sandbox.operator(&["check", "--json"]);
    assert!(!content, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let found = finding(&report, check);
    assert_eq!(
        (&report["ok"], &found["state"]),
        (&json!(false), &json!("wrong")),
        "{report:#}"
    );
    assert!(found["says"].as_str().unwrap().contains(says), "{found}");
    assert!(found["cure"].as_str().unwrap().contains(cure), "{found}");
}

#[test]
fn a_kvm_that_qemus_user_cannot_open_is_found() {
    let host = Host::with(|_, directory| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
        commands: format!(
            "cp -a /dev/kvm {0}/kvm; chmod 600 {0}/kvm; chown root:root {0}/kvm; mount --bind {0}/kvm /dev/kvm",
            directory.display()
        ),
    });
    let config = host.directory().join("cpi.json");
    let text = json!({"libvirt": host.libvirt(), "settings": {"domain_type": "kvm"}}).to_string();
    std::fs::write(&config, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cpi"))
        .args(["check", "--json", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = finding(&report, "capabilities");
    assert_eq!(found["state"], "wrong", "{report:#}");
    assert!(found["cure"].as_str().unwrap().contains("/dev/kvm"), "{found}");
}

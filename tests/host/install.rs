//! What docs/INSTALL.md tells an operator to do, word for word.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cpi;
use crate::host::{Host, output};

/// A block of the document.
pub fn block(name: &str) -> String {
    let mut command = Command::new(root().join("scripts/lib/document-commands"));
    command.arg(root().join("docs/INSTALL.md")).arg(name);
    output(command).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The repository as an operator has it, whose files the document's commands write into.
fn checkout(host: &Host) -> std::path::PathBuf {
    let checkout = host.directory().join("checkout");
    fs::create_dir_all(checkout.join("src")).unwrap();
    let _ = symlink(root().join("scripts"), checkout.join("scripts"));
    checkout
}

/// Runs a block where an operator has the repository, from where the host can be reached.
#[track_caller]
fn here(host: &Host, name: &str) -> String {
    try_here(host, name).unwrap_or_else(|message| panic!("{name}: {message}"))
}

fn try_here(host: &Host, name: &str) -> Result<String, String> {
    let script = format!("cd '{}'\n{}", checkout(host).display(), block(name));
    output(host.enter(&["bash", "-ec", &script]))
}

pub fn as_documented(host: &Host) {
    host.run(&block("pool"));
    host.run(&format!(
        "cat >bosh-network.xml <<'END'\n{}END\n{}",
        block("bosh-network.xml"),
        block("network")
    ));

    here(host, "certificates");
    let pki = checkout(host).join("pki");
    host.copy(&pki, "/root");
    host.run("rm pki/ca-key.pem");
    host.run(&block("certificates-on-host"));
    host.run(&block("listen"));
    let answer = here(host, "answers");
    assert!(answer.contains("Verify return code: 0 (ok)"), "{answer}");

    host.run(&block("ssh"));
    fs::write(
        host.directory().join("bosh_key"),
        host.run("cat bosh_key; rm bosh_key"),
    )
    .unwrap();
}

/// Step 4: the CPI of the release, without `make release`'s own build, finds nothing amiss.
pub fn check_passes(host: &Host) {
    let bundle = checkout(host).join("src/cpi_bundle");
    let mut gather = Command::new(root().join("scripts/release"));
    gather
        .args(["--binary", env!("CARGO_BIN_EXE_cpi"), "--into"])
        .arg(&bundle);
    output(gather).unwrap();
    // After two minutes without callers systemd has to start libvirtd again, which takes an emulated host longer than the
    // CPI's default of libvirt.connect_timeout.
    host.run("virsh -q version");
    // It fails where something is wrong; what that is follows.
    let checked = try_here(host, "check").unwrap_or_else(|said| said);
    assert!(checked.contains("OK      QEMU"), "{checked}");
    assert_eq!(complaints(&checked), Vec::<&str>::new(), "{checked}");
    cpi::install(host, &bundle);
}

/// What `cpi check` finds to be wrong or not as good as it could be.
fn complaints(checked: &str) -> Vec<&str> {
    checked
        .lines()
        .filter(|line| line.starts_with("WRONG") || line.starts_with("WARN"))
        // The host is emulated, so KVM is missing and libvirt answers late; console logs are the operator's choice.
        .filter(|line| {
            let known = ["KVM", "capabilities", "console logs"];
            !known.iter().any(|known| line.contains(known))
        })
        .collect()
}

/// The `libvirt` part of the configuration, as the document's ops files and variables fill it.
pub fn libvirt(host: &Host, over: &str) -> Value {
    let pki = |name: &str| fs::read_to_string(checkout(host).join("pki").join(name)).unwrap();
    let mut libvirt = match over {
        "tls" => json!({"type": "tls", "host": "192.168.123.1",
            "server_ca": {"certificate": pki("ca.pem")},
            "client": {"certificate": pki("client.pem"), "private_key": pki("client-key.pem")}}),
        "ssh" => json!({"type": "ssh", "host": "192.168.123.1", "port": 22, "username": "bosh", "ssh": {
            "private_key": fs::read_to_string(host.directory().join("bosh_key")).unwrap(),
            "host_key": host.run("cat /etc/ssh/ssh_host_ed25519_key.pub")}}),
        _ => json!({"type": "socket"}),
    };
    libvirt["connect_timeout"] = json!(120);
    libvirt
}

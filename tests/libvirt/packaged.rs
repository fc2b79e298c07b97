//! The package as BOSH installs it, where nothing of libvirt is installed: the library with its SASL mechanisms, and the
//! certificates, must come out of the package and the job. Every way to a libvirtd is gone once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bosh::{render_job, response, root};
use crate::hosts_daemon::{Host, Setup};
use crate::hosts_transports::{PASSWORD, sasl_user, sshd};
use crate::sandbox::{Sandbox, cache, run, virsh, wait_for};

/// Whom the Director runs its CPIs as, here: an ordinary user.
const VCAP: u32 = 65534;

/// A VM without libvirt, as far as a process sees it.
struct Bare {
    /// What is there as /var/vcap.
    vcap: TempDir,
}

impl Bare {
    /// With the package and the job installed, from the executable of the tests.
    fn new() -> Self {
        let vcap = tempfile::tempdir().unwrap();
        fs::set_permissions(vcap.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let compile = vcap.path().join("data/compile");
        let install = vcap.path().join("packages/libvirt_cpi");
        for directory in [&compile, &install] {
            fs::create_dir_all(directory).unwrap();
        }
        let gather = Command::new(root().join("scripts/release"))
            .args(["--binary", env!("CARGO_BIN_EXE_cpi"), "--into"])
            .arg(compile.join("cpi_bundle"))
            // It runs the executable after having stripped it.
            .envs(count_nowhere())
            .output()
            .unwrap();
        assert!(gather.status.success(), "{gather:?}");
        let packaging = Command::new("bash")
            .args([
                "-x",
                root().join("packages/libvirt_cpi/packaging").to_str().unwrap(),
            ])
            .current_dir(&compile)
            .env("BOSH_INSTALL_TARGET", &install)
            .output()
            .unwrap();
        assert!(packaging.status.success(), "{packaging:?}");
        fs::remove_dir_all(compile).unwrap();
        Self { vcap }
    }

    /// Renders the job as for a Director, readable by nobody else than its user.
    fn configure(&self, libvirt: &Value) {
        let job = self.vcap.path().join("jobs/libvirt_cpi");
        let properties =
            json!({"libvirt_cpi": {"agent": {"mbus": "nats://127.0.0.1:4222"}, "libvirt": libvirt}});
        render_job(&properties, &job).unwrap();
        for file in ["bin/cpi", "config/cpi.json"] {
            chown(job.join(file), Some(0), Some(VCAP)).unwrap();
        }
    }

    /// A command in the bare root, as root or as the Director's user, with what the Director gives its CPIs.
    fn command(&self, user: u32, arguments: &[&str]) -> Command {
        let script = r#"
            root=$1 vcap=$2 user=$3
            shift 3
            mount --bind "$root" "$root"
            mount -o remount,ro,bind "$root"
            mount --bind "$vcap" "$root/var/vcap"
            mount --bind /run/libvirt "$root/run/libvirt"
            mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs "$root/tmp"
            mount -t proc proc "$root/proc"
            exec chroot --userspec="$user:$user" "$root" \
                env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp HOME=/tmp "$@"
        "#;
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "bash",
                "-euc",
                script,
                "bare",
            ])
            .arg(bare_root())
            .arg(self.vcap.path())
            .arg(user.to_string())
            .args(arguments);
        command
    }

    #[track_caller]
    fn call(&self, user: u32, method: &str, arguments: Value) -> Value {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2});
        response(
            &mut self.command(user, &["/var/vcap/jobs/libvirt_cpi/bin/cpi"]),
            &request,
        )
    }

    /// An unknown VM is looked for in vain, which takes a connection.
    #[track_caller]
    fn connects(&self, user: u32, libvirt: &Value) {
        self.configure(libvirt);
        let answer = self.call(user, "has_vm", json!(["vm-00000000-0000-4000-8000-000000000000"]));
        assert_eq!(answer["error"], Value::Null);
        assert_eq!(answer["result"], false);
    }
}

/// An executable that was stripped, and counts what it runs (`make coverage`), would count in the wrong places.
fn count_nowhere() -> [(&'static str, &'static str); 1] {
    [("LLVM_PROFILE_FILE", "/dev/null")]
}

fn bare_root() -> PathBuf {
    let root = cache().join("bare-root");
    assert!(
        root.is_dir(),
        "{} is missing; run scripts/bare-root",
        root.display()
    );
    root
}

#[test]
fn in_a_root_without_libvirt() {
    let libraries = run("find", &[bare_root().to_str().unwrap(), "-name", "*libvirt*.so*"]).unwrap();
    assert_eq!(libraries, "", "this root has a libvirt of its own");
    let bare = Bare::new();
    bare.configure(&json!({}));
    let info = bare.call(VCAP, "info", json!([]));
    assert_eq!(info["result"]["api_version"], 3, "{info}");

    // The machine's own libvirtd, through its socket: a VM that is there, and one that is not.
    let vm = "vm-1e1ea5e0-0000-4000-8000-00000000ba1e";
    define(vm);
    let found = bare.call(0, "has_vm", json!([vm]));
    virsh(&["undefine", vm]);
    assert_eq!(found["result"], true, "{found}");
    bare.connects(0, &json!({}));

    // The library has no driver but the one for libvirtd.
    bare.configure(&json!({"type": "uri", "uri": "esx://someone@127.0.0.1/?no_verify=1"}));
    let refused = bare.call(VCAP, "has_vm", json!([vm]));
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("esx"), "{message}");

    // What a security reviewer asks for: the versions of what is in the library.
    let mut version = bare.command(
        VCAP,
        &["/var/vcap/packages/libvirt_cpi/bin/cpi", "--version", "--verbose"],
    );
    let told = String::from_utf8(version.output().unwrap().stdout).unwrap();
    let library = "libvirt client 11.3.0 (/var/vcap/packages/libvirt_cpi/lib/libvirt.so.0)";
    for part in [
        library,
        "gnutls28 3.",
        "cyrus-sasl2 2.",
        "libssl-dev 3.",
        "OpenSSH",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn every_method_with_the_package_s_library() {
    let bare = Bare::new();
    let package = bare.vcap.path().join("packages/libvirt_cpi");

    let sandbox = Sandbox::new();
    let call = |method: &str, arguments: Value| {
        let mut command = Command::new(package.join("bin/cpi"));
        command
            .arg("--config")
            .arg(sandbox.config_path())
            .envs(count_nowhere());
        let request = json!({"method": method, "arguments": arguments, "api_version": 3});
        let answer = response(&mut command, &request);
        assert_eq!(answer["error"], Value::Null, "{method}: {answer}");
        answer["result"].clone()
    };
    let stemcell = call(
        "create_stemcell",
        json!([sandbox.image_without_system(), {}, {"tags": {"a": "b"}}]),
    );
    let networks = sandbox.manual_network(10);
    let vm = call(
        "create_vm",
        json!(["agent", stemcell, {"memory": 64}, networks, [], {}]),
    )[0]
    .clone();
    assert_eq!(call("has_vm", json!([vm])), true);
    call("set_vm_metadata", json!([vm, {"name": "job/0"}]));
    call("reboot_vm", json!([vm]));
    call(
        "calculate_vm_cloud_properties",
        json!([{"cpu": 1, "ram": 64, "ephemeral_disk_size": 1}]),
    );
    let disk = call("create_disk", json!([8, {}, vm]));
    call("resize_disk", json!([disk, 9]));
    call("set_disk_metadata", json!([disk, {"a": "b"}]));
    let copied = call("update_disk", json!([disk, 9, {"format": "qcow2"}]));
    call("attach_disk", json!([vm, copied]));
    assert_eq!(call("get_disks", json!([vm])), json!([copied]));
    let snapshot = call("snapshot_disk", json!([copied, {"a": "b"}]));
    call("delete_snapshot", json!([snapshot]));
    call("delete_vm", json!([vm]));
    call("delete_disk", json!([copied]));
    assert_eq!(call("has_disk", json!([copied])), false);
    call("delete_stemcell", json!([stemcell]));
    let network = call(
        "create_network",
        json!([{"type": "manual", "netmask_bits": 28, "cloud_properties": {"mode": "isolated"}}]),
    );
    call("delete_network", json!([network[0]]));
}

/// A domain that needs nothing and never runs.
fn define(name: &str) {
    let uuid = name.strip_prefix("vm-").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory>1024</memory><os><type>hvm</type></os></domain>"
    );
    fs::write(file.path(), xml).unwrap();
    virsh(&["define", file.path().to_str().unwrap()]);
}

/// Lines of libvirtd.conf for TLS with these certificates of scripts/libvirt-certificates.
fn tls(certificates: &Path, address: &str) -> String {
    let path = |name: &str| certificates.join(name).display().to_string();
    run(
        root().join("scripts/libvirt-certificates").to_str().unwrap(),
        &[certificates.to_str().unwrap(), address],
    )
    .unwrap();
    format!(
        "listen_tls = 1\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        path("ca.pem"),
        path(&format!("server-{address}.pem")),
        path(&format!("server-{address}-key.pem")),
    )
}

/// How the CPI reaches this host over TLS.
fn over_tls(host: &Host) -> Value {
    let read = |name: &str| fs::read_to_string(host.directory().join("pki").join(name)).unwrap();
    json!({"type": "tls", "host": host.address,
        "client": {"certificate": read("client.pem"), "private_key": read("client-key.pem")},
        "server_ca": {"certificate": read("ca.pem")}})
}

#[test]
fn to_other_hosts_as_the_director() {
    let host = Host::with(|address, directory| Setup {
        libvirtd: "auth_tls = \"none\"\nauth_tcp = \"sasl\"\n".to_owned()
            + &tls(&directory.join("pki"), address),
        commands: sasl_user(directory, "digest-md5") + &sshd(address, directory),
    });
    let bare = Bare::new();
    bare.connects(VCAP, &over_tls(&host));
    let login = json!({"type": "tcp", "host": host.address, "username": "bosh@host", "password": PASSWORD});
    bare.connects(VCAP, &login);
    wait_for("sshd", Duration::from_secs(10), || {
        std::net::TcpStream::connect((host.address.as_str(), 2222)).is_ok()
    });
    let read = |name: &str| fs::read_to_string(host.directory().join(name)).unwrap();
    bare.connects(
        VCAP,
        &json!({"type": "ssh", "host": host.address, "port": 2222, "username": "root",
            "ssh": {"private_key": read("client_key"), "host_key": read("host_key.pub")}}),
    );
}

/// SCRAM encrypts nothing by itself, so libvirtd offers it over TLS only.
#[test]
fn to_another_host_with_a_password_over_tls() {
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain"] {
        let host = Host::with(|address, directory| Setup {
            libvirtd: "auth_tls = \"sasl\"\n".to_owned() + &tls(&directory.join("pki"), address),
            commands: sasl_user(directory, mechanism),
        });
        let bare = Bare::new();
        let mut libvirt = over_tls(&host);
        libvirt["username"] = json!("bosh@host");
        libvirt["password"] = json!(PASSWORD);
        bare.connects(VCAP, &libvirt);
        libvirt["password"] = json!("wrong");
        bare.configure(&libvirt);
        let refused = bare.call(VCAP, "has_vm", json!(["vm-1"]));
        assert_ne!(refused["error"], Value::Null, "{mechanism}");
    }
}

//! A libvirtd whose messages are German: error types, retries and waits are as with an English one.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup, stemcell_arguments};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Answer, call_cpi, run, wait_for};

/// Procedures of libvirt's remote protocol.
const DOMAIN_CREATE: u32 = 9;
const VOLUME_CREATE: u32 = 93;

/// A pool without room, and a qemu-img that waits while there is a file `hold`.
const SET_UP: &str = r#"
mkdir "$directory/full"
mount -t tmpfs -o size=8m,mode=755 tmpfs "$directory/full"
cp /usr/bin/qemu-img "$directory/qemu-img.real"
cat >"$directory/qemu-img" <<END
#!/bin/sh
while [ -e "$directory/hold" ]; do : >"$directory/held"; sleep 0.1; done
exec "$directory/qemu-img.real" "\$@"
END
chmod +x "$directory/qemu-img"
mount --bind "$directory/qemu-img" /usr/bin/qemu-img
"#;

struct German {
    host: Host,
    proxy: RpcProxy,
}

impl German {
    fn new() -> Self {
        let host = Host::with(|_, directory| {
            let locales = directory.join("locales");
            fs::create_dir(&locales).unwrap();
            let locale = locales.join("de_DE.UTF-8");
            run(
                "localedef",
                &["-i", "de_DE", "-f", "UTF-8", locale.to_str().unwrap()],
            )
            .unwrap();
            Setup {
                libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
                commands: format!(
                    "export LC_ALL=de_DE.UTF-8 LOCPATH={}\n{SET_UP}",
                    locales.display()
                ),
            }
        });
        let full = host.directory().join("full");
        host.virsh(&[
            "pool-define-as",
            "full",
            "dir",
            "--target",
            full.to_str().unwrap(),
        ]);
        host.virsh(&["pool-start", "full"]);
        let network = host.directory().join("active.xml");
        fs::write(&network, host.virsh(&["net-dumpxml", "default"])).unwrap();
        host.virsh(&["net-define", network.to_str().unwrap()]);
        // What virsh says itself is English here.
        let says = host.inside(&["virsh", "-q", "net-start", "default"]).unwrap_err();
        assert!(
            says.contains("Angeforderte Operation ist nicht gültig"),
            "the package libvirt-l10n is missing (run `make setup`): {says}"
        );
        let proxy = RpcProxy::to(&host.socket(), &host.directory().join("proxy-sock"));
        Self { host, proxy }
    }

    fn config(&self, settings: &Value) -> std::path::PathBuf {
        let path = self.host.directory().join("cpi.json");
        let mut all = json!({"domain_type": "qemu"});
        crate::sandbox::merge(&mut all, settings.clone());
        let config = json!({"log_level": "DEBUG", "settings": all,
            "libvirt": {"type": "socket", "socket": self.proxy.socket, "keepalive_timeout": 6}});
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn call_with(&self, settings: &Value, method: &str, arguments: Value) -> Answer {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2});
        let tmp = self.host.directory().join("tmp");
        call_cpi(&self.config(settings), &tmp, &request.to_string())
    }

    fn call(&self, method: &str, arguments: Value) -> Answer {
        self.call_with(&json!({}), method, arguments)
    }

    /// A call in which this is done within the host before libvirtd gets the first message of this procedure.
    fn call_while(&self, procedure: u32, command: &[&str], method: &str, arguments: Value) -> Answer {
        let enter = self.host.enter();
        let command: Vec<String> = enter
            .into_iter()
            .chain(command.iter().map(|word| (*word).to_owned()))
            .collect();
        self.proxy
            .plan_event(At::Procedure(procedure, 1), Fault::Before, move || {
                let words: Vec<&str> = command[1..].iter().map(String::as_str).collect();
                run(&command[0], &words).unwrap();
            });
        let answer = self.call(method, arguments);
        assert!(self.proxy.seen().1, "{}", answer.stderr);
        self.proxy.plan(None);
        answer
    }
}

#[test]
fn decisions_are_the_same_in_another_language() {
    let german = German::new();
    let host = &german.host;

    // Full: libvirt allocates the volume, and says why it cannot by errno.
    let settings = json!({"storage_pool_name": "full", "stemcell_pool_name": "default"});
    let arguments = json!([24, {"preallocation": "full"}, null]);
    let message = german
        .call_with(&settings, "create_disk", arguments)
        .error("NoDiskSpace", false);
    assert!(message.contains("kein Speicherplatz"), "{message}");

    // Busy: somebody copies the volume.
    let disk = german
        .call("create_disk", json!([8, {"format": "qcow2"}, null]))
        .text();
    let hold = host.directory().join("hold");
    fs::write(&hold, "").unwrap();
    let enter = host.enter();
    let mut copy = Command::new(&enter[0])
        .args(&enter[1..])
        .args(["virsh", "-q", "vol-clone", "--pool", "default", &disk, "copy"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let is_copied = || host.directory().join("held").exists();
    wait_for("the copy to begin", Duration::from_secs(20), is_copied);
    let started = Instant::now();
    let deleted = std::thread::scope(|scope| {
        scope.spawn(|| {
            sleep(Duration::from_secs(2));
            fs::remove_file(&hold).unwrap();
            copy.wait().unwrap();
        });
        german.call("delete_disk", json!([disk]))
    });
    let log = &deleted.stderr;
    assert!(
        log.contains("waiting for another job: Angeforderte Operation ist nicht gültig"),
        "{log}"
    );
    deleted.result();
    assert!(started.elapsed() >= Duration::from_secs(2));

    // Lost: libvirtd says nothing any more, or hangs up.
    for fault in [Fault::Before, Fault::Lost] {
        let libvirtd = host.libvirtd();
        let at = At::Procedure(VOLUME_CREATE, 1);
        match fault {
            Fault::Before => german
                .proxy
                .plan_event(at, fault, move || libvirtd.signal("STOP")),
            _ => german.proxy.plan(Some((at, fault))),
        }
        let answer = german.call("create_disk", json!([8, {}, null]));
        assert!(german.proxy.seen().1, "{}", answer.stderr);
        german.proxy.plan(None);
        host.signal("CONT");
        answer.error("CloudError", true);
        host.wait_until_up();
    }

    // Stopped: pool and network go in the middle of a call, which does not wait for them.
    let started = Instant::now();
    german
        .call_while(
            VOLUME_CREATE,
            &["virsh", "-q", "pool-destroy", "default"],
            "create_disk",
            json!([8, {}, null]),
        )
        .error("CloudError", true);
    assert!(started.elapsed() < Duration::from_secs(30));
    let stemcell = german.call("create_stemcell", stemcell_arguments()).text();
    let networks =
        json!({"default": {"type": "dynamic", "default": ["dns", "gateway"], "cloud_properties": {}}});
    let arguments = json!(["a", stemcell, {"memory": 64}, networks, [], {}]);
    let stop_network = ["virsh", "-q", "net-destroy", "default"];
    let message = german
        .call_while(DOMAIN_CREATE, &stop_network, "create_vm", arguments.clone())
        .error("VMCreationFailed", true);
    assert!(message.contains("Angeforderte Operation"), "{message}");
    let vm = german.call("create_vm", arguments).result()[0].clone();

    // What reboot_vm starts.
    host.virsh(&["destroy", vm.as_str().unwrap()]);
    host.virsh(&["net-destroy", "default"]);
    host.virsh(&["pool-destroy", "default"]);
    german.call("reboot_vm", json!([vm])).result();

    // Absence has numbers.
    german
        .call("reboot_vm", json!(["vm-00000000-0000-4000-8000-000000000000"]))
        .error("VMNotFound", false);
    german
        .call("delete_disk", json!(["disk0123456789abcdef"]))
        .error("DiskNotFound", false);

    let output = Command::new(env!("CARGO_BIN_EXE_cpi"))
        .arg("--config")
        .arg(german.config(&json!({})))
        .args(["check", "--json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let language = checks.iter().find(|finding| finding["check"] == "language");
    let language = language.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(language["state"], "warning", "{language}");
    assert!(
        language["cure"].as_str().unwrap().contains("LC_ALL"),
        "{language}"
    );
}

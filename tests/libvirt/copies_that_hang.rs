//! A snapshot of a disk in use whose file system hangs, as on a server that is gone: QEMU cannot end the copy, whatever
//! it is told, and libvirt cannot delete the file before the file system goes on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{call_cpi, run, start_cpi, wait_for};

/// `virDomainGetJobStats` in libvirt's remote protocol.
const GET_JOB_STATS: u32 = 298;

/// All writes are waited for, so that copies take their time.
const HANGING: &str = r#"
truncate -s 200M "$directory/image"
mkfs.ext4 -q -m 0 -O ^has_journal "$directory/image"
mkdir "$directory/hanging"
mount -o loop,sync "$directory/image" "$directory/hanging"
"#;

/// Lets a file system of the host hang. It goes on when this is dropped, or this process ends in whatever way: what
/// hangs with it cannot be killed.
struct Freezer {
    process: Child,
}

impl Freezer {
    fn new(host: &Host, path: &Path) -> Self {
        let script = "read -r start && fsfreeze -f \"$1\" && echo frozen; cat >/dev/null; fsfreeze -u \"$1\"";
        let libvirtd = host.process("libvirtd").to_string();
        let process = Command::new("nsenter")
            .args(["-t", &libvirtd, "-m", "sh", "-c", script, "freezer"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process }
    }

    fn freeze(&mut self) {
        self.process
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"start\n")
            .unwrap();
        let mut said = String::new();
        let stdout = self.process.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "frozen\n");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

struct Bench {
    host: Host,
    proxy: RpcProxy,
    config: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let host = Host::with(|_, _| Setup {
            libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
            commands: HANGING.to_owned(),
        });
        let directory = host.directory();
        let proxy = RpcProxy::to(&host.socket(), &directory.join("proxy-sock"));
        let target = directory.join("hanging").to_str().unwrap().to_owned();
        host.virsh(&["pool-create-as", "hanging", "dir", "--target", &target]);
        let config = directory.join("cpi.json");
        let content = json!({"log_level": "DEBUG", "libvirt": {"type": "socket", "socket": proxy.socket},
            "settings": {"domain_type": "qemu"}});
        fs::write(&config, content.to_string()).unwrap();
        Self { host, proxy, config }
    }

    fn request(method: &str, arguments: &Value) -> String {
        json!({"method": method, "arguments": arguments, "api_version": 2}).to_string()
    }

    #[track_caller]
    fn call(&self, method: &str, arguments: Value) -> Value {
        let request = Self::request(method, &arguments);
        call_cpi(&self.config, &self.host.directory().join("tmp"), &request).result()
    }

    /// Names of files in the file system that hangs at times.
    fn files(&self) -> Vec<String> {
        let listing = self
            .host
            .inside(&["ls", self.host.directory().join("hanging").to_str().unwrap()]);
        listing.unwrap().lines().map(str::to_owned).collect()
    }

    /// A VM whose guest stays in its firmware, and a disk that it has, full of what has to be copied.
    fn vm_with_disk(&self) -> (String, String) {
        let directory = self.host.directory();
        fs::write(directory.join("root.img"), vec![b'x'; 1 << 20]).unwrap();
        let image = directory.join("stemcell");
        let (image, directory) = (image.to_str().unwrap(), directory.to_str().unwrap());
        run("tar", &["-czf", image, "-C", directory, "root.img"]).unwrap();
        let stemcell = self.call("create_stemcell", json!([image, {}]));
        let arguments = json!(["a", stemcell, {"memory": 64}, {}, [], {}]);
        let vm = self.call("create_vm", arguments)[0].as_str().unwrap().to_owned();
        let disk = self.call("create_disk", json!([64, {"storage_pool": "hanging"}]));
        let disk = disk.as_str().unwrap().to_owned();
        let of = format!("of={directory}/hanging/{disk}");
        let fill = ["dd", "if=/dev/urandom", &of, "bs=8M", "count=8", "conv=notrunc"];
        self.host.inside(&fill).unwrap();
        self.call("attach_disk", json!([vm, disk]));
        (vm, disk)
    }
}

#[test]
fn a_copy_that_cannot_be_ended_is_given_up_and_leaves_nothing() {
    let bench = Bench::new();
    let (vm, disk) = bench.vm_with_disk();
    let before = (bench.files(), bench.host.files());
    let mut freezer = Freezer::new(&bench.host, &bench.host.directory().join("hanging"));

    // The call waits for what is done once it looks for the first time how far the copy is.
    let (copying, begun) = channel();
    let (told, go_on) = channel::<()>();
    let looking = At::Procedure(GET_JOB_STATS, 1);
    bench.proxy.plan_event(looking, Fault::Before, move || {
        copying.send(()).unwrap();
        // A test that has failed says nothing.
        let _ = go_on.recv();
    });
    let path = bench.host.directory().join("cpi.log");
    let call = start_cpi(
        &bench.config,
        &bench.host.directory().join("tmp"),
        &Bench::request("snapshot_disk", &json!([disk, {}])),
        fs::File::create(&path).unwrap().into(),
    );
    begun.recv_timeout(Duration::from_secs(60)).unwrap();
    freezer.freeze();
    assert!(bench.host.virsh(&["domjobinfo", &vm]).contains("Backup"));
    run("kill", &["-TERM", &call.id().to_string()]).unwrap();
    told.send(()).unwrap();
    let log = || fs::read_to_string(&path).unwrap();
    wait_for("the call to give the copy up", Duration::from_secs(60), || {
        log().contains(&format!("a job of VM {vm} was aborted and has not ended yet"))
    });
    assert!(bench.host.virsh(&["domjobinfo", &vm]).contains("Backup"));
    drop(freezer);

    let output = call.wait_with_output().unwrap();
    let log = log();
    assert!(output.status.success(), "{log}");
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(response["error"]["type"], "Bosh::Clouds::CloudError", "{log}");
    let message = response["error"]["message"].as_str().unwrap();
    assert!(message.contains("interrupted by SIGTERM"), "{message}");
    assert_eq!((bench.files(), bench.host.files()), before, "{log}");
    wait_for("the job to end", Duration::from_secs(60), || {
        !bench.host.virsh(&["domjobinfo", &vm]).contains("Backup")
    });
    let snapshot = bench.call("snapshot_disk", json!([disk, {}]));
    bench.call("delete_snapshot", json!([snapshot]));
    assert_eq!((bench.files(), bench.host.files()), before);
}

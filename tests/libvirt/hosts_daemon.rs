//! A host for one test: a libvirtd of its own, in mount, network and process namespaces of its own, reached over a
//! network. It may be stopped and killed; the machine's own libvirtd notices nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::dead_runs::PREFIX;
use crate::sandbox::{Answer, call_cpi, merge, run, stemcell_image, wait_for};

/// What the machine and a host must not share: libvirtd's files, and what it finds others by. With a root directory, nor
/// programs; the host's own files are at the same path then, too.
const START: &str = r#"
set -e
directory=$1 root=$2
ip link set lo up
if [ -n "$root" ]; then
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/tmp"
  mkdir -p "$root$directory"
  mount --bind "$directory" "$root$directory"
fi
mount --bind "$directory/etc" "$root/etc/libvirt"
mount --bind "$directory/lib" "$root/var/lib/libvirt"
mount --bind "$directory/cache" "$root/var/cache/libvirt"
mount --bind "$directory/log" "$root/var/log/libvirt"
mount --bind "$directory/run" "$root/run"
mkdir -p "$root/run/libvirt" "$root/run/lock" "$root/run/sshd"
. "$directory/extra.sh"
export directory
if [ -n "$root" ]; then
  # More than chroot: libvirt gives each QEMU a /dev by what it finds mounted.
  cd "$root"
  pivot_root . mnt
  exec chroot . bash -c "umount -l /mnt; $3" host
fi
exec bash -c "$3" host
"#;

/// Goes on after that.
const RUN: &str = r#"
set -e
virtlogd -d
# However it ends, it is started again at once, unless a test wants it down.
while :; do
  libvirtd --listen || true
  sleep 0.1
  while [ -e "$directory/down" ]; do sleep 0.05; done
done
"#;

pub struct Host {
    /// Where the machine reaches it.
    pub address: String,
    directory: TempDir,
    process: Child,
}

/// How a host differs from one that lets everybody in over TCP.
#[derive(Default)]
pub struct Setup {
    /// Lines of libvirtd.conf.
    pub libvirtd: String,
    /// Shell commands within the host, before libvirtd starts.
    pub commands: String,
}

impl Host {
    /// A host that lets everybody in over TCP.
    pub fn new() -> Self {
        Self::with(|_, _| Setup {
            libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
            commands: String::new(),
        })
    }

    /// A host set up by a function of its address and a directory for its files.
    pub fn with(setup: impl FnOnce(&str, &Path) -> Setup) -> Self {
        Self::start(None, setup)
    }

    /// The same with the libvirt of another system, by its root directory.
    pub fn of_system(root: PathBuf, setup: impl FnOnce(&str, &Path) -> Setup) -> Self {
        Self::start(Some(root), setup)
    }

    fn start(root: Option<PathBuf>, setup: impl FnOnce(&str, &Path) -> Setup) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let block = (std::process::id() * 8 + count) % (64 * 256);
        let (subnet, first) = (block / 64, block % 64 * 4);
        let address = format!("10.132.{subnet}.{}", first + 2);
        let directory = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-host-", std::process::id()))
            // QEMU runs as a user of its own and must get through to the volumes.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let path = directory.path();
        for name in ["etc", "lib", "cache", "log", "run", "pool", "tmp"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let setup = setup(&address, path);
        if root.is_none() {
            // What libvirt knows of QEMU; finding out anew takes seconds.
            let known = run(
                "cp",
                &["-a", "/var/cache/libvirt/.", path.join("cache").to_str().unwrap()],
            );
            known.unwrap();
        }
        let libvirtd = format!(
            "listen_addr = \"0.0.0.0\"\nlisten_tcp = 1\nauth_unix_rw = \"none\"\n{}",
            setup.libvirtd
        );
        fs::write(path.join("etc/libvirtd.conf"), libvirtd).unwrap();
        fs::write(path.join("extra.sh"), setup.commands).unwrap();

        // Everything within ends when the first process of the namespaces does, and that one with this test.
        let log = fs::File::create(path.join("host.log")).unwrap();
        let process = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
            ])
            .args(["--kill-child", "--mount-proc", "--propagation", "private"])
            .args(["bash", "-c", START, "host"])
            .arg(path)
            .arg(root.clone().unwrap_or_default())
            .arg(RUN)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let host = Self {
            address,
            directory,
            process,
        };
        host.connect(
            subnet,
            first,
            &format!("cpih{}x{count}", std::process::id() % 100_000),
        );
        host.wait_until_up();
        host.define();
        host
    }

    /// A cable between the machine and the host.
    fn connect(&self, subnet: u32, first: u32, name: &str) {
        wait_for("the host's first process", Duration::from_secs(10), || {
            self.first_process().is_some()
        });
        let pid = self.first_process().unwrap().to_string();
        let ip = |arguments: &str| {
            let words: Vec<&str> = arguments.split(' ').collect();
            run("ip", &words).unwrap_or_else(|e| panic!("ip {arguments}: {e}"));
        };
        ip(&format!("link add {name} type veth peer name host0 netns {pid}"));
        ip(&format!("addr add 10.132.{subnet}.{}/30 dev {name}", first + 1));
        ip(&format!("link set {name} up"));
        for command in [
            format!("addr add {}/30 dev host0", self.address),
            "link set host0 up".to_owned(),
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            run("nsenter", &[&["-t", &pid, "-n", "ip"], &words[..]].concat()).unwrap();
        }
    }

    pub fn wait_until_up(&self) {
        wait_for("the host's libvirtd", Duration::from_secs(60), || {
            // Before its own /run is there, virsh would find the machine's libvirtd.
            self.socket().exists() && self.inside(&["virsh", "-q", "version"]).is_ok()
        });
    }

    /// Where libvirtd listens, as the machine sees it.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("run/libvirt/libvirt-sock")
    }

    /// The pool and the network that a CPI without further configuration uses.
    fn define(&self) {
        let pool = self.pool();
        self.virsh(&[
            "pool-define-as",
            "default",
            "dir",
            "--target",
            pool.to_str().unwrap(),
        ]);
        self.virsh(&["pool-start", "default"]);
        let network = self.directory().join("network.xml");
        fs::write(
            &network,
            "<network><name>default</name><bridge name='virbr0' stp='off' delay='0'/></network>",
        )
        .unwrap();
        self.virsh(&["net-create", network.to_str().unwrap()]);
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of the pool `default`.
    pub fn pool(&self) -> PathBuf {
        self.directory().join("pool")
    }

    /// Names of the files in the pool.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.pool())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs virsh within the host, past all that a test has set up between the machine and libvirtd.
    #[track_caller]
    pub fn virsh(&self, arguments: &[&str]) -> String {
        self.inside(&[&["virsh", "-q"], arguments].concat())
            .unwrap_or_else(|message| panic!("virsh {arguments:?}: {message}"))
    }

    /// Runs a command within the host's namespaces.
    pub fn inside(&self, command: &[&str]) -> Result<String, String> {
        let enter = self.enter();
        let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
        run(enter[0], &[&enter[1..], command].concat())
    }

    /// What to put in front of a command that is to run within the host's namespaces.
    pub fn enter(&self) -> Vec<String> {
        let pid = self.first_process().expect("the host is down").to_string();
        ["nsenter", "-t", &pid, "-m", "-n", "-p"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Everything that a call could have changed.
    pub fn state(&self) -> (Vec<String>, String) {
        let mut files = self.files();
        files.sort();
        (files, self.virsh(&["list", "--all", "--name"]))
    }

    /// Its libvirtd, to be hurt.
    pub fn libvirtd(&self) -> Libvirtd {
        Libvirtd {
            supervisor: self.first_process().unwrap(),
            down: self.directory().join("down"),
        }
    }

    /// Sends libvirtd, and nothing else there, a signal: `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, signal: &str) {
        self.libvirtd().signal(signal);
    }

    /// The process of this name within the host, as this machine numbers it: `libvirtd`, `virtlogd`, the first VM.
    #[track_caller]
    pub fn process(&self, name: &str) -> u32 {
        child_named(self.first_process().unwrap(), name)
            .unwrap_or_else(|| panic!("no process {name} in the host"))
    }

    fn first_process(&self) -> Option<u32> {
        children(self.process.id()).first().copied()
    }

    /// The keys of `libvirt` for this host.
    pub fn libvirt(&self) -> Value {
        json!({"type": "tcp", "host": self.address})
    }

    /// Calls the CPI with this configuration and this context.
    pub fn call_with(&self, libvirt: &Value, context: &Value, method: &str, arguments: Value) -> Answer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let file = format!("cpi-{}.json", COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.directory().join(file);
        let mut config = json!({"log_level": "DEBUG", "settings": {"domain_type": "qemu"}});
        merge(&mut config, json!({ "libvirt": libvirt }));
        fs::write(&path, config.to_string()).unwrap();
        let mut full_context = json!({"director_uuid": "d", "request_id": format!("cpi-{method}")});
        merge(&mut full_context, context.clone());
        let request =
            json!({"method": method, "arguments": arguments, "api_version": 2, "context": full_context});
        call_cpi(&path, &self.directory().join("tmp"), &request.to_string())
    }

    /// Calls the CPI with these keys of `libvirt`.
    pub fn call(&self, libvirt: &Value, method: &str, arguments: Value) -> Answer {
        self.call_with(libvirt, &json!({}), method, arguments)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory().join("host.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("--- the host's log, last line first:\n{}", last.join("\n"));
        }
        if let Some(pid) = self.first_process() {
            let _ = run("kill", &["-KILL", &pid.to_string()]);
        }
        let _ = self.process.wait();
    }
}

/// A host's libvirtd, whichever process that is at a time.
#[derive(Clone)]
pub struct Libvirtd {
    supervisor: u32,
    down: PathBuf,
}

impl Libvirtd {
    fn pid(&self) -> Option<u32> {
        child_named(self.supervisor, "libvirtd")
    }

    /// Sends it a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().expect("a libvirtd").to_string();
        run("kill", &[&format!("-{signal}"), &pid]).unwrap();
    }

    /// Kills it. It is started again unless it is to stay down.
    pub fn kill(&self, stay_down: bool) {
        if stay_down {
            fs::write(&self.down, "").unwrap();
        }
        let killed = self.pid().expect("a libvirtd");
        self.signal("KILL");
        wait_for("libvirtd to be gone", Duration::from_secs(10), || {
            self.pid() != Some(killed)
        });
    }

    /// Lets it be started again.
    pub fn let_start(&self) {
        // It may never have been down.
        let _ = fs::remove_file(&self.down);
    }
}

fn child_named(parent: u32, name: &str) -> Option<u32> {
    children(parent)
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
}

fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// The arguments of create_stemcell for the small test stemcell.
pub fn stemcell_arguments() -> Value {
    json!([stemcell_image("qcow2"), {"disk": 1024}])
}

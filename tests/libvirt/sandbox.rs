//! A corner of the host for one test: a pool, a network and a configuration of its own, gone when it is dropped
//! together with whatever the test left in them.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::dead_runs;

pub struct Sandbox {
    /// Name of the pool and of the network.
    pub name: String,
    /// Third byte of the network's addresses.
    subnet: u8,
    directory: TempDir,
    config: Value,
}

/// What one call answered.
#[derive(Debug)]
pub struct Answer {
    pub response: Value,
    pub stderr: String,
}

impl Sandbox {
    /// A sandbox with nothing but defaults in its configuration, as far as a test can use them.
    pub fn new() -> Self {
        Self::with_config(json!({}))
    }

    /// A sandbox whose configuration has these keys on top.
    pub fn with_config(extra: Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        dead_runs::clear();
        let name = format!(
            "{}{}-{}",
            dead_runs::PREFIX,
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = tempfile::Builder::new()
            .prefix(&name)
            // QEMU runs as a user of its own and must get through to the volumes.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        fs::create_dir(directory.path().join("pool")).unwrap();
        fs::create_dir(directory.path().join("console")).unwrap();
        let subnet = make_network(&name);
        virsh(&[
            "pool-create-as",
            &name,
            "dir",
            "--target",
            directory.path().join("pool").to_str().unwrap(),
        ]);
        let mut config = json!({
            "log_level": "DEBUG",
            "settings": {
                "storage_pool_name": name,
                "network_name": name,
                // Stock kernels hang under the KVM of some test machines, though it is offered.
                "domain_type": "qemu",
                "console_log_dir": directory.path().join("console"),
            },
        });
        merge(&mut config, extra);
        let sandbox = Self {
            name,
            subnet,
            directory,
            config,
        };
        sandbox.write_config();
        sandbox
    }

    fn write_config(&self) {
        fs::write(self.config_path(), self.config.to_string()).unwrap();
    }

    /// Changes the configuration from here on.
    pub fn configure(&mut self, extra: Value) {
        merge(&mut self.config, extra);
        self.write_config();
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("cpi.json")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// An address of the sandbox's network: the host has 1.
    pub fn address(&self, host: u8) -> String {
        format!("10.131.{}.{host}", self.subnet)
    }

    /// Third byte of the network's addresses, no other sandbox's at this time.
    pub fn subnet(&self) -> u8 {
        self.subnet
    }

    /// The bridge of the sandbox's network.
    pub fn bridge(&self) -> String {
        format!("cpit{}", self.subnet)
    }

    /// The `networks` argument for one manual network with this address.
    pub fn manual_network(&self, host: u8) -> Value {
        json!({"default": {
            "type": "manual", "ip": self.address(host), "netmask": "255.255.255.0", "gateway": self.address(1),
            "prefix": "32", "dns": [self.address(1)], "default": ["dns", "gateway"], "cloud_properties": {},
        }})
    }

    /// Has the network's DHCP give away the addresses of VMs, so that those get DHCP host entries.
    pub fn serve_dhcp(&self) {
        let range = format!(
            "<range start='{}' end='{}'/>",
            self.address(10),
            self.address(220)
        );
        virsh(&["net-update", &self.name, "add", "ip-dhcp-range", &range, "--live"]);
    }

    /// Calls the CPI with API version 2, as `bosh create-env` does.
    pub fn call(&self, method: &str, arguments: Value) -> Answer {
        self.call_as(2, method, arguments)
    }

    pub fn call_as(&self, api_version: u64, method: &str, arguments: Value) -> Answer {
        let request = json!({"method": method, "arguments": arguments, "api_version": api_version,
            "context": {"director_uuid": "d", "request_id": format!("cpi-{method}")}});
        let answer = self.send(&request.to_string());
        if method == "create_network" && answer.response["error"].is_null() {
            self.note_network(&answer.response["result"][0]);
        }
        answer
    }

    /// Notes a network of create_network, which is not named after the sandbox, for `scripts/lib/clear-test-runs`.
    fn note_network(&self, id: &Value) {
        let mut notes = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("networks"))
            .unwrap();
        writeln!(notes, "{}", id.as_str().unwrap()).unwrap();
    }

    /// Starts a call without waiting for its answer.
    pub fn start(&self, method: &str, arguments: Value) -> Child {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2});
        start_cpi(
            &self.config_path(),
            self.directory.path(),
            &request.to_string(),
            Stdio::piped(),
        )
    }

    /// Starts a call whose log can be read while it works.
    pub fn start_logging_to(&self, method: &str, arguments: Value, log: &Path) -> Child {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2});
        let log = fs::File::create(log).unwrap();
        start_cpi(
            &self.config_path(),
            self.directory.path(),
            &request.to_string(),
            log.into(),
        )
    }

    /// Sends this text as it is.
    pub fn send(&self, request: &str) -> Answer {
        call_cpi(&self.config_path(), self.directory.path(), request)
    }

    /// Uploads the small test stemcell.
    pub fn stemcell(&self) -> String {
        self.call(
            "create_stemcell",
            json!([stemcell_image("qcow2"), {"disk": 1024}]),
        )
        .text()
    }

    /// A booting VM with one manual network; small, since many tests boot at once.
    pub fn vm(&self, stemcell: &str, host: u8) -> String {
        let arguments =
            json!([format!("agent-{host}"), stemcell, {"memory": 192}, self.manual_network(host), [], {}]);
        self.call("create_vm", arguments).result()[0]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// As the function of this name.
    pub fn image_without_system(&self) -> String {
        image_without_system(self.directory())
    }

    /// A VM whose guest stays in its firmware.
    pub fn vm_without_system(&self, host: u8) -> String {
        let image = self.image_without_system();
        let stemcell = self.call("create_stemcell", json!([image, {}])).text();
        self.vm(&stemcell, host)
    }

    /// Names of the volumes in the sandbox's pool.
    pub fn volumes(&self) -> Vec<String> {
        let listing = virsh(&["vol-list", &self.name]);
        listing
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    /// What an uploaded stemcell consists of, as `volumes` lists it.
    pub fn stemcell_volumes(stemcell: &str) -> [String; 2] {
        [stemcell.to_owned(), format!("{stemcell}.record")]
    }

    /// Names of the domains, running or defined, that have volumes in the sandbox's pool.
    pub fn domains(&self) -> Vec<String> {
        let mine = format!("pool='{}'", self.name);
        let path = self.directory.path().to_str().unwrap().to_owned();
        virsh(&["list", "--all", "--name"])
            .split_whitespace()
            .filter(|name| {
                // Other tests' domains come and go.
                let xml = try_virsh(&["dumpxml", name]).unwrap_or_default();
                xml.contains(&mine) || xml.contains(&path)
            })
            .map(str::to_owned)
            .collect()
    }

    /// What the guest has written to its serial console so far.
    pub fn console(&self, vm: &str) -> String {
        let path = self.directory.path().join("console").join(format!("{vm}.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Has libvirt look at the pool again, as soon as nothing is copied there for a call that was killed.
    pub fn refresh_pool(&self) {
        wait_for(
            "libvirt to be done with the pool",
            Duration::from_secs(120),
            || try_virsh(&["pool-refresh", &self.name]).is_ok(),
        );
    }

    /// Everything that a call could have changed: volumes, domains and the network's XML.
    pub fn state(&self) -> (Vec<String>, Vec<String>, String) {
        (
            self.volumes(),
            self.domains(),
            virsh(&["net-dumpxml", &self.name]),
        )
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for vm in self.domains() {
                eprintln!("--- console of {vm}:\n{}", self.console(&vm));
            }
        }
        for domain in self.domains() {
            let _ = try_virsh(&["destroy", &domain]);
            let _ = try_virsh(&["undefine", &domain, "--nvram"]);
        }
        // Only what a test made permanent is still there to be undefined.
        for command in ["pool-destroy", "pool-undefine", "net-destroy", "net-undefine"] {
            let _ = try_virsh(&[command, &self.name]);
        }
    }
}

impl Answer {
    /// The result of a call that must have succeeded.
    #[track_caller]
    pub fn result(self) -> Value {
        assert_eq!(self.response["error"], Value::Null, "{}", self.stderr);
        self.response["result"].clone()
    }

    /// The result, a string.
    #[track_caller]
    pub fn text(self) -> String {
        self.result().as_str().expect("a string").to_owned()
    }

    /// The message of a call that must have failed with this type and this `ok_to_retry`.
    #[track_caller]
    pub fn error(self, error_type: &str, ok_to_retry: bool) -> String {
        let error = &self.response["error"];
        assert_eq!(
            error["type"],
            format!("Bosh::Clouds::{error_type}"),
            "{}",
            self.response
        );
        assert_eq!(error["ok_to_retry"], ok_to_retry, "{}", self.response);
        assert_eq!(self.response["result"], Value::Null);
        error["message"].as_str().unwrap().to_owned()
    }
}

/// Where a build with coverage (`make coverage`) notes what it runs.
pub fn coverage() -> Option<(&'static str, OsString)> {
    const NAME: &str = "LLVM_PROFILE_FILE";
    std::env::var_os(NAME).map(|file| (NAME, file))
}

/// One process, which has its request.
pub fn start_cpi(config: &Path, tmpdir: &Path, request: &str, stderr: Stdio) -> Child {
    // What the Director gives its CPIs, and nothing else.
    let mut child = Command::new(env!("CARGO_BIN_EXE_cpi"))
        .arg("--config")
        .arg(config)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", tmpdir)
        .env("HOME", "/root")
        .envs(coverage())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    child
}

/// One process, one request, one response.
pub fn call_cpi(config: &Path, tmpdir: &Path, request: &str) -> Answer {
    let output = start_cpi(config, tmpdir, request, Stdio::piped())
        .wait_with_output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "exit code {:?}: {stderr}",
        output.status.code()
    );
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let response: Value = serde_json::from_str(&stdout).unwrap();
    let keys: Vec<&String> = response.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["result", "error", "log"]);
    Answer { response, stderr }
}

/// Where `make setup` keeps what it made for the tests.
pub fn cache() -> PathBuf {
    std::env::var_os("CPI_TEST_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"))
                .join("libvirt-bosh-cpi")
        })
}

/// The test stemcell's `image` file, `qcow2` or `raw` inside; `make setup` builds it.
pub fn stemcell_image(format: &str) -> String {
    let image = cache()
        .join("guest")
        .join(format!("stemcell-{format}"))
        .join("image");
    assert!(
        image.is_file(),
        "{} is missing; run `make setup`",
        image.display()
    );
    image.to_str().unwrap().to_owned()
}

/// The path of the image of a stemcell without a system: a guest of it stays in its firmware for ever.
pub fn image_without_system(directory: &Path) -> String {
    fs::write(directory.join("root.img"), vec![b'x'; 1 << 20]).unwrap();
    let image = directory.join("image");
    let (image, directory) = (image.to_str().unwrap(), directory.to_str().unwrap());
    run("tar", &["-czf", image, "-C", directory, "root.img"]).unwrap();
    image.to_owned()
}

/// Runs virsh, which must succeed, and returns what it printed.
#[track_caller]
pub fn virsh(arguments: &[&str]) -> String {
    try_virsh(arguments).unwrap_or_else(|message| panic!("virsh {arguments:?}: {message}"))
}

/// Runs virsh; its error output when it fails.
pub fn try_virsh(arguments: &[&str]) -> Result<String, String> {
    run("virsh", &[&["-q", "-c", "qemu:///system"], arguments].concat())
}

/// Runs a witness; its error output when it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; run `make setup`"));
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits until the condition holds; panics with `what` after the limit.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A NAT network on the next free subnet: libvirt refuses one that is in use. None is taken again that was another
/// sandbox's: a test may have destroyed its network for a moment.
fn make_network(name: &str) -> u8 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut last_error = String::new();
    for _ in 0..200 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let subnet = u8::try_from(std::process::id().wrapping_mul(7).wrapping_add(number) % 250).unwrap();
        let xml = format!(
            "<network><name>{name}</name><forward mode='nat'/>\
             <bridge name='cpit{subnet}' stp='off' delay='0'/>\
             <ip address='10.131.{subnet}.1' netmask='255.255.255.0'/></network>"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), xml).unwrap();
        match try_virsh(&["net-create", file.path().to_str().unwrap()]) {
            Ok(_) => return subnet,
            Err(message) => last_error = message,
        }
    }
    panic!("no free subnet in 10.131.0.0/16: {last_error}");
}

/// Hashes merge, anything else replaces.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

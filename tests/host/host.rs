//! A host that runs, and what can be done with it from outside of the CPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::sandbox::wait_for;

/// An emulated host may take this long to boot beside busy builds.
pub const BOOT: Duration = Duration::from_secs(900);

pub struct Host {
    pub release: String,
    /// Of `scripts/test-host/run`.
    directory: PathBuf,
    _own: Option<TempDir>,
}

impl Host {
    /// A host as its image was made, booted; or the one that runs in `CPI_TEST_HOST`.
    pub fn boot(release: &str) -> Self {
        if let Some(directory) = std::env::var_os("CPI_TEST_HOST") {
            return Self {
                release: release.to_owned(),
                directory: directory.into(),
                _own: None,
            };
        }
        let image = Command::new(script("build"))
            .arg(release)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(image.status.success());
        let image = String::from_utf8(image.stdout).unwrap().trim().to_owned();
        let own = tempfile::Builder::new()
            .prefix("cpi-test-host-")
            .tempdir()
            .unwrap();
        let started = Instant::now();
        let host = Self {
            release: release.to_owned(),
            directory: own.path().to_owned(),
            _own: Some(own),
        };
        start(&image, &host.directory);
        host.wait_until_booted();
        println!("{release}: boot took {} s", started.elapsed().as_secs());
        host
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits for the host's boot to be complete.
    pub fn wait_until_booted(&self) {
        wait_for("the host's sshd", BOOT, || self.try_run("true").is_ok());
        // It fails unless everything that should has started.
        let state = self
            .try_run("systemctl is-system-running --wait")
            .unwrap_or_else(|_| self.run("systemctl --failed"));
        assert_eq!(state.trim(), "running");
    }

    /// Runs shell commands on the host, as root; what they print.
    #[track_caller]
    pub fn run(&self, commands: &str) -> String {
        self.try_run(commands)
            .unwrap_or_else(|message| panic!("{commands}: {message}"))
    }

    /// The same for commands that may fail; what they say then.
    pub fn try_run(&self, commands: &str) -> Result<String, String> {
        output(self.enter(&["--host", &format!("set -e\n{commands}")]))
    }

    /// A command of this machine in the host's LAN, or with `--host` one of the host.
    pub fn enter(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(script("enter"));
        command.arg(&self.directory).args(arguments).stdin(Stdio::null());
        command
    }

    /// Copies a file or a directory to the host.
    pub fn copy(&self, from: &Path, to: &str) {
        let mut tar = Command::new("tar")
            .args(["-czhf", "-", "-C"])
            .arg(from.parent().unwrap())
            .arg(from.file_name().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let unpack = format!("mkdir -p {to}; tar -xzf - --no-same-owner -C {to}");
        let mut command = self.enter(&["--host", &unpack]);
        command.stdin(tar.stdout.take().unwrap());
        output(command).unwrap();
        assert!(tar.wait().unwrap().success());
    }
}

pub fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/test-host")
        .join(name)
}

/// The host ends with this process, however that ends: the kernel kills it with the thread that has started it.
fn start(image: &str, directory: &Path) {
    let log = fs::File::create(directory.join("run.log")).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(script("run"))
        .arg(image)
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let (sender, started) = mpsc::channel();
    std::thread::spawn(move || {
        let child = command.spawn();
        let _ = sender.send(child.as_ref().map(Child::id).map_err(ToString::to_string));
        let status = child.unwrap().wait();
        eprintln!("the host has ended: {status:?}");
    });
    started.recv().unwrap().unwrap();
}

//! Test runs that end by Ctrl-C, a time limit or a kill: what they have made is named after their process, and goes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use crate::sandbox::{run, try_virsh, virsh, wait_for};

/// What the name of every sandbox begins with; the process and a number follow.
pub const PREFIX: &str = "cpitest-";

const CLEAR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib/clear-test-runs");

/// Clears what killed runs have left, and has somebody do so for this run when it ends; once in each run.
pub fn clear() {
    static CLEARED: Once = Once::new();
    CLEARED.call_once(|| {
        run(CLEAR, &[]).unwrap();
        // Ctrl-C reaches all processes of the terminal, but not another session.
        Command::new("setsid")
            .args(["--fork", CLEAR, &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
    });
}

/// A test that has a VM on a network of create_network.
const VICTIM: &str = "networks_created::two_vms_on_an_isolated_network_reach_each_other_and_nothing_else";

/// Runs that test below `make`, in a process group of its own.
struct Run {
    make: Child,
    /// The process of the test.
    test: String,
}

impl Run {
    fn start() -> Self {
        let test = std::env::current_exe().unwrap();
        let make = Command::new("make")
            .args([
                "--silent",
                "--eval",
                &format!("all:\n\t@{} --exact {VICTIM}", test.display()),
            ])
            .current_dir("/")
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", make.id());
        let mut test = String::new();
        wait_for("the test's process", Duration::from_secs(30), || {
            test = fs::read_to_string(&children).unwrap().trim().to_owned();
            !test.is_empty()
        });
        Self { make, test }
    }

    /// What is left of it in libvirt and in the directory for temporary files.
    fn left(&self) -> Vec<String> {
        let name = format!("{PREFIX}{}-", self.test);
        let is_its = |text: &str| text.contains(&name);
        let named = |list: &str| -> Vec<String> {
            let names = virsh(&[list, "--all", "--name"]);
            names.split_whitespace().map(str::to_owned).collect()
        };
        let mut left: Vec<String> = [named("net-list"), named("pool-list")].concat();
        let files = fs::read_dir(std::env::temp_dir()).unwrap();
        left.extend(files.map(|file| file.unwrap().file_name().into_string().unwrap()));
        left.retain(|name| is_its(name));
        // Others' domains come and go.
        let xml = |domain: &str| try_virsh(&["dumpxml", domain]).unwrap_or_default();
        left.extend(named("list").into_iter().filter(|domain| is_its(&xml(domain))));
        left
    }

    /// Waits for its first VM, and returns the network of create_network.
    fn wait_for_vm(&self) -> String {
        wait_for("a VM", Duration::from_secs(120), || {
            self.left().iter().any(|name| name.starts_with("vm-"))
        });
        let directory = self.left().into_iter().find_map(|name| {
            let notes = std::env::temp_dir().join(name).join("networks");
            fs::read_to_string(notes).ok()
        });
        directory.expect("a note of the network").trim().to_owned()
    }
}

fn nothing_is_left_after(kill: impl FnOnce(&Run)) {
    let mut run = Run::start();
    let network = run.wait_for_vm();
    assert!(try_virsh(&["net-info", &network]).is_ok());
    kill(&run);
    assert!(!run.make.wait().unwrap().success());
    wait_for("all of the run to go", Duration::from_secs(90), || {
        run.left().is_empty() && try_virsh(&["net-info", &network]).is_err()
    });
}

fn kill(signal: &str, process: &str) {
    run("kill", &[signal, "--", process]).unwrap();
}

#[test]
fn a_run_that_ctrl_c_ends_leaves_nothing() {
    nothing_is_left_after(|run| kill("-INT", &format!("-{}", run.make.id())));
}

#[test]
fn a_run_that_is_killed_leaves_nothing() {
    nothing_is_left_after(|run| kill("-KILL", &run.test));
}

#[test]
fn a_run_whose_make_is_killed_ends_and_leaves_nothing() {
    nothing_is_left_after(|run| kill("-KILL", &run.make.id().to_string()));
}

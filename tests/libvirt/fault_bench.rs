//! Hurts a CPI call on purpose: at each call to libvirt that it makes, an error, a lost connection, death before and after,
//! and a signal that asks for the end. An error leaves everything as it was. After a death the same call again, its
//! opposite, or `cpi prune` gets there. No persistent disk is lost, and none is attached to two VMs.
//!
//! `make test` takes some of the points, by `CPI_TEST_SEED`; `make reliability` takes all (`points.rs`).

use std::ops::RangeInclusive;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::points::{self, Points};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run};

/// Points per method that `make test` takes.
const SAMPLE: usize = 5;

pub struct Bench {
    pub sandbox: Sandbox,
    pub proxy: RpcProxy,
}

/// One method, and what is around it.
pub struct Scenario {
    pub method: &'static str,
    /// Gets ready whatever the call needs, and gives the call's arguments. Nothing of this is left by `finish`.
    pub prepare: fn(&Bench) -> Value,
    /// Undoes the work of a call that succeeded (with this result), or that was killed (without).
    pub finish: fn(&Bench, &Value, Option<&Value>),
    /// What must hold after an error, if not everything as it was before the call.
    pub after_error: Option<fn(&Bench, &Value)>,
}

impl Bench {
    pub fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let proxy = RpcProxy::of(&mut sandbox);
        Self { sandbox, proxy }
    }

    /// Everything that a call could have changed, but for the DHCP leases' order.
    fn state(&self) -> (Vec<String>, Vec<String>, String) {
        let (mut volumes, mut domains, network) = self.sandbox.state();
        volumes.sort();
        domains.sort();
        (volumes, domains, network)
    }

    /// A call that nothing happens to.
    #[track_caller]
    pub fn call(&self, method: &str, arguments: Value) -> Value {
        self.proxy.plan(None);
        self.sandbox.call(method, arguments).result()
    }

    /// A call that is made again: done, or an error of the one type that its caller takes for done.
    #[track_caller]
    pub fn again(&self, method: &str, arguments: &Value, taken_for_done: &str) {
        self.proxy.plan(None);
        let response = self.sandbox.call(method, arguments.clone()).response;
        let error = &response["error"];
        assert!(
            error.is_null() || error["type"] == format!("Bosh::Clouds::{taken_for_done}"),
            "{response}"
        );
    }

    /// Names of volumes that begin so, records and marks aside.
    pub fn things(&self, prefix: &str) -> Vec<String> {
        let mut names = self.sandbox.volumes();
        names.retain(|name| name.starts_with(prefix) && !name.contains('.'));
        names
    }

    /// A call with this fault, and what became of it.
    pub fn call_with(&self, fault: Option<(usize, Fault)>, method: &str, arguments: Value) -> Output {
        self.proxy
            .plan(fault.map(|(number, fault)| (At::Number(number), fault)));
        let call = self.sandbox.start(method, arguments);
        self.proxy.set_pid(call.id());
        call.wait_with_output().unwrap()
    }

    /// What an operator does about what a killed call has left, an hour later.
    pub fn prune(&self) {
        self.proxy.plan(None);
        self.sandbox.refresh_pool();
        let pool = self.sandbox.directory().join("pool");
        for entry in std::fs::read_dir(&pool).unwrap() {
            let path = entry.unwrap().path();
            run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
        }
        self.sandbox.refresh_pool();
        let output = Command::new(env!("CARGO_BIN_EXE_cpi"))
            .arg("--config")
            .arg(self.sandbox.config_path())
            .args(["prune", "--yes", "--older-than", "1h", "--in", &self.sandbox.name])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn run(&self, scenario: &Scenario) {
        let Scenario {
            method,
            prepare,
            finish,
            after_error,
        } = scenario;
        let clean = self.state();
        let arguments = prepare(self);
        let output = self.call_with(None, method, arguments.clone());
        let (calls, _) = self.proxy.seen();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(response["error"], Value::Null, "{method}: {response}");
        finish(self, &arguments, Some(&response["result"]));
        assert_eq!(self.state(), clean, "{method} without a fault");

        for (number, fault) in points(calls) {
            let what = format!("{method}, call {number} of {calls}, {fault:?}");
            let arguments = prepare(self);
            let before = self.state();
            let output = self.call_with(Some((number, fault)), method, arguments.clone());
            // The number of calls may differ by some that wait for something.
            let (_, happened) = self.proxy.seen();
            self.proxy.plan(None);
            let log = String::from_utf8_lossy(&output.stderr);
            eprintln!("{what}: {}, happened: {happened}", output.status);
            let killed = happened && fault.kills();
            assert_eq!(output.status.success(), !killed, "{what}: {log}");
            if killed {
                finish(self, &arguments, None);
            } else {
                let response: Value = serde_json::from_slice(&output.stdout).unwrap();
                if response["error"] == Value::Null {
                    finish(self, &arguments, Some(&response["result"]));
                } else {
                    let kind = match *method {
                        "create_vm" => "Bosh::Clouds::VMCreationFailed",
                        _ => "Bosh::Clouds::CloudError",
                    };
                    assert_eq!(response["error"]["type"], kind, "{what}: {log}");
                    let message = response["error"]["message"].as_str().unwrap();
                    let interrupted = message.contains("interrupted by SIG");
                    assert_eq!(interrupted, fault == Fault::Told, "{what}: {log}");
                    match after_error {
                        Some(holds) => holds(self, &arguments),
                        None => assert_eq!(self.state(), before, "{what}: {log}"),
                    }
                    finish(self, &arguments, None);
                }
            }
            assert_eq!(self.state(), clean, "{what}: {log}");
        }
    }
}

/// Which calls get which faults: all, or a sample by `CPI_TEST_SEED`.
fn points(calls: usize) -> Vec<(usize, Fault)> {
    let is_wanted = |point: &(usize, Fault)| points::is_kind_wanted(&format!("{:?}", point.1));
    let all = |calls: RangeInclusive<usize>| {
        calls
            .flat_map(|number| Fault::ALL.map(|fault| (number, fault)))
            .filter(is_wanted)
    };
    match points::wanted(SAMPLE) {
        Points::All(_) => all(points::all_of(calls).unwrap()).collect(),
        Points::Some(wanted) => {
            let step = (calls * Fault::ALL.len()).div_ceil(wanted);
            all(1..=calls).skip(points::seed() % step).step_by(step).collect()
        }
    }
}

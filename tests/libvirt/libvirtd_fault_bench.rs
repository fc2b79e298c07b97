//! A host whose libvirtd is hurt at an exact point of a CPI call: at one of the messages that the CPI sends it.
//!
//! `make test` takes some of the points, by `CPI_TEST_SEED`; `make reliability` takes all (`points.rs`).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::points::{self, Points};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Answer, call_cpi, image_without_system, run, wait_for};

/// Points per method that `make test` takes.
const SAMPLE: usize = 1;

/// What a call may take whose libvirtd does not come back: keepalive, one new connection, and what is slow here.
const BOUND: Duration = Duration::from_secs(20);

/// What happens to libvirtd in the middle of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It says nothing for a second.
    Paused,
    /// It says nothing until the call has given up, and then does what it was told before.
    Stopped,
    /// It is killed before it hears of the message, and started again.
    KilledBefore,
    /// It is killed with the message in its hands, and started again.
    KilledMeanwhile,
    /// It is told to end with the message in its hands, and started again.
    Restarted,
    /// It is killed, and stays down until the call has given up.
    Down,
}

impl Harm {
    const ALL: [Self; 6] = [
        Self::KilledMeanwhile,
        Self::Down,
        Self::Paused,
        Self::Restarted,
        Self::KilledBefore,
        Self::Stopped,
    ];

    fn when(self) -> Fault {
        match self {
            Self::Paused | Self::Stopped | Self::KilledBefore => Fault::Before,
            Self::KilledMeanwhile | Self::Restarted | Self::Down => Fault::Meanwhile,
        }
    }

    /// Whether libvirtd is there again while the call goes on.
    fn comes_back(self) -> bool {
        !matches!(self, Self::Stopped | Self::Down)
    }
}

/// One method, and what is around it.
pub struct Scenario {
    pub method: &'static str,
    /// Gets ready whatever the call needs, and gives the call's arguments. Nothing of this is left by `finish`.
    pub prepare: fn(&Bench) -> Value,
    /// Undoes the work of a call that succeeded (with this result), or that failed (without).
    pub finish: fn(&Bench, &Value, Option<&Value>),
    /// What must hold after an error, libvirtd being back, if not everything as it was before the call.
    pub after_error: Option<fn(&Bench, &Value)>,
}

pub struct Bench {
    pub host: Host,
    proxy: RpcProxy,
    config: PathBuf,
}

impl Bench {
    pub fn new() -> Self {
        let host = Host::with(|_, _| Setup {
            libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
            commands: String::new(),
        });
        let directory = host.directory();
        let proxy = RpcProxy::to(&host.socket(), &directory.join("proxy-sock"));
        let network = directory.join("vms.xml");
        fs::write(
            &network,
            "<network><name>vms</name><bridge name='vms' stp='off' delay='0'/>\
             <ip address='10.78.0.1' netmask='255.255.255.0'>\
             <dhcp><range start='10.78.0.10' end='10.78.0.220'/></dhcp></ip></network>",
        )
        .unwrap();
        host.virsh(&["net-define", network.to_str().unwrap()]);
        host.virsh(&["net-start", "vms"]);
        let config = directory.join("cpi.json");
        let bench = Self { host, proxy, config };
        bench.configure(10, 30);
        bench
    }

    fn configure(&self, connect_timeout: u64, keepalive_timeout: u64) {
        let config = json!({"log_level": "DEBUG",
            "libvirt": {"type": "socket", "socket": self.proxy.socket, "connect_timeout": connect_timeout,
                "keepalive_timeout": keepalive_timeout},
            "settings": {"domain_type": "qemu", "network_name": "vms", "detach_timeout": 120,
                "console_log_dir": self.host.directory().join("log")}});
        fs::write(&self.config, config.to_string()).unwrap();
    }

    /// One call, to whatever is there.
    pub fn ask(&self, method: &str, arguments: Value) -> Answer {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2});
        call_cpi(
            &self.config,
            &self.host.directory().join("tmp"),
            &request.to_string(),
        )
    }

    /// A call that nothing happens to.
    #[track_caller]
    pub fn call(&self, method: &str, arguments: Value) -> Value {
        self.proxy.plan(None);
        self.ask(method, arguments).result()
    }

    /// A call that is made again: done, or an error of the one type that its caller takes for done.
    #[track_caller]
    pub fn again(&self, method: &str, arguments: &Value, taken_for_done: &str) {
        self.proxy.plan(None);
        let response = self.ask(method, arguments.clone()).response;
        let error = &response["error"];
        assert!(
            error.is_null() || error["type"] == format!("Bosh::Clouds::{taken_for_done}"),
            "{response}"
        );
    }

    /// Names of volumes that begin so, records and marks aside.
    pub fn volumes(&self, prefix: &str) -> Vec<String> {
        let mut names = self.host.files();
        names.retain(|name| name.starts_with(prefix) && !name.contains('.'));
        names
    }

    /// As the function of this name.
    pub fn image_without_system(&self) -> String {
        image_without_system(self.host.directory())
    }

    /// What an operator does about what a call that failed has left, an hour later.
    pub fn prune(&self) {
        self.proxy.plan(None);
        for file in self.host.files() {
            let path = self.host.pool().join(file);
            run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
        }
        self.host.virsh(&["pool-refresh", "default"]);
        let output = Command::new(env!("CARGO_BIN_EXE_cpi"))
            .arg("--config")
            .arg(&self.config)
            .args(["prune", "--yes", "--older-than", "1h"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Everything that a call could have changed.
    fn state(&self) -> Vec<String> {
        let sorted = |listing: String| {
            let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let mut state = self.host.files();
        for listing in [
            &["list", "--all", "--name"][..],
            &["net-list", "--all"],
            &["net-dumpxml", "vms"],
            &["net-dumpxml", "vms", "--inactive"],
        ] {
            state.extend(sorted(self.host.virsh(listing)));
        }
        state
    }

    /// Whether libvirtd has ended what it was told by others than us.
    fn wait_until_idle(&self) {
        wait_for(
            "libvirtd to end what it was told",
            Duration::from_secs(60),
            || {
                self.host
                    .inside(&["virt-admin", "client-list", "libvirtd"])
                    .is_ok_and(|clients| clients.lines().skip(2).all(|line| line.trim().is_empty()))
            },
        );
    }

    fn hurt(&self, number: usize, harm: Harm) {
        let libvirtd = self.host.libvirtd();
        self.proxy
            .plan_event(At::Number(number), harm.when(), move || match harm {
                Harm::Paused => {
                    libvirtd.signal("STOP");
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_secs(1));
                        libvirtd.signal("CONT");
                    });
                }
                Harm::Stopped => libvirtd.signal("STOP"),
                Harm::KilledBefore | Harm::KilledMeanwhile => libvirtd.kill(false),
                Harm::Restarted => libvirtd.signal("TERM"),
                Harm::Down => libvirtd.kill(true),
            });
    }

    /// A call that libvirtd stops answering at this procedure ends within its bound; libvirtd goes on afterwards.
    #[track_caller]
    pub fn given_up_at(&self, procedure: u32, number: usize, method: &str, arguments: Value) {
        self.configure(1, 2);
        let libvirtd = self.host.libvirtd();
        self.proxy
            .plan_event(At::Procedure(procedure, number), Fault::Before, move || {
                libvirtd.signal("STOP");
            });
        let started = Instant::now();
        let answer = self.ask(method, arguments);
        let took = started.elapsed();
        let (_, happened) = self.proxy.seen();
        assert!(happened, "{}", answer.stderr);
        self.proxy.plan(None);
        self.configure(10, 30);
        self.heal(Harm::Stopped, happened);
        assert!(took < BOUND, "{took:?}: {}", answer.stderr);
        answer.error("CloudError", true);
    }

    /// Brings libvirtd back, whatever has become of it.
    fn heal(&self, harm: Harm, happened: bool) {
        match harm {
            Harm::Stopped if happened => {
                self.host.signal("CONT");
                self.wait_until_idle();
            }
            Harm::Down => self.host.libvirtd().let_start(),
            _ => {}
        }
        self.host.wait_until_up();
    }

    pub fn run(&self, scenario: &Scenario) {
        let Scenario {
            method,
            prepare,
            finish,
            after_error,
        } = scenario;
        if !points::is_wanted(method) {
            return;
        }
        let clean = self.state();
        let arguments = prepare(self);
        let result = self.call(method, arguments.clone());
        let (calls, _) = self.proxy.seen();
        finish(self, &arguments, Some(&result));
        assert_eq!(self.state(), clean, "{method} with an unhurt libvirtd");

        for (number, harm) in points(calls) {
            let what = format!("{method}, message {number} of {calls}, {harm:?}");
            let arguments = prepare(self);
            let before = self.state();
            if !harm.comes_back() {
                self.configure(1, 2);
            }
            self.hurt(number, harm);
            let started = Instant::now();
            let answer = self.ask(method, arguments.clone());
            let took = started.elapsed();
            // The number of messages may differ by some that wait for something.
            let (_, happened) = self.proxy.seen();
            self.proxy.plan(None);
            self.configure(10, 30);
            self.heal(harm, happened);
            let error = &answer.response["error"];
            let log = &answer.stderr;
            eprintln!("{what}: {} ms, {error}", took.as_millis());
            assert!(harm.comes_back() || took < BOUND, "{what}: {took:?}: {log}");
            assert!(harm != Harm::Paused || error.is_null(), "{what}: {log}");
            if error.is_null() {
                finish(self, &arguments, Some(&answer.response["result"]));
            } else {
                let kind = match *method {
                    "create_vm" => "Bosh::Clouds::VMCreationFailed",
                    _ => "Bosh::Clouds::CloudError",
                };
                assert_eq!(error["type"], kind, "{what}: {log}");
                assert_eq!(error["ok_to_retry"], true, "{what}: {log}");
                match after_error {
                    Some(holds) => holds(self, &arguments),
                    // Nobody could undo anything while libvirtd was away.
                    None if !harm.comes_back() => {}
                    None => assert_eq!(self.state(), before, "{what}: {log}"),
                }
                finish(self, &arguments, None);
            }
            assert_eq!(self.state(), clean, "{what}: {log}");
        }
    }
}

/// What happens at which message: all, or a sample by `CPI_TEST_SEED`.
fn points(messages: usize) -> Vec<(usize, Harm)> {
    match points::wanted(SAMPLE) {
        Points::All(_) => points::all_of(messages)
            .unwrap()
            .flat_map(|number| Harm::ALL.map(|harm| (number, harm)))
            .collect(),
        Points::Some(wanted) => (0..wanted)
            .map(|n| {
                let seed = points::seed();
                let number = (seed + n * messages / wanted) % messages + 1;
                (number, Harm::ALL[(seed + n + messages) % Harm::ALL.len()])
            })
            .collect(),
    }
}

//! A network destroyed in the middle of a call. What is left of the call is all of it or nothing; where libvirt still has
//! the network's definition, the next try starts it.

use std::fs;

use serde_json::{Value, json};

use crate::points;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, try_virsh, virsh};

/// `virDomainCreate` and `virNetworkUpdate` in libvirt's remote protocol.
const DOMAIN_CREATE: u32 = 9;
const NETWORK_UPDATE: u32 = 291;

struct Bench {
    sandbox: Sandbox,
    proxy: RpcProxy,
    /// Whether libvirt keeps the network's definition when it is destroyed.
    permanent: bool,
    /// The network's XML, in a file.
    definition: String,
    stemcell: String,
}

impl Bench {
    fn new(permanent: bool) -> Self {
        let mut sandbox = Sandbox::new();
        let proxy = RpcProxy::of(&mut sandbox);
        sandbox.serve_dhcp();
        let name = sandbox.name.clone();
        let definition = sandbox.directory().join("network.xml");
        fs::write(&definition, virsh(&["net-dumpxml", &name])).unwrap();
        let definition = definition.to_str().unwrap().to_owned();
        if permanent {
            virsh(&["net-define", &definition]);
        }
        let image = sandbox.image_without_system();
        let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
        Self {
            sandbox,
            proxy,
            permanent,
            definition,
            stemcell,
        }
    }

    fn arguments(&self) -> Value {
        json!(["a", self.stemcell, {"memory": 64, "ephemeral_disk": 8}, self.sandbox.manual_network(10), [], {}])
    }

    fn create_vm(&self) -> String {
        self.proxy.plan(None);
        let result = self.sandbox.call("create_vm", self.arguments()).result();
        result[0].as_str().unwrap().to_owned()
    }

    fn destroy_network_at(&self, at: At) {
        let name = self.sandbox.name.clone();
        self.proxy.plan_event(at, Fault::Before, move || {
            virsh(&["net-destroy", &name]);
        });
    }

    fn bring_network_back(&self) {
        let name = &self.sandbox.name;
        if virsh(&["net-list", "--name"])
            .split_whitespace()
            .any(|active| active == name)
        {
            return;
        }
        if self.permanent {
            virsh(&["net-start", name]);
        } else {
            virsh(&["net-create", &self.definition]);
        }
    }

    /// Nothing of a VM is there: no volume but the stemcell's, no domain, no DHCP host entry.
    #[track_caller]
    fn assert_clean(&self, what: &str) {
        assert_eq!(
            self.sandbox.volumes(),
            Sandbox::stemcell_volumes(&self.stemcell),
            "{what}"
        );
        assert_eq!(self.sandbox.domains(), [""; 0], "{what}");
        let network = try_virsh(&["net-dumpxml", &self.sandbox.name]).unwrap_or_default();
        assert!(!network.contains("name='vm-"), "{what}: {network}");
    }

    /// Whether the point was reached.
    fn create_vm_without_network_at(&self, at: At) -> bool {
        let what = format!("create_vm, {at:?}, permanent network: {}", self.permanent);
        self.destroy_network_at(at);
        let answer = self.sandbox.call("create_vm", self.arguments());
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        eprintln!("{what}: {}", answer.response["error"]);
        let vm = if answer.response["error"].is_null() {
            answer.result()[0].as_str().unwrap().to_owned()
        } else {
            // Only a network that libvirt still knows comes back by itself.
            let message = answer.error("VMCreationFailed", self.permanent);
            assert!(
                message.contains(&self.sandbox.name) || message.contains("network"),
                "{message}"
            );
            self.assert_clean(&what);
            if !self.permanent {
                self.bring_network_back();
            }
            self.create_vm()
        };
        assert_eq!(virsh(&["domstate", &vm]).trim(), "running", "{what}");
        // It may have gone after the VM was started: that is no reason for a VM to stay.
        self.sandbox.call("delete_vm", json!([vm])).result();
        self.assert_clean(&what);
        self.bring_network_back();
        happened
    }

    /// Whether the point was reached.
    fn delete_vm_without_network_at(&self, at: At) -> bool {
        let what = format!("delete_vm, {at:?}, permanent network: {}", self.permanent);
        let vm = self.create_vm();
        self.destroy_network_at(at);
        let answer = self.sandbox.call("delete_vm", json!([vm]));
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        eprintln!("{what}: {}", answer.response["error"]);
        answer.result();
        self.assert_clean(&what);
        self.bring_network_back();
        happened
    }

    fn run(&self) {
        let vm = self.create_vm();
        let (calls, _) = self.proxy.seen();
        self.sandbox.call("delete_vm", json!([vm])).result();
        let (both, _) = self.proxy.seen();
        assert!(self.create_vm_without_network_at(At::Procedure(DOMAIN_CREATE, 1)));
        for at in points(calls) {
            self.create_vm_without_network_at(at);
        }
        assert!(self.delete_vm_without_network_at(At::Procedure(NETWORK_UPDATE, 1)));
        for at in points(both - calls) {
            self.delete_vm_without_network_at(at);
        }
    }
}

/// At which messages: all, or one by `CPI_TEST_SEED`.
fn points(messages: usize) -> Vec<At> {
    match points::all_of(messages) {
        Some(all) => all.map(At::Number).collect(),
        None => vec![At::Number(points::seed() % messages + 1)],
    }
}

#[test]
fn a_network_that_stays_defined_is_started_by_the_next_try() {
    Bench::new(true).run();
}

#[test]
fn a_network_that_is_gone_leaves_nothing_of_the_vm() {
    Bench::new(false).run();
}

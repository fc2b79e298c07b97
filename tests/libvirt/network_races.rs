//! create_vm on a network that is being deleted.

use serde_json::{Value, json};

use crate::call_races::{meet, succeeded};
use crate::disk_races::Bench;
use crate::sandbox::{try_virsh, virsh};

/// A network of create_network's, gone when the test ends.
struct Created(String);

impl Created {
    fn new(bench: &Bench) -> Self {
        let sandbox = &bench.sandbox;
        let range = format!("10.132.{}.0/24", sandbox.subnet());
        let definition = json!({"type": "manual", "range": range, "cloud_properties": {"mode": "isolated"}});
        let result = sandbox.call("create_network", json!([definition])).result();
        Self(result[0].as_str().unwrap().to_owned())
    }

    fn is_active(&self) -> bool {
        virsh(&["net-list", "--name"])
            .lines()
            .any(|name| name.trim() == self.0)
    }

    /// The arguments of create_vm.
    fn vm(&self, bench: &Bench) -> Value {
        let mut networks = bench.sandbox.manual_network(40);
        networks["default"]["cloud_properties"] = json!({"name": self.0});
        json!(["a", bench.stemcell, {"memory": 32}, networks, [], {}])
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for command in ["net-destroy", "net-undefine"] {
            let _ = try_virsh(&[command, &self.0]);
        }
    }
}

#[test]
fn no_vm_runs_without_the_network_that_is_deleted() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let current = std::cell::RefCell::new(Created::new(&bench));
    let (mut created, mut deleted) = (0, 0);
    meet(
        &bench,
        || {
            let mut network = current.borrow_mut();
            if !network.is_active() {
                *network = Created::new(&bench);
            }
            (
                ("create_vm", network.vm(&bench)),
                ("delete_network", json!([network.0])),
            )
        },
        |answers| {
            let (what, network) = (&answers.what, current.borrow());
            let (is_created, is_deleted) = answers.outcomes();
            assert!(!(is_created && is_deleted), "{what}");
            assert_eq!(network.is_active(), !is_deleted, "{what}");
            (created, deleted) = (
                created + usize::from(is_created),
                deleted + usize::from(is_deleted),
            );
            let vms = sandbox.domains();
            assert_eq!(vms.len(), usize::from(is_created), "{what}");
            if !is_deleted {
                let info = virsh(&["net-info", &network.0]);
                for line in ["Persistent:     yes", "Autostart:      yes"] {
                    assert!(info.contains(line), "{what}: {info}");
                }
            }
            for vm in vms {
                sandbox.call("delete_vm", json!([vm])).result();
            }
        },
    );
    assert!(created > 0 && deleted > 0, "{created} created, {deleted} deleted");
}

#[test]
fn a_vm_is_not_made_on_a_network_whose_deletion_was_interrupted() {
    let bench = Bench::new();
    let sandbox = &bench.sandbox;
    let network = Created::new(&bench);
    let definition = virsh(&["net-dumpxml", "--inactive", &network.0]);
    virsh(&["net-undefine", &network.0]);
    let message = sandbox
        .call("create_vm", network.vm(&bench))
        .error("VMCreationFailed", true);
    assert!(message.contains("in progress or was interrupted"), "{message}");
    assert!(sandbox.domains().is_empty());
    // What the message says helps.
    let file = sandbox.directory().join("network.xml");
    std::fs::write(&file, definition).unwrap();
    virsh(&["net-define", file.to_str().unwrap()]);
    let vm = sandbox.call("create_vm", network.vm(&bench)).result();
    sandbox.call("delete_vm", json!([vm[0]])).result();
    virsh(&["net-undefine", &network.0]);
    let again = sandbox.call("delete_network", json!([network.0])).response;
    assert!(succeeded(&again), "{again}");
    assert!(!network.is_active());
}

//! One configuration file, two hosts: a cpi-config's properties come in the context and lead to the host of the AZ.

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, stemcell_arguments};
use crate::sandbox::Answer;

/// Stands for any secret of a cpi-config.
const PASSWORD: &str = "hunter2hunter2";

#[test]
fn each_context_leads_to_its_own_host() {
    let hosts = [Host::new(), Host::new()];
    // What the installed job knows; the context says the rest.
    let file = json!({"type": "tcp", "host": "nowhere.invalid"});
    let call = |host: &Host, method: &str, arguments: Value| -> Answer {
        let context = json!({
            "libvirt": {"host": host.address, "username": "bosh", "password": PASSWORD},
            "agent": {"mbus": format!("nats://nats:{PASSWORD}@10.0.0.6:4222"),
                      "blobstore": {"provider": "dav", "options": {"password": PASSWORD}}},
        });
        // The same file and the same program for both.
        let answer = hosts[0].call_with(&file, &context, method, arguments);
        let everything = format!("{} {}", answer.response, answer.stderr);
        assert!(!everything.contains(PASSWORD), "{everything}");
        answer
    };
    let made: Vec<(String, String)> = hosts
        .iter()
        .map(|host| {
            let stemcell = call(host, "create_stemcell", stemcell_arguments()).text();
            let arguments = json!(["a", stemcell, {"memory": 32}, {"n": {"type": "dynamic"}}, [], {}]);
            let vm = call(host, "create_vm", arguments).result()[0]
                .as_str()
                .unwrap()
                .to_owned();
            (stemcell, vm)
        })
        .collect();
    for (here, host) in hosts.iter().enumerate() {
        for (there, (stemcell, vm)) in made.iter().enumerate() {
            assert_eq!(call(host, "has_vm", json!([vm])).result(), here == there);
            assert_eq!(
                host.virsh(&["list", "--name"]).contains(vm.as_str()),
                here == there
            );
            assert_eq!(host.files().contains(stemcell), here == there);
        }
        let (_, other_vm) = &made[1 - here];
        call(host, "delete_vm", json!([other_vm])).error("VMNotFound", false);
        let (other_stemcell, _) = &made[1 - here];
        let arguments = json!(["a", other_stemcell, {}, {"n": {"type": "dynamic"}}, [], {}]);
        call(host, "create_vm", arguments).error("VMCreationFailed", false);
    }
    for (host, (stemcell, vm)) in hosts.iter().zip(&made) {
        call(host, "delete_vm", json!([vm])).result();
        call(host, "delete_stemcell", json!([stemcell])).result();
        assert_eq!(host.files(), Vec::<String>::new());
    }

    // Without its context the file leads nowhere, and an error in the context shows no secret either.
    let vm = json!(["vm-00000000-0000-4000-8000-000000000000"]);
    hosts[0]
        .call(&file, "has_vm", vm.clone())
        .error("CloudError", true);
    let wrong = json!({"libvirt": {"password": [PASSWORD], "host": hosts[0].address}});
    let answer = hosts[0].call_with(&file, &wrong, "has_vm", vm);
    assert!(!answer.stderr.contains(PASSWORD) && !answer.response.to_string().contains(PASSWORD));
    answer.error("CpiError", false);
}

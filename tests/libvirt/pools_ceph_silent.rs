//! A Ceph whose monitor says nothing, before a call and in the middle of it: calls end within a bound, with an error that
//! may be retried, and once it is back everything is as it was and works.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ceph_host::{CephHost, PATIENCE};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Answer, run, wait_for};

/// Of libvirt's remote protocol: `virStorageVolCreateXML`, `virStorageVolDelete`, `virDomainAttachDeviceFlags`.
const CREATE_VOLUME: u32 = 93;
const DELETE_VOLUME: u32 = 94;
const ATTACH_DEVICE_FLAGS: u32 = 160;

/// A call asks Ceph a few times at most.
const BOUND: Duration = Duration::from_secs(3 * PATIENCE + 15);

struct Bench {
    ceph: CephHost,
    proxy: RpcProxy,
    vm: String,
}

impl Bench {
    fn new() -> Self {
        let ceph = CephHost::new();
        ceph.define_network();
        let proxy = RpcProxy::to(&ceph.host.socket(), &ceph.host.directory().join("proxy-sock"));
        let directory = ceph.host.directory();
        std::fs::write(directory.join("root.img"), vec![b'x'; 1 << 20]).unwrap();
        let (image, from) = (directory.join("image"), directory.to_str().unwrap());
        run("tar", &["-czf", image.to_str().unwrap(), "-C", from, "root.img"]).unwrap();
        let stemcell = ceph.call("create_stemcell", json!([image, {}])).text();
        let arguments = json!(["a", stemcell, {"memory": 64}, CephHost::network(), [], {}]);
        let vm = ceph.call("create_vm", arguments).result()[0]
            .as_str()
            .unwrap()
            .to_owned();
        Self { ceph, proxy, vm }
    }

    fn disk(&self) -> String {
        let arguments = json!([16, {"storage_pool": "ceph"}]);
        self.ceph.call("create_disk", arguments).text()
    }

    fn call(&self, method: &str, arguments: Value) -> Answer {
        let libvirt = json!({"type": "socket", "socket": self.proxy.socket});
        self.ceph.host.call_with(&libvirt, &json!({}), method, arguments)
    }

    /// The call fails as it should while the monitor says nothing.
    #[track_caller]
    fn fails(&self, method: &str, arguments: Value) {
        let started = Instant::now();
        let answer = self.call(method, arguments);
        let took = started.elapsed();
        eprintln!("{method}: {} ms: {}", took.as_millis(), answer.response["error"]);
        assert!(took < BOUND, "{method}: {took:?}");
        let message = answer.error("CloudError", true);
        assert!(message.contains("ceph health detail"), "{method}: {message}");
    }

    /// The monitor stops just before, or just after, libvirt is told this.
    fn stop_at(&self, procedure: u32, number: usize, when: Fault) {
        let monitor = self.ceph.monitor();
        self.proxy
            .plan_event(At::Procedure(procedure, number), when, move || {
                monitor.signal("STOP");
            });
    }

    fn go_on(&self) {
        let (_, happened) = self.proxy.seen();
        assert!(happened, "the point was not reached");
        self.proxy.plan(None);
        self.bring_back();
    }

    fn bring_back(&self) {
        self.ceph.monitor().signal("CONT");
        wait_for("Ceph's monitor", Duration::from_secs(60), || {
            self.ceph
                .run("ceph", &["--connect-timeout", "50", "status"])
                .contains("quorum")
        });
    }

    #[track_caller]
    fn assert_attached(&self, disk: &str, attached: bool) {
        for further in [&[][..], &["--inactive"]] {
            let xml = self.ceph.host.virsh(&[&["dumpxml", &self.vm], further].concat());
            assert_eq!(xml.contains(&format!("/{disk}'")), attached, "{xml}");
        }
    }
}

#[test]
fn a_ceph_that_says_nothing_is_given_up_and_nothing_is_lost() {
    let bench = Bench::new();
    let (disk, other) = (bench.disk(), bench.disk());
    let mut images = vec![disk.clone(), other.clone()];
    images.sort();

    bench.ceph.monitor().signal("STOP");
    bench.fails("create_disk", json!([16, {"storage_pool": "ceph"}]));
    bench.fails("resize_disk", json!([disk, 32]));
    bench.fails("snapshot_disk", json!([disk, {}]));
    bench.fails("attach_disk", json!([bench.vm, disk]));
    bench.fails("delete_disk", json!([other]));
    bench.fails("update_disk", json!([disk, 32, {"storage_pool": "ceph"}]));
    bench.fails("has_disk", json!([disk]));
    // What needs no answer of Ceph's goes on, and libvirt has not stopped the pool.
    assert!(bench.ceph.host.virsh(&["pool-list", "--name"]).contains("ceph"));
    assert_eq!(bench.call("has_vm", json!([bench.vm])).result(), true);
    assert_eq!(bench.call("get_disks", json!([bench.vm])).result(), json!([]));
    let local = bench.call("create_disk", json!([8, {}])).text();
    bench.call("delete_disk", json!([local])).result();
    bench.bring_back();
    assert_eq!(bench.ceph.images(), images);
    bench.assert_attached(&disk, false);

    // In the middle of calls. QEMU gives up as the host's ceph.conf says.
    bench.stop_at(ATTACH_DEVICE_FLAGS, 2, Fault::Before);
    bench.fails("attach_disk", json!([bench.vm, disk]));
    bench.go_on();
    assert_eq!(bench.ceph.host.virsh(&["domstate", &bench.vm]).trim(), "running");
    bench.assert_attached(&disk, false);
    bench.call("attach_disk", json!([bench.vm, disk])).result();
    bench.assert_attached(&disk, true);

    bench.stop_at(DELETE_VOLUME, 1, Fault::Before);
    bench.fails("delete_disk", json!([other]));
    bench.go_on();
    // The marker of the delete stays until the next one.
    let mut left = bench.ceph.images();
    left.retain(|image| !image.ends_with(".deleting"));
    assert_eq!(left, images);
    bench.stop_at(DELETE_VOLUME, 1, Fault::Meanwhile);
    let answer = bench.call("delete_disk", json!([other]));
    bench.go_on();
    if !answer.response["error"].is_null() {
        answer.error("CloudError", true);
        let again = bench.call("delete_disk", json!([other])).response;
        let error = &again["error"];
        assert!(
            error.is_null() || error["type"] == "Bosh::Clouds::DiskNotFound",
            "{again}"
        );
    }
    assert_eq!(bench.ceph.images(), [disk.as_str()]);

    bench.stop_at(CREATE_VOLUME, 1, Fault::Meanwhile);
    let answer = bench.call("create_disk", json!([16, {"storage_pool": "ceph"}]));
    bench.go_on();
    if answer.response["error"].is_null() {
        let made = answer.text();
        assert!(bench.ceph.images().contains(&made));
        bench.call("delete_disk", json!([made])).result();
    } else {
        answer.error("CloudError", true);
        // An image that Ceph has made after all is empty, and known to nobody.
        bench.ceph.host.virsh(&["pool-refresh", "ceph"]);
        for image in bench.ceph.images() {
            if image != disk {
                bench.call("delete_disk", json!([image])).result();
            }
        }
    }
    bench.ceph.host.virsh(&["destroy", &bench.vm]);
    bench.call("detach_disk", json!([bench.vm, disk])).result();
    bench.assert_attached(&disk, false);
    bench.call("delete_disk", json!([disk])).result();
    assert_eq!(bench.ceph.images(), [""; 0]);
}

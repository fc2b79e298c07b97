//! Hosts that say nothing, stop in the middle of a call, or are cut off: an error within a bound that may be
//! retried, nothing left over, and the same call works once the host is back.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, stemcell_arguments};
use crate::sandbox::{Sandbox, merge, wait_for};

fn with(mut libvirt: Value, extra: Value) -> Value {
    merge(&mut libvirt, extra);
    libvirt
}

#[test]
fn a_listener_that_says_nothing_is_given_up_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut sandbox = Sandbox::new();
    for transport in ["tcp", "ssh"] {
        sandbox.configure(
            json!({"libvirt": {"type": transport, "host": "127.0.0.1", "port": port,
            "connect_timeout": 1}}),
        );
        let started = Instant::now();
        let message = sandbox
            .call("has_vm", json!(["vm-00000000-0000-4000-8000-000000000000"]))
            .error("CloudError", true);
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "{transport}: {:?}",
            started.elapsed()
        );
        assert!(
            message.contains("no answer within 1 s (libvirt.connect_timeout)"),
            "{message}"
        );
        assert!(message.contains("127.0.0.1"), "{message}");
    }
    drop(listener);
    let started = Instant::now();
    sandbox
        .call("create_disk", json!([8, {}]))
        .error("CloudError", true);
    assert!(started.elapsed() < Duration::from_secs(1));
    sandbox.configure(json!({"libvirt": {"type": "socket"}}));
    sandbox.call("create_disk", json!([8, {}])).result();
}

#[test]
fn a_libvirtd_stopped_in_the_middle_of_an_upload_ends_the_call_and_the_retry_works() {
    let host = Host::new();
    let libvirt = with(
        host.libvirt(),
        json!({"keepalive_timeout": 2, "connect_timeout": 10}),
    );
    let before = host.state();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let started = Instant::now();
            let answer = host.call(&libvirt, "create_stemcell", stemcell_arguments());
            (answer, started.elapsed())
        });
        wait_for("the upload", Duration::from_secs(20), || {
            uploaded(&host) > 1_000_000
        });
        host.signal("STOP");
        // Longer than the keepalive, shorter than the rollback's patience.
        std::thread::sleep(Duration::from_secs(4));
        host.signal("CONT");
        let (answer, took) = call.join().unwrap();
        assert!(took < Duration::from_secs(15), "{took:?}");
        let message = answer.error("CloudError", true);
        assert!(message.contains("uploading"), "{message}");
    });
    assert_eq!(host.state(), before);
    host.call(&libvirt, "create_stemcell", stemcell_arguments())
        .text();
}

#[test]
fn a_libvirtd_that_stays_stopped_ends_the_call_all_the_same() {
    let host = Host::new();
    let libvirt = with(
        host.libvirt(),
        json!({"keepalive_timeout": 2, "connect_timeout": 1}),
    );
    let stemcell = host
        .call(&libvirt, "create_stemcell", stemcell_arguments())
        .text();
    let arguments =
        json!(["a", stemcell, {"memory": 32, "ephemeral_disk": 8}, {"n": {"type": "dynamic"}}, [], {}]);
    let started = Instant::now();
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| host.call(&libvirt, "create_vm", arguments.clone()));
        wait_for("the VM's first volume", Duration::from_secs(20), || {
            host.files().iter().any(|file| file.starts_with("vm-"))
        });
        host.signal("STOP");
        call.join().unwrap()
    });
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let message = answer.error("VMCreationFailed", true);
    assert!(
        message.contains("rolling back failed for: ") && message.contains("volumes of VM vm-"),
        "{message}"
    );
    host.signal("CONT");
    let vm = host.call(&libvirt, "create_vm", arguments).result()[0].clone();
    host.call(&libvirt, "delete_vm", json!([vm])).result();
}

#[test]
fn a_connection_cut_during_an_upload_is_rolled_back_over_another_one() {
    let host = Host::new();
    let before = host.state();
    let proxy = Proxy::to(format!("{}:16509", host.address));
    let libvirt = json!({"type": "tcp", "host": "127.0.0.1", "port": proxy.port});
    // In the middle of the image, which is some tens of megabytes.
    proxy.cut_after(5_000_000);
    let started = Instant::now();
    let message = host
        .call(&libvirt, "create_stemcell", stemcell_arguments())
        .error("CloudError", true);
    assert!(message.contains("uploading"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(host.state(), before);

    let stemcell = host
        .call(&libvirt, "create_stemcell", stemcell_arguments())
        .text();
    assert_eq!(host.files(), Sandbox::stemcell_volumes(&stemcell));
    // The same image as over a connection that was never cut.
    let direct = host
        .call(&host.libvirt(), "create_stemcell", stemcell_arguments())
        .text();
    let read = |name: &str| fs::read(host.pool().join(name)).unwrap();
    assert!(read(&stemcell) == read(&direct));
}

/// Bytes in the pool's files.
fn uploaded(host: &Host) -> u64 {
    let length = |name: &String| fs::metadata(host.pool().join(name)).map_or(0, |file| file.len());
    host.files().iter().map(length).sum()
}

/// A TCP connection's way to a host, which can be cut.
struct Proxy {
    port: u16,
    /// Bytes that go through before the cut; none later.
    budget: Arc<AtomicU64>,
}

impl Proxy {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let budget = Arc::new(AtomicU64::new(u64::MAX));
        let shared = Arc::clone(&budget);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&target).unwrap();
                let ends = Arc::new(Mutex::new(vec![
                    client.try_clone().unwrap(),
                    server.try_clone().unwrap(),
                ]));
                for (from, to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ] {
                    let (budget, ends) = (Arc::clone(&shared), Arc::clone(&ends));
                    std::thread::spawn(move || pass_on(from, to, &budget, &ends));
                }
            }
        });
        Self { port, budget }
    }

    fn cut_after(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, budget: &AtomicU64, ends: &Mutex<Vec<TcpStream>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        let left = budget.load(Ordering::SeqCst);
        if read == 0 || left < read as u64 || to.write_all(&buffer[..read]).is_err() {
            if left < u64::MAX && left < read as u64 {
                // One cut; the next connection goes through.
                budget.store(u64::MAX, Ordering::SeqCst);
            }
            break;
        }
        if left < u64::MAX {
            budget.fetch_sub(read as u64, Ordering::SeqCst);
        }
    }
    for end in ends.lock().unwrap().iter() {
        let _ = end.shutdown(Shutdown::Both);
    }
}

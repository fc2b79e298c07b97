//! The contract where it needs no libvirt: requests in, responses out, through the real binary. The libvirt that the
//! configuration names is not there, so a call that gets as far as connecting says so.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const NOWHERE: &str = "/no/such/libvirt-sock";
const VM: &str = "vm-00000000-0000-4000-8000-000000000000";
const DISK: &str = "disk0123456789abcdef";

struct Answer {
    response: Value,
    stderr: String,
}

/// Runs the CPI as the Director does; whatever comes in, one well-formed response comes out, and exit code 0.
fn send(request: &[u8], config: &Value) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    let config_path = directory.path().join("cpi.json");
    std::fs::write(&config_path, config.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cpi"))
        .arg("--config")
        .arg(config_path)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        // Where a build with coverage notes what it runs.
        .envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(request)
        .expect("the CPI reads all of its request");
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let response: Value = serde_json::from_str(&stdout).unwrap();
    let keys: Vec<&String> = response.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["result", "error", "log"], "{stdout}");
    assert!(response["log"].is_string(), "{stdout}");
    if let Value::Object(error) = &response["error"] {
        assert!(response["result"].is_null(), "{stdout}");
        assert!(
            error["type"].as_str().unwrap().starts_with("Bosh::Clouds::"),
            "{stdout}"
        );
        assert!(
            error["message"].is_string() && error["ok_to_retry"].is_boolean(),
            "{stdout}"
        );
    }
    Answer { response, stderr }
}

fn config() -> Value {
    json!({"libvirt": {"socket": NOWHERE}})
}

/// The request fails with this type and says this.
#[track_caller]
fn fails(request: &[u8], error_type: &str, says: &str) -> Answer {
    let answer = send(request, &config());
    let error = &answer.response["error"];
    let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
    assert_eq!(
        error["type"],
        format!("Bosh::Clouds::{error_type}"),
        "{shown}: {error}"
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(says), "{shown}: {says:?} is not in {message:?}");
    assert!(message.lines().count() == 1, "{message}");
    answer
}

#[track_caller]
fn call_fails(method: &str, arguments: Value, error_type: &str, says: &str) {
    let request = json!({"method": method, "arguments": arguments, "api_version": 2});
    let answer = fails(request.to_string().as_bytes(), error_type, says);
    if !says.contains(NOWHERE) {
        assert!(
            !answer.stderr.contains("connecting"),
            "a connection was opened: {}",
            answer.stderr
        );
    }
}

#[test]
fn what_is_no_request_gets_one_well_formed_error() {
    for (request, says) in [
        (&b""[..], "empty"),
        (b" \n", "empty"),
        (b"{", "not one JSON document"),
        (b"{\"method\":\"info\",\"arguments\":[]", "not one JSON document"),
        (
            b"{\"method\":\"info\",\"arguments\":[]} {}",
            "trailing characters",
        ),
        (b"{\"method\":\"info\",\"arguments\":[]} x", "trailing characters"),
        (b"[]", "request: expected an object, got an array"),
        (b"null", "request: expected an object, got null"),
        (b"{\"arguments\":[]}", "request: method is missing"),
        (
            b"{\"method\":5,\"arguments\":[]}",
            "request: method: expected a string, got the number 5",
        ),
        (
            b"{\"method\":\"info\",\"arguments\":{}}",
            "request: arguments: expected an array",
        ),
        (
            b"{\"method\":\"info\",\"arguments\":[],\"api_version\":\"2\"}",
            "request: api_version",
        ),
        (
            b"{\"method\":\"info\",\"arguments\":[],\"api_version\":0}",
            "request: api_version",
        ),
        (
            b"{\"method\":\"info\",\"arguments\":[],\"api_version\":-1}",
            "request: api_version",
        ),
        (
            b"{\"method\":\"info\",\"arguments\":[],\"context\":[]}",
            "request: context: expected an object",
        ),
        (b"\xff\xfe", "not one JSON document"),
        (b"{\"method\":\"\xff\",\"arguments\":[]}", "not one JSON document"),
    ] {
        fails(request, "CpiError", says);
    }
    fails(
        "[".repeat(1_000_000).as_bytes(),
        "CpiError",
        "not one JSON document",
    );
}

#[test]
fn a_request_of_100_mb_is_read_and_refused() {
    let request = json!({"method": "info", "arguments": ["x".repeat(100_000_000)]}).to_string();
    fails(request.as_bytes(), "CpiError", "larger than");
}

#[test]
fn info_answers_every_version_without_libvirt() {
    for version in [json!(null), json!(1), json!(2), json!(3)] {
        let request = json!({"method": "info", "arguments": [], "api_version": version});
        let answer = send(request.to_string().as_bytes(), &config());
        assert_eq!(
            answer.response,
            json!({"result": {"api_version": 3, "stemcell_formats": ["openstack-qcow2", "openstack-raw", "vsphere-ova",
                       "vsphere-ovf", "azure-vhd", "google-rawdisk"]}, "error": null, "log": ""})
        );
        assert!(!answer.stderr.contains("connecting"), "{}", answer.stderr);
    }
    let old = send(b"{\"method\":\"info\",\"arguments\":[]}", &config());
    assert_eq!(old.response["result"]["api_version"], 3);
}

#[test]
fn a_version_above_the_highest_is_not_supported() {
    let request = br#"{"method":"info","arguments":[],"api_version":4}"#;
    let answer = fails(
        request,
        "NotSupported",
        "version 4 is not supported; the highest supported is 3",
    );
    assert_eq!(answer.response["error"]["ok_to_retry"], false);
}

#[test]
fn methods_that_are_not_there_say_so() {
    for method in ["no_such_method", "", "Info", "info ", "__proto__"] {
        call_fails(method, json!([]), "NotImplemented", &format!("{method:?}"));
    }
    call_fails(
        "configure_networks",
        json!([VM, {}]),
        "NotSupported",
        "configure_networks",
    );
    call_fails("current_vm_id", json!([]), "NotSupported", "current_vm_id");
}

#[test]
fn every_wrong_argument_is_named() {
    let networks = json!({"n": {"type": "dynamic"}});
    for (method, arguments, says) in [
        ("info", json!([1]), "argument 1: not expected"),
        ("has_vm", json!([]), "argument 1 (vm_cid): missing"),
        (
            "has_vm",
            json!([null]),
            "argument 1 (vm_cid): expected a string, got null",
        ),
        (
            "has_vm",
            json!([5]),
            "argument 1 (vm_cid): expected a string, got the number 5",
        ),
        (
            "has_vm",
            json!([{}]),
            "argument 1 (vm_cid): expected a string, got an object",
        ),
        (
            "has_vm",
            json!(["a/b"]),
            "argument 1 (vm_cid): a cid must not contain a slash",
        ),
        (
            "has_vm",
            json!(["a\nb"]),
            "argument 1 (vm_cid): a cid must not contain control characters",
        ),
        (
            "has_vm",
            json!(["a\u{0}b"]),
            "argument 1 (vm_cid): a cid must not contain control characters",
        ),
        (
            "has_vm",
            json!([".."]),
            "argument 1 (vm_cid): a cid must not start with a dot",
        ),
        (
            "has_vm",
            json!([""]),
            "argument 1 (vm_cid): a cid must not be empty",
        ),
        (
            "has_vm",
            json!(["x".repeat(1000)]),
            "argument 1 (vm_cid): a cid is at most",
        ),
        ("has_vm", json!([VM, VM]), "argument 2: not expected"),
        (
            "delete_vm",
            json!([[]]),
            "argument 1 (vm_cid): expected a string, got an array",
        ),
        (
            "reboot_vm",
            json!([true]),
            "argument 1 (vm_cid): expected a string, got a boolean",
        ),
        ("get_disks", json!([null]), "argument 1 (vm_cid)"),
        ("set_vm_metadata", json!([VM]), "argument 2 (metadata): missing"),
        (
            "set_vm_metadata",
            json!([VM, "x"]),
            "argument 2 (metadata): expected an object, got a string",
        ),
        ("attach_disk", json!([VM]), "argument 2 (disk_cid): missing"),
        (
            "attach_disk",
            json!([VM, "a/b"]),
            "argument 2 (disk_cid): a cid must not contain a slash",
        ),
        ("attach_disk", json!([null, DISK]), "argument 1 (vm_cid)"),
        (
            "detach_disk",
            json!([VM, "a\nb"]),
            "argument 2 (disk_cid): a cid must not contain control characters",
        ),
        ("has_disk", json!([null]), "argument 1 (disk_cid)"),
        ("delete_disk", json!([DISK, 1]), "argument 2: not expected"),
        (
            "set_disk_metadata",
            json!([DISK, null]),
            "argument 2 (metadata): expected an object, got null",
        ),
        ("create_disk", json!([]), "argument 1 (size): missing"),
        (
            "create_disk",
            json!([0, {}]),
            "argument 1 (size): expected a size in MiB",
        ),
        (
            "create_disk",
            json!([-5, {}]),
            "argument 1 (size): expected a size in MiB",
        ),
        (
            "create_disk",
            json!([null, {}]),
            "argument 1 (size): expected a size in MiB",
        ),
        (
            "create_disk",
            json!([1.5, {}]),
            "argument 1 (size): expected a size in MiB",
        ),
        (
            "create_disk",
            json!(["64", {}]),
            "argument 1 (size): expected a size in MiB",
        ),
        (
            "create_disk",
            json!([u64::MAX, {}]),
            "argument 1 (size): expected a size in MiB",
        ),
        (
            "create_disk",
            json!([8, []]),
            "argument 2 (cloud_properties): expected an object",
        ),
        (
            "create_disk",
            json!([8, {}, 5]),
            "argument 3 (vm_cid): expected a string",
        ),
        (
            "create_disk",
            json!([8, {}, "a/b"]),
            "argument 3 (vm_cid): a cid must not contain a slash",
        ),
        ("create_disk", json!([8, {}, null, 1]), "argument 4: not expected"),
        ("create_stemcell", json!([]), "argument 1 (image_path): missing"),
        (
            "create_stemcell",
            json!(["", {}]),
            "argument 1 (image_path): expected a string, got an empty string",
        ),
        (
            "create_stemcell",
            json!(["/x"]),
            "argument 2 (cloud_properties): missing",
        ),
        (
            "create_stemcell",
            json!(["/x", 5]),
            "argument 2 (cloud_properties): expected an object",
        ),
        (
            "create_stemcell",
            json!(["/x", {"disk": "big"}]),
            "argument 2 (cloud_properties)",
        ),
        (
            "delete_stemcell",
            json!(["/etc/passwd"]),
            "argument 1 (stemcell_cid)",
        ),
        ("create_vm", json!([]), "argument 1 (agent_id): missing"),
        (
            "create_vm",
            json!([null, "sc", {}, networks, [], {}]),
            "argument 1 (agent_id)",
        ),
        (
            "create_vm",
            json!(["a", "../sc", {}, networks, [], {}]),
            "argument 2 (stemcell_cid)",
        ),
        (
            "create_vm",
            json!(["a", "sc", [], networks, [], {}]),
            "argument 3 (cloud_properties)",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, null, [], {}]),
            "argument 4 (networks): expected an object, got null",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, [], [], {}]),
            "argument 4 (networks): expected an object",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, networks, "d", {}]),
            "argument 5 (disk_cids)",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, networks, [5], {}]),
            "argument 5 (disk_cids)",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, networks, [], "e"]),
            "argument 6 (env)",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, networks, [], {}, 7]),
            "argument 7: not expected",
        ),
        (
            "calculate_vm_cloud_properties",
            json!([5]),
            "argument 1 (desired_instance_size)",
        ),
    ] {
        call_fails(method, arguments, "CpiError", says);
    }
    for (method, arguments, says) in [
        (
            "create_vm",
            json!(["a", "sc", {"cpu": 0}, networks, [], {}]),
            "cpu must be a whole number from 1",
        ),
        (
            "create_vm",
            json!(["a", "sc", {"memory": "1G"}, networks, [], {}]),
            "memory must be a whole number",
        ),
        (
            "create_vm",
            json!(["a", "sc", {}, {"n": 5}, [], {}]),
            "argument 4 (networks): n: must be an object",
        ),
        (
            "create_disk",
            json!([8, {"nonsense": 1}]),
            "unknown property nonsense",
        ),
        (
            "calculate_vm_cloud_properties",
            json!([{"ram": -1, "cpu": 1, "ephemeral_disk_size": 0}]),
            "ram must be",
        ),
    ] {
        call_fails(method, arguments, "CloudError", says);
    }
}

#[test]
fn a_method_that_needs_libvirt_says_which_one_it_could_not_reach() {
    for (method, arguments) in [
        ("has_vm", json!([VM])),
        ("has_disk", json!([DISK])),
        ("delete_vm", json!([VM])),
        ("create_disk", json!([8, {}])),
        (
            "calculate_vm_cloud_properties",
            json!([{"ram": 1, "cpu": 1, "ephemeral_disk_size": 0}]),
        ),
    ] {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2}).to_string();
        let answer = fails(request.as_bytes(), "CloudError", "qemu+unix:///system");
        let error = &answer.response["error"];
        assert!(error["message"].as_str().unwrap().contains(NOWHERE), "{error}");
        assert_eq!(error["ok_to_retry"], true);
        assert_eq!(answer.response["log"], "", "stderr has it");
    }
}

#[test]
fn the_response_has_the_log_where_nobody_reads_stderr() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cpi.json");
    std::fs::write(&path, config().to_string()).unwrap();
    let request = |method: &str| json!({"method": method, "arguments": if method == "info" { json!([]) } else { json!([VM]) }});
    let response = |method: &str, stderr: &str| -> Value {
        let command = format!(
            "exec {} --config {} {stderr}",
            env!("CARGO_BIN_EXE_cpi"),
            path.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let request = request(method).to_string();
        child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for nowhere in ["2>/dev/null", "2>&-"] {
        let failed = response("has_vm", nowhere);
        let log = failed["log"].as_str().unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.len() >= 3, "{log}");
        assert!(lines[lines.len() - 2].contains(" ERROR "), "{log}");
        assert!(lines[lines.len() - 1].contains(" INFO "), "{log}");
        assert_eq!(response("info", nowhere)["log"], "");
    }
    let file = format!("2>{}", directory.path().join("log").display());
    for somewhere in ["", &file] {
        assert_eq!(response("has_vm", somewhere)["log"], "", "{somewhere}");
    }
    assert!(
        std::fs::read_to_string(directory.path().join("log"))
            .unwrap()
            .contains(" ERROR ")
    );
}

/// What the last line of the log says about the call.
#[track_caller]
fn summary(answer: &Answer) -> Value {
    let last = answer.stderr.lines().last().unwrap();
    let (front, summary) = last.split_once(" call ").unwrap_or_else(|| panic!("{last}"));
    assert!(front.contains(" INFO "), "{last}");
    serde_json::from_str(summary).unwrap()
}

#[test]
fn each_call_ends_in_one_line_for_machines() {
    let call = |method: &str, arguments: Value| {
        let request = json!({"method": method, "arguments": arguments, "context": {"request_id": "cpi-7"}});
        send(request.to_string().as_bytes(), &config())
    };
    let answer = call("info", json!([]));
    let info = summary(&answer);
    assert!(info["duration_ms"].as_u64().unwrap() < 60_000, "{info}");
    let fields: Vec<&String> = info.as_object().unwrap().keys().collect();
    let expected = [
        "method",
        "outcome",
        "duration_ms",
        "error_type",
        "ok_to_retry",
        "request_id",
        "cids",
    ];
    assert_eq!(fields, expected);
    assert_eq!(
        (
            &info["method"],
            &info["outcome"],
            &info["request_id"],
            &info["error_type"],
            &info["cids"]
        ),
        (
            &json!("info"),
            &json!("ok"),
            &json!("cpi-7"),
            &Value::Null,
            &json!([])
        )
    );
    let failed = summary(&call("attach_disk", json!([VM, DISK])));
    assert_eq!(failed["outcome"], "error");
    assert_eq!(failed["error_type"], "Bosh::Clouds::CloudError");
    assert_eq!(failed["ok_to_retry"], true);
    assert_eq!(failed["cids"], json!([VM, DISK]));
    // Whatever came, there is one, and one only.
    let unknown = call("no_such_method", json!(["s3cret"]));
    assert_eq!(summary(&unknown)["error_type"], "Bosh::Clouds::NotImplemented");
    assert!(!unknown.stderr.contains("s3cret"), "{}", unknown.stderr);
    let no_request = send(b"{", &config());
    assert_eq!(summary(&no_request)["method"], Value::Null);
    for answer in [answer, unknown, no_request] {
        assert_eq!(answer.stderr.matches(" call {").count(), 1, "{}", answer.stderr);
    }
    let quiet = json!({"log_level": "WARN", "libvirt": {"socket": NOWHERE}});
    assert_eq!(send(br#"{"method":"info","arguments":[]}"#, &quiet).stderr, "");
}

#[test]
fn every_mistake_of_the_configuration_is_told_at_once_without_secrets() {
    let config = json!({"log_levl": "DEBUG", "libvirt": {"type": "carrier-pigeon", "password": {"s3cret": "s3cret"}},
        "settings": {"detach_timeout": -1}, "agent": {"mbus": ["s3cret"]}});
    let answer = send(br#"{"method":"info","arguments":[]}"#, &config);
    let everything = format!("{}{}", answer.response, answer.stderr);
    assert_eq!(answer.response["error"]["type"], "Bosh::Clouds::CpiError");
    for says in [
        "log_level",
        "libvirt.type",
        "libvirt.password",
        "settings.detach_timeout",
        "agent.mbus",
    ] {
        assert!(everything.contains(says), "{says} is not in {everything}");
    }
    assert!(!everything.contains("s3cret"), "{everything}");
}

#[test]
fn the_context_overlays_the_configuration() {
    let request = |context: Value| json!({"method": "info", "arguments": [], "context": context}).to_string();
    let context = json!({"director_uuid": "d", "request_id": "cpi-1", "stemcell": {"formats": ["openstack-raw"]},
        "libvirt": {"password": "s3cret", "unknown": 1}, "vm": {"stemcell": {"api_version": 3}}});
    let answer = send(request(context).as_bytes(), &config());
    assert_eq!(
        answer.response["result"]["stemcell_formats"],
        json!(["openstack-raw"])
    );
    assert!(!answer.stderr.contains("s3cret"));
    let wrong = send(request(json!({"stemcell": {"formats": 5}})).as_bytes(), &config());
    assert_eq!(wrong.response["error"]["type"], "Bosh::Clouds::CpiError");
}

#[test]
fn every_log_line_carries_the_request_id_and_no_text_fakes_one() {
    let config = json!({"log_level": "debug", "libvirt": {"socket": NOWHERE}});
    let request = json!({"method": "has_vm", "arguments": [VM], "context": {"request_id": "cpi-42\nFAKE"}});
    let answer = send(request.to_string().as_bytes(), &config);
    assert!(answer.stderr.lines().count() >= 2, "{}", answer.stderr);
    for line in answer.stderr.lines() {
        assert!(line.contains("[cpi-42\\nFAKE]"), "{line}");
    }
    let quiet = send(
        request.to_string().as_bytes(),
        &json!({"log_level": "none", "libvirt": {"socket": NOWHERE}}),
    );
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_configuration_that_is_not_there_is_a_response_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_cpi"))
        .args(["--config", "/no/such/cpi.json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child
                .stdin
                .take()
                .unwrap()
                .write_all(br#"{"method":"info","arguments":[]}"#)?;
            child.wait_with_output()
        })
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        response["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/no/such/cpi.json"),
        "{response}"
    );
}

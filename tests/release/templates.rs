//! The job's templates, rendered by real ERB as on a Director and in `bosh create-env`; what comes out goes to the CPI.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bosh::{render_job, response};
use crate::deployment::fixture;

fn rendered(properties: &Value) -> (TempDir, Value) {
    let directory = tempfile::tempdir().unwrap();
    render_job(properties, directory.path()).unwrap();
    let text = fs::read_to_string(directory.path().join("config/cpi.json")).unwrap();
    let config = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (directory, config)
}

/// What the CPI says to `request` with the rendered configuration.
fn cpi(directory: &TempDir, request: &Value) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cpi"));
    command
        .arg("--config")
        .arg(directory.path().join("config/cpi.json"));
    response(command.env_clear(), request)
}

fn minimal() -> Value {
    json!({"libvirt_cpi": {"agent": {"mbus": "nats://192.168.123.7:4222"}}})
}

fn pem(what: &str) -> String {
    format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n")
}

#[test]
fn the_minimal_manifest() {
    let (directory, config) = rendered(&minimal());
    assert_eq!(config["agent"]["mbus"], "nats://192.168.123.7:4222");
    assert_eq!(config["settings"]["storage_pool_name"], "default");
    let info = cpi(&directory, &json!({"method": "info", "arguments": []}));
    assert_eq!(info["result"]["stemcell_formats"], config["stemcell"]["formats"]);
}

#[test]
fn what_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for properties in [json!({}), json!({"libvirt_cpi": {"agent": {"mbus": null}}})] {
        let error = render_job(&properties, directory.path()).unwrap_err();
        assert!(
            error.contains("Can't find property 'libvirt_cpi.agent.mbus'"),
            "{error}"
        );
    }
    // A host may come from the cpi-config, so this one is for the CPI to notice.
    let mut properties = minimal();
    properties["libvirt_cpi"]["libvirt"] =
        json!({"type": "tls", "client": {"certificate": pem("CERTIFICATE")}});
    let (directory, _) = rendered(&properties);
    let answer = cpi(&directory, &json!({"method": "info", "arguments": []}));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("libvirt.host") && message.contains("libvirt.client.private_key"),
        "{message}"
    );
    let context = json!({"libvirt": {"host": "h", "client": {"private_key": pem("PRIVATE KEY")}}});
    let answer = cpi(
        &directory,
        &json!({"method": "info", "arguments": [], "context": context}),
    );
    assert_eq!(answer["error"], Value::Null);
}

#[test]
fn a_manifest_of_the_cpi_this_one_replaces() {
    let properties: Value =
        serde_json::from_str(&fs::read_to_string(fixture("older-properties.json")).unwrap()).unwrap();
    let (directory, config) = rendered(&properties);
    let given = &properties["libvirt_cpi"];
    for (section, key) in [
        ("settings", "vm_domain"),
        ("settings", "disk_device"),
        ("settings", "storage_volume"),
        ("settings", "manual_network_interface"),
        ("settings", "network_dhcp_ip"),
        ("libvirt", "port"),
        ("agent", "blobstore"),
        ("agent", "ntp"),
        ("throttle", "name"),
    ] {
        assert_eq!(config[section][key], given[section][key], "{section}.{key}");
    }
    // What the job does not know stays out, other jobs' properties too.
    assert_eq!(config["vm_ssh_key"], json!({"public_key": "ssh-rsa AAAA"}));
    assert_eq!(config["settings"].get("root_device"), None);
    assert_eq!(config.get("nats"), None);
    let info = cpi(&directory, &json!({"method": "info", "arguments": []}));
    assert_eq!(info["error"], Value::Null);
}

#[test]
fn values_come_through_as_they_are() {
    let odd = "<%= 1 %> \"quotes\" \\ ((no_variable)) {{.Name}} ünïcode\n\ttab \u{2028}";
    let mut properties = minimal();
    properties["libvirt_cpi"]["libvirt"] = json!({"password": odd});
    properties["libvirt_cpi"]["agent"]["blobstore"] = json!({"options": {odd: [1, true, null, {"a": odd}]}});
    let (_, config) = rendered(&properties);
    assert_eq!(config["libvirt"]["password"], odd);
    assert_eq!(
        config["agent"]["blobstore"]["options"],
        json!({odd: [1, true, null, {"a": odd}]})
    );
}

/// The script runs the package's executable with the job's configuration, wherever bosh put them; arguments, stdin,
/// stdout and exit code are the executable's own.
#[test]
fn bin_cpi_finds_package_and_job() {
    let directory = tempfile::Builder::new().prefix("with space ").tempdir().unwrap();
    let (packages, jobs) = (directory.path().join("packages"), directory.path().join("jobs"));
    let executable = packages.join("libvirt_cpi/bin/cpi");
    fs::create_dir_all(executable.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cpi"), &executable).unwrap();
    render_job(&minimal(), &jobs.join("libvirt_cpi")).unwrap();
    let script = jobs.join("libvirt_cpi/bin/cpi");
    let command = || {
        let mut command = Command::new(&script);
        command
            .env_clear()
            .env("BOSH_PACKAGES_DIR", &packages)
            .env("BOSH_JOBS_DIR", &jobs);
        command
    };
    let info = response(&mut command(), &json!({"method": "info", "arguments": []}));
    assert_eq!(info["result"]["api_version"], 3);
    let failed = response(
        &mut command(),
        &json!({"method": "no_such_method", "arguments": []}),
    );
    assert_eq!(failed["error"]["type"], "Bosh::Clouds::NotImplemented");
    let version = command().arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"cpi "), "{version:?}");
    let wrong = command().arg("--no-such-option").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));

    // Without the variables, as on a Director: there is nothing under /var/vcap here, and it says so.
    let nowhere = command().env_remove("BOSH_PACKAGES_DIR").output().unwrap();
    let stderr = String::from_utf8_lossy(&nowhere.stderr);
    assert!(
        stderr.contains("/var/vcap/packages/libvirt_cpi/bin/cpi"),
        "{stderr}"
    );
    assert_ne!(nowhere.status.code(), Some(0));
}

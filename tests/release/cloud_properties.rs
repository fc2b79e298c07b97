//! docs/CONFIG.md and docs/NETWORKING.md have exactly the cloud properties that the CPI takes, with their types: the CPI
//! itself names those it knows when it gets one that it does not, and says of each what it must be.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::bosh::{response, root};

/// Property and type of each row of the tables of properties between two headings.
type Properties = BTreeMap<String, String>;

fn documented(file: &str, from: &str, to: &str) -> Properties {
    let text = std::fs::read_to_string(root().join("docs").join(file)).unwrap();
    let (_, part) = text.split_once(&format!("\n{from}\n")).expect(from);
    let part = part
        .split_once(&format!("\n{to}\n"))
        .map_or(part, |(part, _)| part);
    part.split("\n\n")
        .filter(|block| block.contains("| Property | Type |"))
        .flat_map(|table| table.lines().filter(|line| line.starts_with("| `")))
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap().trim_start_matches("| ").replace('`', "");
            (name, cells.next().unwrap().to_owned())
        })
        .collect()
}

/// What the CPI says of a call with these cloud properties. They are looked at before a connection is made.
fn said(call: impl Fn(Value) -> (&'static str, Value), properties: Value) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cpi.json");
    std::fs::write(&path, r#"{"libvirt": {"socket": "/no/such/libvirt-sock"}}"#).unwrap();
    let (method, arguments) = call(properties);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cpi"));
    let answer = response(
        command.arg("--config").arg(&path).env_clear(),
        &json!({"method": method, "arguments": arguments, "api_version": 2}),
    );
    answer["error"]["message"].as_str().unwrap().to_owned()
}

/// Part of what the CPI says of a value of another type.
fn expected(documented_type: &str) -> String {
    let words = documented_type.split(',').next().unwrap();
    match words {
        "integer" => "must be a whole number from".to_owned(),
        "boolean" => "must be true or false".to_owned(),
        "object" => "must be an object".to_owned(),
        "boolean or integer" => "must be true, false or".to_owned(),
        choice if choice.starts_with('`') => {
            format!("must be one of {}", documented_type.replace('`', ""))
        }
        text if text.contains("string") => "must be a string".to_owned(),
        other => panic!("the type {other} is new to this test"),
    }
}

#[track_caller]
fn compare(call: impl Fn(Value) -> (&'static str, Value), documented: &Properties) {
    let message = said(&call, json!({"???": 1}));
    let (_, known) = message.split_once("known are ").expect(&message);
    let mut known: Vec<&str> = known.split(", ").collect();
    known.sort_unstable();
    assert_eq!(documented.keys().collect::<Vec<_>>(), known);
    for (name, documented_type) in documented {
        let message = said(&call, json!({name: []}));
        let expected = format!("{name} {}", expected(documented_type));
        assert!(message.contains(&expected), "{expected}: {message}");
    }
}

fn create_vm(properties: Value, of_network: Value) -> (&'static str, Value) {
    let networks = json!({"default": {"type": "dynamic", "cloud_properties": of_network}});
    let stemcell = "sc-00000000-0000-4000-8000-000000000000";
    (
        "create_vm",
        json!(["agent", stemcell, properties, networks, [], {}]),
    )
}

#[test]
fn of_vms() {
    let documented = documented("CONFIG.md", "### VMs", "### Persistent disks");
    compare(|properties| create_vm(properties, json!({})), &documented);
}

#[test]
fn of_disks() {
    let documented = documented("CONFIG.md", "### Persistent disks", "### Networks");
    compare(
        |properties| ("create_disk", json!([1, properties, null])),
        &documented,
    );
}

#[test]
fn of_networks() {
    let short = documented("CONFIG.md", "### Networks", "## No such heading");
    compare(|properties| create_vm(json!({}), properties), &short);
    let long = documented(
        "NETWORKING.md",
        "## Cloud properties of a network",
        "## Keeping VMs to their own addresses",
    );
    compare(|properties| create_vm(json!({}), properties), &long);
}

#[test]
fn of_networks_that_bosh_makes() {
    let mut documented = documented(
        "NETWORKING.md",
        "## Networks made by BOSH: create_network",
        "## No such heading",
    );
    // Those of their NICs stand there too.
    let of_nics = [
        ("model", "string"),
        ("mtu", "integer"),
        ("queues", "integer"),
        ("filter", "string"),
        ("bandwidth", "object"),
    ];
    documented.extend(of_nics.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    let definition =
        |properties: Value| json!({"type": "manual", "range": "10.0.0.0/24", "cloud_properties": properties});
    compare(
        |properties| ("create_network", json!([definition(properties)])),
        &documented,
    );
}

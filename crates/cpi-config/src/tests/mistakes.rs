//! Every kind of mistake, and how it reads.

use serde_json::{Value, json};

use super::{nested, refusal};

#[test]
fn mistakes_say_where_and_what() {
    let pem = "-----BEGIN CERTIFICATE-----";
    for (file, expected) in [
        (
            json!([]),
            "configuration /etc/cpi.json has 1 mistake: expected an object, got a list",
        ),
        (
            json!({"libvirt": "x"}),
            "libvirt: expected an object, got a string",
        ),
        (
            json!({"libvirt": {"client": []}}),
            "libvirt.client: expected an object, got a list",
        ),
        (
            json!({"libvirt": {"host": 5}}),
            "libvirt.host: expected a string, got 5",
        ),
        (
            json!({"libvirt": {"host": {"a": 1}}}),
            "libvirt.host: expected a string, got an object",
        ),
        (
            json!({"libvirt": {"host": "((h))"}}),
            "libvirt.host: the variable ((h)) was not interpolated",
        ),
        (
            json!({"libvirt": {"type": "tls", "host": "h/system?no_verify=1&x="}}),
            "libvirt.host: \"h/system?no_verify=1&x=\" is no host name or address",
        ),
        (
            json!({"libvirt": {"type": "ssh", "host": "-oProxyCommand=id"}}),
            "libvirt.host: \"-oProxyCommand=id\" is no host name or address",
        ),
        (
            json!({"libvirt": {"type": "ssh", "host": "h", "ssh": {"jump_host": "j -oProxyCommand=id"}}}),
            "libvirt.ssh.jump_host: \"j -oProxyCommand=id\" is not [USER@]HOST[:PORT], with commas between several",
        ),
        (
            json!({"libvirt": {"type": "ssh", "host": "h", "ssh": {"jump_host": "j,me@-oProxyCommand=id"}}}),
            "libvirt.ssh.jump_host: \"j,me@-oProxyCommand=id\" is not [USER@]HOST[:PORT], with commas between several",
        ),
        (
            json!({"libvirt": {"port": "((p))"}}),
            "libvirt.port: the variable ((p)) was not interpolated",
        ),
        (
            json!({"libvirt": {"password": "((p))"}}),
            "libvirt.password: a variable was not interpolated",
        ),
        (
            json!({"libvirt": "((l))"}),
            "libvirt: a variable was not interpolated",
        ),
        (
            json!({"agent": {"ntp": ["a", "((b))"]}}),
            "agent.ntp[1]: the variable ((b)) was not interpolated",
        ),
        (
            json!({"agent": {"blobstore": {"options": {"a": {"password": "((b))"}}}}}),
            "agent.blobstore.options.a.password: a variable was not interpolated",
        ),
        (
            json!({"agent": {"ntp": "pool"}}),
            "agent.ntp: expected a list of strings, got \"pool\"",
        ),
        (
            json!({"agent": {"ntp": ["a", 5]}}),
            "agent.ntp: expected a list of strings, but item 2 is 5",
        ),
        (
            json!({"agent": {"blobstore": {"options": 5}}}),
            "agent.blobstore.options: expected an object, got a number",
        ),
        (
            json!({"log_level": "loud"}),
            "log_level: expected one of NONE, ERROR, WARN, INFO, DEBUG, got \"loud\"",
        ),
        (
            json!({"libvirt": {"connect_timeout": 0}}),
            "connect_timeout: expected an integer from 1 to 300, got 0",
        ),
        (
            json!({"settings": {"detach_timeout": "5"}}),
            "detach_timeout: expected an integer from 1 to 3600, got \"5\"",
        ),
        (
            json!({"settings": {"network_dhcp": "yes"}}),
            "settings.network_dhcp: expected one of auto, always, never, got \"yes\"",
        ),
        (
            json!({"settings": {"vm_domain": 1}}),
            "settings.vm_domain: expected an XML template (a string), got 1",
        ),
        (
            json!({"settings": {"storage_pool_name": " "}}),
            "settings.storage_pool_name: must name a storage pool",
        ),
        (
            json!({"libvirt": {"type": "tls"}}),
            "libvirt.host: needed, because libvirt.type is tls",
        ),
        (
            json!({"libvirt": {"type": "SSH"}}),
            "libvirt.host: needed, because libvirt.type is ssh",
        ),
        (
            json!({"libvirt": {"type": "uri"}}),
            "libvirt.uri: needed, because libvirt.type is uri",
        ),
        (
            json!({"libvirt": {"client": {"certificate": pem}}}),
            "libvirt.client.private_key: needed",
        ),
        (
            json!({"libvirt": {"client": {"private_key": pem}}}),
            "libvirt.client.certificate: needed",
        ),
        (
            json!({"libvirt": {"server_ca": {"certificate": "/a/path"}}}),
            "libvirt.server_ca.certificate: not PEM",
        ),
        (
            json!({"stemcell": {"label": "config-drive", "config_drive_format": "vfat"}}),
            "stemcell.label: \"config-drive\" is 12 bytes long",
        ),
        (
            json!({"stemcell": {"label": " config-2"}}),
            "stemcell.label: \" config-2\" begins or ends with a space",
        ),
        (
            json!({"stemcell": {"label": "a/b", "config_drive_format": "vfat"}}),
            "stemcell.label: \"a/b\" has a /",
        ),
        (
            json!({"stemcell": {"label": "konfigü"}}),
            "has characters other than printable ASCII",
        ),
        (
            json!({"stemcell": {"type": "CDROM", "label": "x".repeat(33)}}),
            "is 33 bytes long; a label here has at most 32",
        ),
        (
            json!({"stemcell": {"metadata_path": "/a"}}),
            "stemcell.metadata_path: \"/a\" must be a relative path",
        ),
        (
            json!({"stemcell": {"userdata_path": "a/../b"}}),
            "stemcell.userdata_path: \"a/../b\" must be a relative",
        ),
        (
            json!({"settings": {"cpu_mode": "host passthrough"}}),
            "settings.cpu_mode: \"host passthrough\" is no name",
        ),
        (
            json!({"stemcell": {"filename": "a/"}}),
            "stemcell.filename: \"a/\" names a directory",
        ),
        (
            json!({"stemcell": {"filename": "a\nb"}}),
            "stemcell.filename: \"a\\nb\" has control characters",
        ),
        (
            json!({"stemcell": {"formats": []}}),
            "stemcell.formats: at least one",
        ),
        (
            json!({"stemcell": {"formats": ["iso"]}}),
            "stemcell.formats: \"iso\" is not one of openstack-qcow2, ",
        ),
        (
            json!({"throttle": {"name": "file-lock", "path": "lock"}}),
            "throttle.path: \"lock\" is not an absolute path",
        ),
        (
            json!({"settings": {"console_log_dir": "/var/log/libvirt/qemu/"}}),
            "settings.console_log_dir: /var/log/libvirt/qemu is where libvirt keeps QEMU's logs",
        ),
    ] {
        let message = refusal(file, json!({}));
        assert!(message.contains(expected), "{message}");
        assert!(
            message.starts_with("configuration /etc/cpi.json has 1 mistake: "),
            "{message}"
        );
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_known_one() {
    for (path, nearest) in [
        (
            "settings.storage_pol_name",
            "did you mean settings.storage_pool_name?",
        ),
        ("settings.pool_name", "did you mean settings.storage_pool_name?"),
        ("setings", "did you mean settings?"),
        ("loglevel", "did you mean log_level?"),
        ("network_name", "did you mean settings.network_name?"),
        (
            "libvirt.client.privat_key",
            "did you mean libvirt.client.private_key?",
        ),
        ("libvirt.server", "did you mean libvirt.server_ca?"),
        ("stemcell.format", "did you mean stemcell.formats?"),
        ("zzz", "the nearest known one is "),
    ] {
        let message = refusal(nested(path, Value::Null), json!({}));
        assert!(
            message.contains(&format!("{path}: unknown key; {nearest}")),
            "{message}"
        );
    }
    let message = refusal(json!({"libvirt.port": 1}), json!({}));
    assert!(
        message.contains("libvirt.port: unknown key; write it as"),
        "{message}"
    );
    let message = refusal(json!({"": 1}), json!({}));
    assert!(message.contains("1 mistake: \"\": unknown key; "), "{message}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let message = refusal(
        json!({"libvirt": {"type": "tcp", "hots": "h"}, "throttle": {"name": "off"}}),
        json!({"settings": {"machine": 3}}),
    );
    assert_eq!(
        message,
        "configuration /etc/cpi.json has 4 mistakes: (1) libvirt.hots: unknown key; did you mean libvirt.host?; \
         (2) throttle.name: expected one of noop, none, file-lock, got \"off\"; \
         (3) context: settings.machine: expected a string, got 3; \
         (4) libvirt.host: needed, because libvirt.type is tcp and libvirt.uri is not set"
    );
}

#[test]
fn a_faulty_key_has_no_consequences() {
    for file in [
        json!({"libvirt": {"type": "tcp", "host": 5}}),
        json!({"libvirt": {"type": "tcp", "host": ["((h))"]}}),
        json!({"libvirt": {"client": {"certificate": "-----BEGIN CERTIFICATE-----", "private_key": 5}}}),
    ] {
        let message = refusal(file, json!({}));
        assert!(message.contains("has 1 mistake: "), "{message}");
    }
}

#[test]
fn mistakes_in_context_are_named_as_such() {
    let message = refusal(json!({}), json!({"libvirt": {"port": "x"}, "settings": []}));
    assert!(
        message.contains("(1) context: libvirt.port: expected"),
        "{message}"
    );
    assert!(
        message.contains("(2) context: settings: expected an object, got a list"),
        "{message}"
    );
}

#[test]
fn long_values_are_cut() {
    let message = refusal(json!({"log_level": "é".repeat(500)}), json!({}));
    assert!(
        message.ends_with(&format!("got \"{}…\"", "é".repeat(60))),
        "{message}"
    );
    assert!(refusal(json!({"k".repeat(500): 1}), json!({})).len() < 300);
}

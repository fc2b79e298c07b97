use serde_json::{Map, Value, json};

use super::schema::{KEYS, Kind};
use super::*;
use bosh_cpi::rpc::ErrorType;

mod document;
mod mistakes;
mod random;

fn read(file: Value, context: Value) -> Result<Config> {
    let Value::Object(context) = context else {
        panic!("a context is an object")
    };
    Config::from_value("/etc/cpi.json", file, &context)
}

fn valid(file: Value) -> Config {
    read(file, json!({})).unwrap()
}

fn refusal(file: Value, context: Value) -> String {
    let error = read(file, context).expect_err("this configuration has mistakes");
    assert_eq!(error.error_type, ErrorType::CpiError);
    assert!(!error.ok_to_retry);
    error.message
}

/// `{"a": {"b": value}}` for `a.b`.
fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, name| {
        Value::Object(Map::from_iter([(name.to_owned(), inner)]))
    })
}

#[test]
fn an_empty_file_is_valid() {
    let config = valid(json!({}));
    assert_eq!(config.log_level, LogLevel::Info);
    assert_eq!(config.libvirt.libvirt_type, LibvirtType::Socket);
    assert_eq!(config.libvirt.connect_timeout, 10);
    assert_eq!(config.settings.storage_pool_name, "default");
    assert_eq!(config.settings.stemcell_pool(), "default");
    assert_eq!(config.settings.detach_timeout, 60);
    assert!(config.settings.wipe_block_volumes);
    assert_eq!(config.settings.network_dhcp, NetworkDhcp::Auto);
    assert_eq!(config.stemcell.formats.len(), 6);
    assert_eq!(config.stemcell.stemcell_type, None);
    assert_eq!((config.settings.disk_bus, config.settings.firmware), (None, None));
    assert!(config.agent.mbus.is_empty() && config.agent.blobstore.options.is_empty());
    assert_eq!(config.throttle.name, ThrottleName::Noop);
}

#[test]
fn every_default_passes_its_own_kind_and_changes_nothing() {
    let defaults = valid(json!({}));
    for key in KEYS {
        let default: Value = serde_json::from_str(key.default).unwrap();
        assert_eq!(
            key.kind.normalise(&default).as_ref(),
            Ok(&default),
            "{}",
            key.path
        );
        assert_eq!(valid(nested(key.path, default)), defaults, "{}", key.path);
    }
}

#[test]
fn every_choice_is_understood_in_any_case() {
    for key in KEYS {
        if let Kind::Choice(names) = key.kind {
            for name in names
                .iter()
                .flat_map(|name| [name.to_string(), name.to_lowercase(), name.to_uppercase()])
            {
                let mut file = nested(key.path, json!(name));
                if key.path == "libvirt.type" {
                    file["libvirt"]["uri"] = json!("qemu:///system");
                }
                valid(file);
            }
        }
    }
    assert_eq!(
        valid(json!({"throttle": {"name": "None"}})).throttle.name,
        ThrottleName::Noop
    );
    assert_eq!(
        valid(json!({"stemcell": {"type": "cdrom"}}))
            .stemcell
            .stemcell_type,
        Some(StemcellType::Cdrom)
    );
    assert_eq!("debug".parse(), Ok(LogLevel::Debug));
    assert!("loud".parse::<LogLevel>().is_err());
}

#[test]
fn what_was_a_switch_is_still_understood() {
    let network_dhcp = |value| {
        valid(json!({"settings": {"network_dhcp": value}}))
            .settings
            .network_dhcp
    };
    for (value, expected) in [
        (json!(true), NetworkDhcp::Always),
        (json!(false), NetworkDhcp::Never),
        (json!("never"), NetworkDhcp::Never),
    ] {
        assert_eq!(network_dhcp(value), expected);
    }
    let wrong = refusal(json!({"settings": {"domain_type": true}}), json!({}));
    assert!(wrong.contains("settings.domain_type: expected one of"), "{wrong}");
}

#[test]
fn ports_are_numbers_or_digits() {
    for (given, port) in [
        (json!(16509), "16509"),
        (json!("016514"), "16514"),
        (json!(""), ""),
    ] {
        assert_eq!(valid(json!({"libvirt": {"port": given}})).libvirt.port, port);
    }
    for wrong in [
        json!(0),
        json!(65536),
        json!(-1),
        json!(1.5),
        json!("+22"),
        json!("22 "),
        json!("http"),
    ] {
        let message = refusal(json!({"libvirt": {"port": wrong}}), json!({}));
        assert!(
            message.contains("libvirt.port: expected a port from 1 to 65535, got "),
            "{message}"
        );
    }
}

#[test]
fn context_overlays_the_file_key_by_key() {
    let config = read(
        json!({"libvirt": {"type": "tcp", "host": "one", "port": 1}, "agent": {"ntp": ["a", "b"],
               "blobstore": {"options": {"endpoint": "e", "tls": {"ca": "c", "key": "k"}}}}}),
        json!({"libvirt": {"host": "two", "port": null, "color": "red"}, "agent": {"ntp": ["c"],
               "blobstore": {"options": {"user": "u", "tls": {"key": "l", "ca": null}}}},
               "settings": null, "director_uuid": "d", "vm": {"stemcell": {"api_version": 3}}}),
    )
    .unwrap();
    assert_eq!(config.libvirt.libvirt_type, LibvirtType::Tcp);
    assert_eq!(
        (config.libvirt.host.as_str(), config.libvirt.port.as_str()),
        ("two", "1")
    );
    assert_eq!(config.agent.ntp, ["c"]);
    let options = json!({"endpoint": "e", "tls": {"ca": "c", "key": "l"}, "user": "u"});
    assert_eq!(
        Value::Object(config.agent.blobstore.options.expose().clone()),
        options
    );
}

#[test]
fn context_can_complete_the_file() {
    read(
        json!({"libvirt": {"type": "tcp"}}),
        json!({"libvirt": {"host": "h"}}),
    )
    .unwrap();
    let config = read(
        json!({"settings": {"stemcell_pool_name": "a"}}),
        json!({"log_level": "none"}),
    )
    .unwrap();
    assert_eq!(
        (config.log_level, config.settings.stemcell_pool()),
        (LogLevel::None, "a")
    );
}

#[test]
fn files_that_are_not_json_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cpi.json");
    let name = path.display().to_string();
    let load = || Config::load(&path, &Map::new());
    let message = load().unwrap_err().message;
    assert!(
        message.starts_with(&format!("configuration {name} can't be read: ")),
        "{message}"
    );
    std::fs::write(&path, "{\n  \"libvirt\": hunter2\n}").unwrap();
    let message = load().unwrap_err().message;
    assert!(
        message.starts_with(&format!("configuration {name} is not JSON: ")),
        "{message}"
    );
    assert!(
        message.contains("line 2 column 14") && !message.contains("hunter2"),
        "{message}"
    );
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(load().unwrap(), valid(json!({})));
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!(
        "{:?}",
        valid(json!({
            "libvirt": {"password": "hunter2",
                        "client": {"certificate": "-----BEGIN C", "private_key": "-----BEGIN hunter2"}},
            "agent": {"mbus": "nats://u:hunter2@h", "blobstore": {"options": {"password": "hunter2"}}}
        }))
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    for value in [
        json!("hunter2"),
        json!(["hunter2"]),
        json!({"hunter2": "hunter2"}),
        json!("((hunter2))"),
    ] {
        for key in KEYS.iter().filter(|key| key.kind.is_secret()) {
            if let Err(error) = read(nested(key.path, value.clone()), nested(key.path, value.clone())) {
                assert!(!error.message.contains("hunter2"), "{}", error.message);
            }
        }
        for section in ["libvirt", "libvirt.client", "agent", "libvirt.pasword"] {
            let file = match &value {
                Value::Object(_) => continue,
                other => nested(section, other.clone()),
            };
            let message = refusal(file, json!({}));
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}

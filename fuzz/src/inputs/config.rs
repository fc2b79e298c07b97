//! cpi.json, and a request's context over it.

use bosh_cpi::rpc::ErrorType;
use cpi_config::Config;
use serde_json::{Deserializer, Map, Value, json};

/// A file as an operator mends it: each mistake has its place in it.
pub fn run(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    match Config::check_text(text).expect("the keys' table fits the program") {
        Ok(config) => {
            let json = serde_json::from_str(text).expect("JSON, since it was read");
            assert_eq!(
                Config::from_value("cpi.json", json, &Map::new()).as_ref(),
                Ok(&config)
            );
            // Must not fail, nor show a secret.
            let shown = format!("{config:?}");
            let secret = config.libvirt.password.expose();
            assert!(secret.len() < 8 || text.matches(secret).count() > 1 || !shown.contains(secret));
            true
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                assert_is_one_line(&mistake.message);
                let (line, _) = mistake.position.unwrap_or((1, 1));
                assert!(
                    (1..=text.matches('\n').count() + 1).contains(&line),
                    "line {line}: {}",
                    mistake.message
                );
            }
            false
        }
    }
}

/// Two JSON documents one after the other: the file, and the context.
pub fn run_overlay(bytes: &[u8]) -> bool {
    let mut documents = Deserializer::from_slice(bytes).into_iter::<Value>();
    let (Some(Ok(file)), Some(Ok(Value::Object(context)))) = (documents.next(), documents.next()) else {
        return false;
    };
    match Config::from_value("cpi.json", file.clone(), &context) {
        Ok(config) => {
            // What the Director puts into the context besides changes nothing.
            let mut more = context;
            more.insert("director_uuid".to_owned(), json!({"any": ["thing"]}));
            assert_eq!(Config::from_value("cpi.json", file, &more).as_ref(), Ok(&config));
            true
        }
        Err(error) => {
            assert_eq!(error.error_type, ErrorType::CpiError);
            assert!(!error.ok_to_retry);
            assert_is_one_line(&error.message);
            false
        }
    }
}

fn assert_is_one_line(message: &str) {
    assert!(
        !message.is_empty() && !message.contains(['\n', '\r']),
        "{message:?}"
    );
}

fn file() -> Value {
    json!({
        "log_level": "debug",
        "libvirt": {"type": "tls", "host": "kvm1.example", "port": 16514, "password": "hunter2-hunter2",
            "client": {"certificate": "-----BEGIN CERTIFICATE-----\n", "private_key": "-----BEGIN PRIVATE KEY-----\n"},
            "server_ca": {"certificate": "-----BEGIN CERTIFICATE-----\n"}, "connect_timeout": 5},
        "settings": {"storage_pool_name": "p", "vm_domain": "<domain/>", "disk_bus": "SCSI", "cpu_mode": "host-model",
            "network_dhcp": false, "detach_timeout": 10, "console_log_dir": "/var/log/c", "graphics": "vnc"},
        "stemcell": {"formats": ["openstack-qcow2"], "type": "CDROM", "label": "config-2", "filename": "env",
            "metadata_path": "ec2/latest/meta-data.json"},
        "agent": {"mbus": "nats://u:p@h", "ntp": ["a", "b"],
            "blobstore": {"provider": "dav", "options": {"user": "u", "nested": {"x": [1]}}}},
        "throttle": {"name": "file-lock", "path": "/var/lock/l", "limit": 3, "timeout": 0},
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let lines = serde_json::to_string_pretty(&file()).unwrap_or_default();
    vec![
        b"{}".to_vec(),
        file().to_string().into_bytes(),
        lines.into_bytes(),
    ]
}

pub fn overlay_seeds() -> Vec<Vec<u8>> {
    let overlays = [
        json!({}),
        json!({"libvirt": {"type": "ssh", "host": "fd00::1", "username": "u"}, "request_id": "cpi-1"}),
        json!({"libvirt": {"uri": "qemu+tcp://h/system"}, "settings": {"storage_pool_name": "q", "firmware": null}}),
        json!({"agent": {"blobstore": {"options": {"nested": {"x": null, "y": 1}}}}, "stemcell": null}),
    ];
    overlays
        .into_iter()
        .map(|overlay| format!("{}\n{overlay}", file()).into_bytes())
        .collect()
}

//! Secrets out of what is shown: what is known to be none stays, everything else that could be one goes.

use serde_json::{Map, Value};

pub use libvirt_xml::masked as masked_xml;

/// In the place of a secret.
pub const MASK: &str = "(secret)";

/// Keys of `env.bosh` that name and configure, and hold no secret.
const PLAIN_IN_BOSH: &[&str] = &[
    "group",
    "groups",
    "tags",
    "job",
    "ipv6",
    "ntp",
    "swap_size",
    "keep_root_password",
    "remove_dev_tools",
    "remove_static_libraries",
    "dirs",
    "persistent_disk_fs",
    "parallel",
];

/// An agent's settings, with nothing in them that opens anything.
pub fn settings(settings: &Value) -> Value {
    let Value::Object(fields) = settings else {
        return all(settings);
    };
    let masked = fields.iter().map(|(key, value)| {
        let value = match key.as_str() {
            "agent_id" | "vm" | "ntp" | "networks" | "disks" => value.clone(),
            "blobstore" => blobstore(value),
            "env" => env(value),
            _ => all(value),
        };
        (key.clone(), value)
    });
    Value::Object(masked.collect())
}

fn blobstore(value: &Value) -> Value {
    only(value, |key, value| match key {
        "provider" | "name" => value.clone(),
        _ => all(value),
    })
}

/// The `env` of `create_vm`: whatever an operator or a release puts there.
pub fn env(value: &Value) -> Value {
    only(value, |key, value| match key {
        "bosh" => only(value, |key, value| {
            if PLAIN_IN_BOSH.contains(&key) {
                value.clone()
            } else {
                all(value)
            }
        }),
        _ => all(value),
    })
}

fn only(value: &Value, masked: impl Fn(&str, &Value) -> Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (key.clone(), masked(key, value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => all(other),
    }
}

/// The shape stays; texts and numbers go.
pub fn all(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(text) if text.is_empty() => value.clone(),
        Value::String(_) | Value::Number(_) => MASK.into(),
        Value::Array(items) => items.iter().map(all).collect(),
        Value::Object(_) => only(value, |_, value| all(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_show_what_is_no_secret() {
        let masked = settings(&json!({
            "agent_id": "a", "mbus": "nats://u:p@h", "ntp": ["n"], "vm": {"id": "vm-1"},
            "networks": {"default": {"ip": "10.0.0.5"}}, "disks": {"system": "/dev/vda"},
            "blobstore": {"provider": "dav", "options": {"user": "u", "tls": {"cert": {"ca": "CA"}}}},
            "env": {"bosh": {"password": "p", "group": "g", "mbus": {"urls": ["u"], "cert": {"private_key": "k"}},
                             "blobstores": [{"options": {"password": 5}}]}, "other": ["x", true, null, ""]},
            "trusted": "t",
        }));
        assert_eq!(
            masked,
            json!({
                "agent_id": "a", "mbus": MASK, "ntp": ["n"], "vm": {"id": "vm-1"},
                "networks": {"default": {"ip": "10.0.0.5"}}, "disks": {"system": "/dev/vda"},
                "blobstore": {"provider": "dav", "options": {"user": MASK, "tls": {"cert": {"ca": MASK}}}},
                "env": {"bosh": {"password": MASK, "group": "g", "mbus": {"urls": [MASK], "cert": {"private_key": MASK}},
                                 "blobstores": [{"options": {"password": MASK}}]}, "other": [MASK, true, null, ""]},
                "trusted": MASK,
            })
        );
    }
}

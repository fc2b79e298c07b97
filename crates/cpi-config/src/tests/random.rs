//! Whatever the JSON, the answer is a configuration or an error.

use proptest::prelude::*;
use serde_json::Value;

use super::super::schema::KEYS;
use super::{nested, read};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[(]{2}.*[)]{2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn any_known_key() -> impl Strategy<Value = Value> {
    (0..KEYS.len(), 0..3_usize, any_json()).prop_map(|(index, cut, value)| {
        let path: Vec<&str> = KEYS[index].path.split('.').collect();
        nested(&path[..path.len() - cut.min(path.len() - 1)].join("."), value)
    })
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(file in prop_oneof![any_json(), any_known_key()], context in any_known_key()) {
        let _ = read(file, context);
    }
}

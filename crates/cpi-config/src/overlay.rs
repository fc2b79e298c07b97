//! Lays one tree of settings over another, key by key, as the table in `schema.rs` knows them.

use serde_json::{Map, Value};

use super::mistakes::{Layer, Mistakes, shorten, type_name};
use super::schema::{KEYS, Key};

/// The tree of all keys with their defaults.
pub(super) fn defaults() -> serde_json::Result<Map<String, Value>> {
    let mut tree = Map::new();
    for key in KEYS {
        set(&mut tree, key.path, serde_json::from_str(key.default)?);
    }
    Ok(tree)
}

/// Lays `values` over `tree`: sections and free-form objects merge, everything else replaces, `null` leaves
/// what was there. A wrong value is noted and left out. Unknown keys are noted in the file and ignored in the
/// context, which carries the Director's own keys too.
pub(super) fn apply(
    tree: &mut Map<String, Value>,
    layer: Layer,
    values: &Map<String, Value>,
    mistakes: &mut Mistakes,
) {
    apply_section(tree, layer, "", values, mistakes);
}

/// The object that stands at `section` (`""`: the whole tree), or `None` and a mistake noted.
pub(super) fn section_at<'v>(
    layer: Layer,
    section: &str,
    value: &'v Value,
    mistakes: &mut Mistakes,
) -> Option<&'v Map<String, Value>> {
    if value.is_object() {
        return value.as_object();
    }
    // A section may hold secrets, so what was given in its place is not shown.
    let message = match find_variable(value) {
        Some(_) => "a variable was not interpolated".to_owned(),
        None => format!("expected an object, got {}", type_name(value)),
    };
    mistakes.add(layer, section, &message);
    None
}

fn apply_section(
    tree: &mut Map<String, Value>,
    layer: Layer,
    section: &str,
    values: &Map<String, Value>,
    mistakes: &mut Mistakes,
) {
    for (name, value) in values {
        let path = if section.is_empty() {
            name.clone()
        } else {
            format!("{section}.{name}")
        };
        let dotted = name.contains('.');
        if let Some(key) = KEYS.iter().find(|key| !dotted && key.path == path) {
            if !value.is_null() {
                apply_key(tree, layer, key, value, mistakes);
            }
        } else if !dotted && is_section(&path) {
            if !value.is_null()
                && let Some(values) = section_at(layer, &path, value, mistakes)
            {
                apply_section(tree, layer, &path, values, mistakes);
            }
        } else if layer == Layer::File {
            let shown = if path.is_empty() {
                "\"\"".to_owned()
            } else {
                shorten(&path)
            };
            mistakes.add(layer, &shown, &unknown(&path));
        }
    }
}

fn apply_key(tree: &mut Map<String, Value>, layer: Layer, key: &Key, value: &Value, mistakes: &mut Mistakes) {
    if let Some((place, variable)) = find_variable(value) {
        let which = if key.kind.is_secret() {
            "a variable".to_owned()
        } else {
            format!("the variable {}", shorten(variable))
        };
        return mistakes.add(
            layer,
            &format!("{}{place}", key.path),
            &format!("{which} was not interpolated"),
        );
    }
    match key.kind.normalise(value) {
        Ok(value) => set(tree, key.path, value),
        Err(message) => mistakes.add(layer, key.path, &message),
    }
}

fn set(tree: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        Some((head, rest)) => {
            if let Value::Object(inner) = tree.entry(head).or_insert_with(|| Value::Object(Map::new())) {
                set(inner, rest, value);
            }
        }
        None => match (tree.get_mut(path), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                tree.insert(path.to_owned(), value);
            }
        },
    }
}

fn merge(old: &mut Map<String, Value>, new: Map<String, Value>) {
    for (name, value) in new {
        match (old.get_mut(&name), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                old.insert(name, value);
            }
        }
    }
}

/// The first string in `value` that is nothing but `((a variable))`, and where: `""`, `[0]`, `.password`.
fn find_variable(value: &Value) -> Option<(String, &str)> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            let name = text.strip_prefix("((")?.strip_suffix("))")?;
            (!name.is_empty() && !name.contains(['(', ')', '\n'])).then(|| (String::new(), text))
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            find_variable(item).map(|(place, variable)| (format!("[{index}]{place}"), variable))
        }),
        Value::Object(object) => object.iter().find_map(|(name, item)| {
            find_variable(item).map(|(place, variable)| (format!(".{}{place}", shorten(name)), variable))
        }),
        _ => None,
    }
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn unknown(path: &str) -> String {
    let (nearest, likeness) = nearest(path);
    if nearest == path {
        // A flat `"libvirt.port": 1` looks right in a message, so say what is wrong with it.
        format!(
            "unknown key; write it as an object in an object: {{\"{}\"}}",
            nearest.replace('.', "\": {\"")
        )
    } else if likeness >= 0.6 {
        format!("unknown key; did you mean {nearest}?")
    } else {
        format!("unknown key; the nearest known one is {nearest}")
    }
}

/// The key or section most like `path`, and how like it is (1.0: the same).
fn nearest(path: &str) -> (&'static str, f64) {
    let mut sections: Vec<&str> = KEYS
        .iter()
        .flat_map(|key| key.path.match_indices('.').map(|(end, _)| &key.path[..end]))
        .collect();
    sections.dedup();
    KEYS.iter()
        .map(|key| key.path)
        .chain(sections)
        .map(|known| (known, likeness(path, known)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or_default()
}

fn likeness(path: &str, known: &str) -> f64 {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let (known_section, known_name) = known.rsplit_once('.').unwrap_or(("", known));
    // The section is spelled right or it would have been reported in the key's place, so the name decides.
    let names = strsim::normalized_damerau_levenshtein(name, known_name);
    let partial = name.len() >= 4 && (known_name.contains(name) || name.contains(known_name));
    let by_name = if partial { (names + 1.0) / 2.0 } else { names };
    match (path == known, section == known_section) {
        (true, _) => 1.0,
        (false, true) => by_name,
        (false, false) => strsim::normalized_damerau_levenshtein(path, known).max(by_name) * 0.9,
    }
}

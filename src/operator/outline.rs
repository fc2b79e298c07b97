//! JSON as an outline for people: `key: value`, what belongs to a key beneath it.

use serde_json::Value;

use crate::logging::on_one_line;
use crate::measures::size;
use crate::xml::element::{Element, Node};

/// Renders an object. Numbers under a key that ends in `_bytes` are shown as sizes, texts of several lines as they are.
pub fn render(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let (key, shown) = match (key.strip_suffix("_bytes"), value.as_u64()) {
                    (Some(name), Some(bytes)) => (name, Some(size(bytes))),
                    _ => (key.as_str(), scalar(value)),
                };
                let key = on_one_line(key);
                match shown {
                    Some(shown) => out.push_str(&format!("{indent}{key}: {shown}\n")),
                    None => {
                        out.push_str(&format!("{indent}{key}:\n"));
                        write(value, depth + 1, out);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut text = String::new();
                write(item, depth + 1, &mut text);
                // The first line of an item carries the dash.
                out.push_str(&format!("{indent}- {}", text.trim_start()));
            }
        }
        Value::String(text) if text.contains('\n') => {
            for line in text.lines() {
                out.push_str(&format!("{indent}{}\n", on_one_line(line)));
            }
        }
        other => out.push_str(&format!("{indent}{}\n", scalar(other).unwrap_or_default())),
    }
}

/// What fits behind a key; None for what goes beneath it.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("-".to_owned()),
        Value::Bool(true) => Some("yes".to_owned()),
        Value::Bool(false) => Some("no".to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if text.is_empty() => Some("-".to_owned()),
        Value::String(text) if !text.contains('\n') => Some(on_one_line(text)),
        Value::String(_) => None,
        Value::Array(items) if items.is_empty() => Some("-".to_owned()),
        Value::Object(fields) if fields.is_empty() => Some("-".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// XML with each element on a line of its own.
pub fn xml(element: &Element) -> String {
    let mut text = String::new();
    write_xml(element, 0, &mut text);
    text
}

fn write_xml(element: &Element, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    if element.elements().next().is_none() {
        out.push_str(&format!("{indent}{element}\n"));
        return;
    }
    let mut start = element.clone();
    start.children.clear();
    let start = start.to_string();
    out.push_str(&format!("{indent}{}>\n", start.trim_end_matches("/>")));
    for child in &element.children {
        match child {
            Node::Element(child) => write_xml(child, depth + 1, out),
            Node::Text(text) => out.push_str(&format!("{indent}  {}\n", text.trim())),
        }
    }
    out.push_str(&format!("{indent}</{}>\n", element.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_outline_is_read_from_top_to_bottom() {
        let value = json!({"cid": "vm-1", "size_bytes": 1536, "none": null, "flag": true,
            "list": [{"a": 1, "b": "x\u{1b}"}, "y"], "object": {"k": []}, "text": "1\n2\n"});
        assert_eq!(
            render(&value),
            "cid: vm-1\nsize: 1.5K\nnone: -\nflag: yes\nlist:\n  - a: 1\n    b: x\\u{1b}\n  - y\nobject:\n  k: -\n\
             text:\n  1\n  2\n"
        );
    }

    #[test]
    fn xml_is_laid_out() {
        let element = Element::parse("<a x='1'><b/><c>t</c><d><e/></d></a>").unwrap();
        assert_eq!(
            xml(&element),
            "<a x='1'>\n  <b/>\n  <c>t</c>\n  <d>\n    <e/>\n  </d>\n</a>\n"
        );
    }
}

//! JSON as an outline for people: `key: value`, what belongs to a key beneath it.

use serde_json::Value;

use bosh_cpi::logging::on_one_line;
use bosh_cpi::measures::size;
use libvirt_xml::characters::{escape_attribute, escape_text};
use libvirt_xml::element::{Element, Node};

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

/// XML with each element on a line of its own, and attributes on further ones where that gets wider than `width`.
pub fn xml(element: &Element, width: usize) -> String {
    let mut text = String::new();
    write_xml(element, 0, width, &mut text);
    text
}

fn write_xml(element: &Element, depth: usize, width: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    out.push_str(&indent);
    if element.elements().next().is_some() {
        write_tag(element, &indent, ">", width, out);
        for child in &element.children {
            match child {
                Node::Element(child) => write_xml(child, depth + 1, width, out),
                Node::Text(text) => out.push_str(&format!("{indent}  {}\n", escape_text(text.trim()))),
            }
        }
        out.push_str(&format!("{indent}</{}>\n", element.name));
        return;
    }
    let text = element.text();
    let end = match text.trim() {
        "" => "/>".to_owned(),
        _ => format!(">{}</{}>", escape_text(&text), element.name),
    };
    write_tag(element, &indent, &end, width, out);
}

/// The element's start, with what follows it on the line.
fn write_tag(element: &Element, indent: &str, end: &str, width: usize, out: &mut String) {
    let start = format!("<{}", element.name);
    let mut used = indent.len() + start.len();
    out.push_str(&start);
    let last = element.attributes.len().saturating_sub(1);
    for (number, (name, value)) in element.attributes.iter().enumerate() {
        let attribute = format!("{name}='{}'", escape_attribute(value));
        let length = attribute.chars().count();
        let behind = if number == last { end.chars().count() } else { 0 };
        let fits_below = indent.len() + 4 + length + behind <= width;
        if used + 1 + length + behind > width && (number > 0 || fits_below) {
            out.push_str(&format!("\n{indent}    "));
            used = indent.len() + 4;
        } else {
            out.push(' ');
            used += 1;
        }
        out.push_str(&attribute);
        used += length;
    }
    out.push_str(end);
    out.push('\n');
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
            xml(&element, usize::MAX),
            "<a x='1'>\n  <b/>\n  <c>t</c>\n  <d>\n    <e/>\n  </d>\n</a>\n"
        );
        let element =
            Element::parse("<a one='1' two='2&lt;' three='3'><b> \n</b><c one='1' two='2'>&lt;t</c></a>")
                .unwrap();
        assert_eq!(
            xml(&element, 20),
            "<a one='1'\n    two='2&lt;'\n    three='3'>\n  <b/>\n  <c one='1'\n      two='2'>&lt;t</c>\n</a>\n"
        );
        for width in [1, 20, 40, usize::MAX] {
            // What is shown can be given to virsh.
            let shown = Element::parse(&xml(&element, width)).unwrap();
            assert_eq!(
                shown.to_string(),
                element.to_string().replace("<b> \n</b>", "<b/>")
            );
        }
    }
}

//! The operator's XML templates: the seed's `{{.Name}}` placeholders, filled with escaped values.

use super::characters::escape_attribute;
use super::element::Element;
use bosh_cpi::rpc::{Error, Result};

/// Bytes; libvirt takes no longer text.
const MOST_RENDERED: usize = 4 * 1024 * 1024;

/// Renders the template of one configuration property and parses what comes out.
///
/// `property` is the configuration key (`settings.vm_domain`), for messages. `values` are the placeholders
/// that this template knows.
///
/// # Errors
/// `CpiError` naming the property and the unknown placeholder, or what is wrong with the syntax or the XML.
pub fn render(property: &str, template: &str, values: &[(&str, &str)]) -> Result<Element> {
    let wrong = |what: String| Error::cpi(format!("template {property}: {what}"));
    let text = fill(template, values).map_err(wrong)?;
    Element::parse(&text).map_err(|e| wrong(format!("what it renders to is {e}")))
}

/// The template with its placeholders filled. What a value brings is text, whatever it looks like.
fn fill(template: &str, values: &[(&str, &str)]) -> std::result::Result<String, String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (before, from_here) = rest.split_at(at);
        let Some(placeholder) = Placeholder::at_start_of(from_here) else {
            let shown: String = from_here.chars().take(40).collect();
            return Err(format!(
                "cannot fill {shown:?}; placeholders look like {{{{.Name}}}}"
            ));
        };
        let value = values
            .iter()
            .find(|(name, _)| *name == placeholder.name)
            .map(|(_, value)| escape_attribute(value))
            .ok_or_else(|| unknown(placeholder.name, values))?;
        out.push_str(if placeholder.trims_before {
            before.trim_end()
        } else {
            before
        });
        if out.len() + value.len() > MOST_RENDERED {
            return Err(format!(
                "it renders to more than {MOST_RENDERED} bytes, which libvirt does not take"
            ));
        }
        out.push_str(&value);
        rest = placeholder.rest;
    }
    out.push_str(rest);
    Ok(out)
}

/// `{{.Name}}`; Go also allows `{{ .Name }}` and the trimming form `{{- .Name -}}`. Its other actions, such as
/// `{{if ...}}`, are none here.
struct Placeholder<'a> {
    name: &'a str,
    trims_before: bool,
    /// What follows, trimmed where that was asked for.
    rest: &'a str,
}

impl<'a> Placeholder<'a> {
    fn at_start_of(text: &'a str) -> Option<Self> {
        let (inner, rest) = text.strip_prefix("{{")?.split_once("}}")?;
        let before = inner.strip_prefix("- ");
        let inner = before.unwrap_or(inner);
        let after = inner.strip_suffix(" -");
        let name = after.unwrap_or(inner).trim().strip_prefix('.')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then_some(Self {
            name,
            trims_before: before.is_some(),
            rest: if after.is_some() { rest.trim_start() } else { rest },
        })
    }
}

fn unknown(name: &str, values: &[(&str, &str)]) -> String {
    let known: Vec<String> = values
        .iter()
        .map(|(name, _)| format!("{{{{.{name}}}}}"))
        .collect();
    format!(
        "unknown placeholder {{{{.{name}}}}}; it knows {}",
        known.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(template: &str) -> Result<String> {
        render("settings.x", template, &[("Name", "a<b>&'c'"), ("Size", "5")]).map(|e| e.to_string())
    }

    #[test]
    fn fills_every_go_spelling_of_a_placeholder() {
        for template in [
            "<v><n>{{.Name}}</n><s>{{.Size}}</s></v>",
            "<v><n>{{ .Name }}</n><s>{{ .Size}}</s></v>",
            "<v>\n<n> {{- .Name -}} </n>\n<s>{{.Size }}</s></v>",
        ] {
            assert_eq!(
                text_of(template).unwrap(),
                "<v><n>a&lt;b&gt;&amp;'c'</n><s>5</s></v>",
                "{template}"
            );
        }
        assert_eq!(
            text_of("<v a='{{.Name}}{% x %}{# y #}'/>")
                .unwrap()
                .matches("{% x %}{# y #}")
                .count(),
            1
        );
    }

    #[test]
    fn values_are_text_whatever_they_look_like() {
        for value in [
            "{{.Size}}",
            "{{ 7*7 }}{% x %}",
            "</v><x y='z'/>",
            "&amp;]]>\"'",
            "a\nb\r\tc",
        ] {
            let read = render("settings.x", "<v a='{{.Name}}'>{{.Name}}</v>", &[("Name", value)]).unwrap();
            assert_eq!(read.attribute("a"), Some(value));
            assert_eq!(read.text(), value);
        }
    }

    #[test]
    fn what_it_renders_to_is_bounded() {
        let name = "n".repeat(100_000);
        let template = format!("<v>{}</v>", "{{.Name}}".repeat(1000));
        let message = render("settings.x", &template, &[("Name", &name)])
            .unwrap_err()
            .message;
        assert!(
            message.contains("it renders to more than 4194304 bytes"),
            "{message}"
        );
    }

    #[test]
    fn mistakes_name_the_property_and_the_placeholder() {
        for (template, expected) in [
            ("<v>{{.Nmae}}</v>", "unknown placeholder {{.Nmae}}"),
            ("<v>{{Name}}</v>", "cannot fill"),
            ("<v>{{if eq .Name 1}}</v>", "cannot fill"),
            ("<v>{{.Name</v>", "cannot fill"),
            ("<v>{{.}}</v>", "cannot fill"),
            // No expressions: this one would be a million times the name.
            ("<v>{{.Name * 1000000}}</v>", "cannot fill"),
            ("<v>{{.[1, 2]}}</v>", "cannot fill"),
            (
                "<v>{{.true}}</v>",
                "unknown placeholder {{.true}}; it knows {{.Name}} {{.Size}}",
            ),
            ("<v>{{.Name}}", "not well-formed XML"),
            ("{{.Name}}", "not well-formed XML"),
            ("", "not well-formed XML"),
        ] {
            let message = text_of(template).unwrap_err().message;
            assert!(message.starts_with("template settings.x: "), "{message}");
            assert!(message.contains(expected), "{template}: {message}");
        }
    }
}

//! The operator's XML templates: the seed's `{{.Name}}` placeholders, filled with escaped values.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use quick_xml::escape::escape;

use super::element::Element;
use crate::rpc::{Error, Result};

/// Renders the template of one configuration property and parses what comes out.
///
/// `property` is the configuration key (`settings.vm_domain`), for messages. `values` are the placeholders
/// that this template knows.
///
/// # Errors
/// `CpiError` naming the property and the unknown placeholder, or what is wrong with the syntax or the XML.
pub fn render(property: &str, template: &str, values: &[(&str, &str)]) -> Result<Element> {
    let wrong = |what: String| Error::cpi(format!("template {property}: {what}"));
    let template = in_one_spelling(template);
    if let Some(at) = foreign_action(&template) {
        let shown: String = template[at..].chars().take(40).collect();
        return Err(wrong(format!(
            "cannot fill {shown:?}; placeholders look like {{{{.Name}}}}"
        )));
    }
    let mut environment = Environment::new();
    environment.set_syntax(syntax().map_err(|e| wrong(e.to_string()))?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_formatter(|out, _state, value| {
        if value.is_undefined() {
            return Err(minijinja::Error::from(ErrorKind::UndefinedError));
        }
        let text = value.to_string();
        out.write_str(&escape(text.as_str()))
            .map_err(minijinja::Error::from)
    });
    let compiled = environment
        .template_from_str(&template)
        .map_err(|e| wrong(format!("{e}; placeholders look like {{{{.Name}}}}")))?;
    let known: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let mut unknown: Vec<String> = compiled
        .undeclared_variables(false)
        .into_iter()
        .filter(|name| !known.contains(&name.as_str()))
        .collect();
    unknown.sort();
    if let Some(name) = unknown.first() {
        return Err(wrong(format!(
            "unknown placeholder {{{{.{name}}}}}; it knows {}",
            known
                .iter()
                .map(|k| format!("{{{{.{k}}}}}"))
                .collect::<Vec<_>>()
                .join(" ")
        )));
    }
    let context = Value::from_pairs(values.iter().copied());
    let text = compiled.render(context).map_err(|e| wrong(e.to_string()))?;
    Element::parse(&text).map_err(|e| wrong(format!("what it renders to is {e}")))
}

/// Go's placeholders start with `{{.`; nothing else in an XML template means anything to the engine.
fn syntax() -> std::result::Result<SyntaxConfig, minijinja::Error> {
    SyntaxConfig::builder()
        .variable_delimiters("{{.", "}}")
        .block_delimiters("{{%", "%}}")
        .comment_delimiters("{{/*", "*/}}")
        .build()
}

/// Where the first `{{` stands that opens no plain placeholder, such as Go's `{{if …}}`.
fn foreign_action(template: &str) -> Option<usize> {
    template
        .match_indices("{{")
        .map(|(at, _)| at)
        .find(|at| !template[at + 2..].starts_with('.'))
}

/// Go also allows `{{ .Name }}` and the trimming form `{{- .Name -}}`.
fn in_one_spelling(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let trimming = after.starts_with("- ");
        let inner = after
            .strip_prefix('-')
            .filter(|_| trimming)
            .unwrap_or(after)
            .trim_start();
        out.push_str(if trimming { before.trim_end() } else { before });
        out.push_str("{{");
        rest = if inner.starts_with('.') { inner } else { after };
        if let Some(end) = rest.find("}}").filter(|_| rest.starts_with('.')) {
            let (name, tail) = (rest[..end].trim_end(), &rest[end + 2..]);
            let trimming = name.strip_suffix(" -");
            out.push_str(trimming.unwrap_or(name).trim_end());
            out.push_str("}}");
            rest = if trimming.is_some() {
                tail.trim_start()
            } else {
                tail
            };
        }
    }
    out.push_str(rest);
    out
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
    fn mistakes_name_the_property_and_the_placeholder() {
        for (template, expected) in [
            ("<v>{{.Nmae}}</v>", "unknown placeholder {{.Nmae}}"),
            ("<v>{{Name}}</v>", "cannot fill"),
            ("<v>{{if eq .Name 1}}</v>", "cannot fill"),
            ("<v>{{.Name</v>", "settings.x"),
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

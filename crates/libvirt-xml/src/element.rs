//! A small element tree over quick-xml: parse, look, change, write.
//!
//! Comments, processing instructions and the white space between elements are dropped: libvirt
//! does not keep them either.

use std::fmt;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::characters::{as_name, escape_attribute, escape_text, is_representable};

/// Deeper documents are refused; libvirt's own are about ten levels deep.
const MAX_DEPTH: usize = 64;

/// Why a text is not an XML document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not well-formed XML at byte {position}: {reason}")]
pub struct ParseError {
    pub position: u64,
    pub reason: String,
}

/// One element with its attributes and children, in document order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            attributes: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Parses a document with exactly one root element.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().check_end_names = true;
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        loop {
            let position = reader.buffer_position();
            let event = reader
                .read_event()
                .map_err(|e| error(reader.error_position(), e))?;
            let closed = match event {
                Event::Start(_) if open.len() >= MAX_DEPTH => {
                    return Err(error(position, "nested too deeply"));
                }
                Event::Start(start) => {
                    open.push(element_of(&start).map_err(|e| error(position, e))?);
                    continue;
                }
                Event::Empty(start) => element_of(&start).map_err(|e| error(position, e))?,
                Event::End(_) => match open.pop() {
                    Some(mut element) => {
                        element.drop_white_space_between_children();
                        element
                    }
                    None => return Err(error(position, "an end tag without a start tag")),
                },
                Event::Eof => break,
                Event::Text(text) => {
                    push_text(&mut open, &text.xml10_content()).map_err(|e| error(position, e))?;
                    continue;
                }
                Event::CData(text) => {
                    push_text(&mut open, &text.xml10_content()).map_err(|e| error(position, e))?;
                    continue;
                }
                Event::GeneralRef(reference) => {
                    let text = resolve(&reference).map_err(|e| error(position, e))?;
                    push_text(&mut open, &text).map_err(|e| error(position, e))?;
                    continue;
                }
                Event::DocType(_) => return Err(error(position, "a DOCTYPE is not allowed")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
            };
            match open.last_mut() {
                Some(parent) => parent.children.push(Node::Element(closed)),
                None if root.is_some() => return Err(error(position, "more than one root element")),
                None => root = Some(closed),
            }
        }
        if let Some(unclosed) = open.last() {
            return Err(error(
                reader.buffer_position(),
                format!("<{}> is not closed", unclosed.name),
            ));
        }
        root.ok_or_else(|| error(reader.buffer_position(), "no element"))
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Sets or replaces an attribute.
    pub fn set_attribute(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((name.to_owned(), value)),
        }
    }

    pub fn remove_attribute(&mut self, name: &str) {
        self.attributes.retain(|(key, _)| key != name);
    }

    /// `self` with one more attribute.
    #[must_use]
    pub fn with_attribute(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set_attribute(name, value);
        self
    }

    /// `self` with one more child at the end.
    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.push(child);
        self
    }

    /// `self` with this text as its only content.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.set_text(text);
        self
    }

    pub fn push(&mut self, child: Element) {
        self.children.push(Node::Element(child));
    }

    /// Replaces all content by this text.
    pub fn set_text(&mut self, text: impl Into<String>) {
        self.children = vec![Node::Text(text.into())];
    }

    /// The element's own text, child elements left out.
    pub fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|node| match node {
                Node::Text(text) => Some(text.as_str()),
                Node::Element(_) => None,
            })
            .collect()
    }

    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    pub fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.children.iter_mut().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The child elements of this name.
    pub fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.elements().filter(move |element| element.name == name)
    }

    /// The first child element of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.elements().find(|element| element.name == name)
    }

    pub fn child_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.elements_mut().find(|element| element.name == name)
    }

    /// The first child element of this name, appended when there is none.
    pub fn child_or_new(&mut self, name: &str) -> &mut Element {
        let position = self
            .children
            .iter()
            .position(|node| matches!(node, Node::Element(element) if element.name == name))
            .unwrap_or_else(|| {
                self.push(Element::new(name));
                self.children.len() - 1
            });
        match &mut self.children[position] {
            Node::Element(element) => element,
            Node::Text(_) => unreachable!("position() found an element"),
        }
    }

    /// Follows child elements by name: `descend(&["devices", "emulator"])`.
    pub fn descend(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// Removes every child element of this name.
    pub fn remove_children(&mut self, name: &str) {
        self.children
            .retain(|node| !matches!(node, Node::Element(element) if element.name == name));
    }

    fn drop_white_space_between_children(&mut self) {
        if self.elements().next().is_some() {
            self.children
                .retain(|node| !matches!(node, Node::Text(text) if text.trim().is_empty()));
        }
    }
}

impl fmt::Display for Element {
    /// Writes the element without white space between elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}='{}'", escape_attribute(value))?;
        }
        if self.children.is_empty() {
            return write!(f, "/>");
        }
        write!(f, ">")?;
        for node in &self.children {
            match node {
                Node::Element(element) => write!(f, "{element}")?,
                Node::Text(text) => write!(f, "{}", escape_text(text))?,
            }
        }
        write!(f, "</{}>", self.name)
    }
}

fn element_of(start: &BytesStart<'_>) -> Result<Element, String> {
    let mut element = Element::new(as_name(start.name().as_ref())?);
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|e| e.to_string())?;
        let name = as_name(attribute.key.as_ref())?.to_owned();
        if !is_representable(&value) {
            return Err(format!("the value of {name} {NO_CHARACTER}"));
        }
        element.attributes.push((name, value.into_owned()));
    }
    Ok(element)
}

const NO_CHARACTER: &str = "has a character that XML does not know";

fn resolve(reference: &BytesRef<'_>) -> Result<String, String> {
    if let Some(c) = reference.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(c.to_string());
    }
    let name = reference.xml10_content();
    resolve_predefined_entity(&name)
        .map(str::to_owned)
        .ok_or_else(|| format!("unknown entity &{name};"))
}

fn push_text(open: &mut [Element], text: &str) -> Result<(), &'static str> {
    match open.last_mut() {
        Some(_) if !is_representable(text) => Err("a text has a character that XML does not know"),
        Some(parent) => {
            match parent.children.last_mut() {
                Some(Node::Text(last)) => last.push_str(text),
                _ => parent.children.push(Node::Text(text.to_owned())),
            }
            Ok(())
        }
        None if text.trim().is_empty() => Ok(()),
        None => Err("text outside the root element"),
    }
}

fn error(position: u64, reason: impl fmt::Display) -> ParseError {
    ParseError {
        position,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_what_libvirt_writes() {
        let text = "<?xml version='1.0'?>\n<domain type='qemu'>\n  <!-- note -->\n  <name>a &amp; b&#x21;</name>\n  <on_crash/>\n</domain>\n";
        let domain = Element::parse(text).unwrap();
        assert_eq!(domain.child("name").unwrap().text(), "a & b!");
        assert_eq!(
            domain.to_string(),
            "<domain type='qemu'><name>a &amp; b!</name><on_crash/></domain>"
        );
    }

    #[test]
    fn refuses_what_is_not_one_document() {
        for text in [
            "",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a>&nope;</a>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<\t/>",
            "<a\u{1e}b='c'/>",
            "<a'/>",
            "<1/>",
            "<a b\0='c'/>",
            "<a>\u{1}</a>",
            "<a>&#1;</a>",
            "<a b='&#x1e;'/>",
        ] {
            assert!(Element::parse(text).is_err(), "{text} was accepted");
        }
        assert!(Element::parse(&"<a>".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_representable_text_survives(value in "\\PC*|[<>&'\"\n\r\t ]*", text in "\\PC*|[<>&'\"\n\r\t ]*") {
            prop_assume!(is_representable(&value) && is_representable(&text));
            let element = Element::new("a").with_attribute("b", value).with_child(Element::new("c").with_text(text));
            let read = Element::parse(&element.to_string()).unwrap();
            prop_assert_eq!(read.attribute("b"), element.attribute("b"));
            prop_assert_eq!(read.child("c").unwrap().text(), element.child("c").unwrap().text());
        }

        #[test]
        fn no_input_panics(text in "[<>&;/='\"a-c!\\[\\]\\- ]{0,60}") {
            let _ = Element::parse(&text);
        }
    }
}

//! What XML can hold, and how it is written.

use quick_xml::escape::{escape, partial_escape};

/// Attribute values lose line breaks and tabs to normalisation unless they are written as references. Good for text too.
pub fn escape_attribute(value: &str) -> String {
    escape(value)
        .replace('\n', "&#10;")
        .replace('\r', "&#13;")
        .replace('\t', "&#9;")
}

/// A carriage return in text would come back as a line feed.
pub fn escape_text(text: &str) -> String {
    partial_escape(text).replace('\r', "&#13;")
}

/// Whether XML 1.0 can hold this text at all, escaped or not.
pub fn is_representable(text: &str) -> bool {
    text.chars().all(
        |c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..),
    )
}

/// Quick-xml takes whatever stands where a name should.
pub fn as_name(text: &str) -> Result<&str, String> {
    let starts_one = |c: char| c.is_alphabetic() || c == '_' || c == ':';
    let is_name = text.starts_with(starts_one)
        && text
            .chars()
            .all(|c| starts_one(c) || c.is_numeric() || matches!(c, '-' | '.' | '\u{b7}'));
    if is_name {
        Ok(text)
    } else {
        Err(format!("{text:?} is no name"))
    }
}

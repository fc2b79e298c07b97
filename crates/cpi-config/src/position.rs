//! Where in a JSON text a key stands: serde_json keeps no positions.

use super::mistakes::shorten;

/// Line and column of a key, from 1. The text must be valid JSON, and `path` a path as mistakes have it:
/// `libvirt.port`, `stemcell.formats[0]`, or `""` for the whole.
///
/// None for what is not there, as a key that is missing.
pub(super) fn find(text: &str, path: &str) -> Option<(usize, usize)> {
    let mut walk = Walk {
        text,
        at: 0,
        wanted: path,
        found: None,
    };
    walk.white_space();
    if path.is_empty() {
        walk.found = Some(walk.at);
    } else {
        walk.value("")?;
    }
    let before = &text[..walk.found?];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some((line, column))
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    wanted: &'a str,
    /// The last one counts where a key stands twice, as it does for the reader.
    found: Option<usize>,
}

impl Walk<'_> {
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn white_space(&mut self) {
        while self.next().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Passes one of these, and white space around it.
    fn pass(&mut self, byte: u8) -> Option<()> {
        self.white_space();
        (self.next()? == byte).then(|| self.at += 1)?;
        self.white_space();
        Some(())
    }

    fn note(&mut self, path: &str, at: usize) {
        if path == self.wanted {
            self.found = Some(at);
        }
    }

    fn value(&mut self, path: &str) -> Option<()> {
        match self.next()? {
            b'{' => self.object(path),
            b'[' => self.list(path),
            b'"' => self.string().map(drop),
            _ => {
                while self
                    .next()
                    .is_some_and(|byte| !byte.is_ascii_whitespace() && !b",]}".contains(&byte))
                {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    fn object(&mut self, path: &str) -> Option<()> {
        self.pass(b'{')?;
        while self.next()? != b'}' {
            let at = self.at;
            let name = self.string()?;
            let inner = if path.is_empty() {
                name
            } else {
                format!("{path}.{name}")
            };
            self.note(&inner, at);
            // As an unknown key is shown.
            self.note(&shorten(&inner), at);
            self.pass(b':')?;
            self.value(&inner)?;
            if self.pass(b',').is_none() {
                break;
            }
        }
        self.pass(b'}')
    }

    fn list(&mut self, path: &str) -> Option<()> {
        self.pass(b'[')?;
        let mut index = 0;
        while self.next()? != b']' {
            let inner = format!("{path}[{index}]");
            self.note(&inner, self.at);
            self.value(&inner)?;
            index += 1;
            if self.pass(b',').is_none() {
                break;
            }
        }
        self.pass(b']')
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        serde_json::from_str(self.text.get(start..self.at)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_found_where_they_stand() {
        let text = "{\n  \"a\": {\"b\\u0063\": [1, {\"d\": \"}\"}], \"e\":null },\n\t\"ü\": 1, \"f.g\": 2, \"a\": 3}";
        for (path, expected) in [
            ("", Some((1, 1))),
            ("a.bc", Some((2, 9))),
            ("a.bc[0]", Some((2, 21))),
            ("a.bc[1].d", Some((2, 25))),
            ("a.e", Some((2, 37))),
            ("ü", Some((3, 2))),
            ("f.g", Some((3, 10))),
            ("a", Some((3, 20))),
            ("missing", None),
        ] {
            assert_eq!(find(text, path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]{}\",:\\\\ a1ü\n]{0,30}", path in "[a.\\[0\\]]{0,4}") {
            find(&text, &path);
        }
    }
}

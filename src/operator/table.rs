//! Tables for people: columns as wide as what is in them, within the width of the terminal.

use bosh_cpi::logging::on_one_line;
use bosh_cpi::progress::terminal_width;

const GAP: &str = "  ";
/// In front of what stands on a row's second line.
const INDENT: &str = "    ";

/// A column: its heading, and whether numbers stand in it.
pub type Column = (&'static str, Align);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows of text under headings.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as there are columns. What guests and deployments wrote cannot move the cursor.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows
            .push(cells.iter().map(|cell| on_one_line(cell)).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, no line wider than this, without columns that say nothing. What does not fit beside the first columns
    /// stands on further lines, and is cut only where it does not fit on one of its own.
    pub fn render(&self, width: usize) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|n| self.says_something(*n))
            .collect();
        let lines = self.lines(&shown, width);
        let mut text = String::new();
        let headings: Vec<String> = self
            .columns
            .iter()
            .map(|(heading, _)| (*heading).to_owned())
            .collect();
        for cells in std::iter::once(&headings).chain(&self.rows) {
            for (number, columns) in lines.iter().enumerate() {
                let prefix = if number == 0 { "" } else { INDENT };
                let columns = columns
                    .iter()
                    .map(|n| pad(&cells[*n], self.width_of(*n), self.columns[*n].1));
                let line = format!("{prefix}{}", columns.collect::<Vec<_>>().join(GAP));
                let line = cut(line.trim_end(), width);
                if !line.is_empty() || number == 0 {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        text
    }

    /// Which columns stand on which line of a row.
    fn lines(&self, shown: &[usize], width: usize) -> Vec<Vec<usize>> {
        let mut lines: Vec<Vec<usize>> = vec![Vec::new()];
        let mut used = 0;
        for n in shown {
            let (needed, line) = (
                self.width_of(*n) + GAP.len(),
                lines.last_mut().expect("there is a first one"),
            );
            // Behind the last column there is no gap.
            if !line.is_empty() && used + needed - GAP.len() > width {
                lines.push(vec![*n]);
                used = INDENT.len() + needed;
            } else {
                line.push(*n);
                used += needed;
            }
        }
        lines
    }

    fn says_something(&self, column: usize) -> bool {
        self.rows.iter().any(|row| !row[column].is_empty())
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells
            .chain([self.columns[column].0.chars().count()])
            .max()
            .unwrap_or(0)
    }
}

fn pad(text: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => format!("{text:<width$}"),
        Align::Right => format!("{text:>width$}"),
    }
}

/// At most this many characters, the last of which says when some are missing.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Words on lines of at most this width, each but the first behind this many spaces. Longer words stand alone.
pub fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let room = width.saturating_sub(indent);
        let line = lines.last_mut().expect("there is a first one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

/// Columns that stdout has: those of the terminal, or `COLUMNS`; without either, lines are as long as they are.
pub fn width() -> usize {
    let of_environment = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    of_environment
        .or_else(|| terminal_width(&std::io::stdout()))
        .map_or(usize::MAX, |columns: usize| columns.max(40))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Align::{Left, Right};

    fn table() -> Table {
        let mut table = Table::new(&[("CID", Left), ("SIZE", Right), ("NAME", Left)]);
        table.row(vec!["vm-1".into(), "1.5G".into(), "cf router/0".into()]);
        table.row(vec!["vm-22".into(), "-".into(), "evil\u{1b}[2J".into()]);
        table
    }

    #[test]
    fn what_does_not_fit_goes_to_further_lines_and_is_cut_there() {
        assert_eq!(
            table().render(80),
            "CID    SIZE  NAME\nvm-1   1.5G  cf router/0\nvm-22     -  evil\\u{1b}[2J\n"
        );
        assert_eq!(
            table().render(14),
            "CID    SIZE\n    NAME\nvm-1   1.5G\n    cf router…\nvm-22     -\n    evil\\u{1b…\n"
        );
        assert_eq!(
            table().render(9),
            "CID\n    SIZE\n    NAME\nvm-1\n    1.5G\n    cf r…\nvm-22\n       -\n    evil…\n"
        );
        assert_eq!(table().render(usize::MAX), table().render(80));
    }

    #[test]
    fn words_wrap_behind_an_indent() {
        assert_eq!(wrapped("a bb ccc dddd", 8, 2), "a bb\n  ccc\n  dddd");
        assert_eq!(wrapped("", 8, 2), "");
        assert_eq!(wrapped("a b", usize::MAX, 2), "a b");
    }
}

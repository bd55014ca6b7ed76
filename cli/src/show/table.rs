//! Columns of text, as wide as they must be.

use crate::term::{Paint, Tone};

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text that stands out by `tone`.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// A table with a line of headings. `nothing` is said instead of an empty one.
pub fn table<const N: usize>(head: [&str; N], rows: &[[Cell; N]], nothing: &str, paint: Paint) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let mut widths = head.map(width);
    for row in rows {
        for (most, cell) in widths.iter_mut().zip(row) {
            *most = (*most).max(width(&cell.text));
        }
    }
    let mut out = line(&head.map(|text| Cell::toned(Tone::Faint, text)), &widths, paint);
    for row in rows {
        out += &line(row, &widths, paint);
    }
    out
}

fn line<const N: usize>(cells: &[Cell; N], widths: &[usize; N], paint: Paint) -> String {
    let mut out = String::new();
    for (cell, most) in cells.iter().zip(widths) {
        out += &paint.tone(cell.tone, &cell.text);
        out += &" ".repeat(most - width(&cell.text) + 2);
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let rows = [["r1".into(), "größer".into(), "".into()], ["router-2".into(), "x".into(), "end".into()]];
        assert_eq!(
            table(["NAME", "B", "C"], &rows, "none", Paint::plain()),
            "NAME      B       C\nr1        größer\nrouter-2  x       end\n"
        );
        assert_eq!(table(["NAME"], &[], "none yet", Paint::plain()), "none yet\n");
    }
}

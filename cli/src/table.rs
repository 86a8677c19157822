//! Tables for people: columns as wide as they have to be, nothing around them.

use std::fmt::Write;

/// Rows below a head. The last column is not padded.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows
            .iter()
            .chain([&head])
            .map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    });
    let mut out = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        let text = table(["A", "LONG"], &[row(["über", ""]), row(["b", "c"])]);
        assert_eq!(text, "A     LONG\nüber\nb     c\n");
        assert_eq!(table(["A", "B"], &[]), "A  B\n");
    }
}

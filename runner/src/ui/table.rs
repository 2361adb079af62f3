//! Tables of a text, laid out for a width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 3;

/// No column is narrowed below this.
const NARROWEST: usize = 8;

/// The rows as lines of at most `width` columns where that can be, the first row being the heading.
pub(crate) fn lay_out(rows: &[Vec<String>], width: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0))
        .collect();
    while widths.iter().sum::<usize>() + GAP * columns.saturating_sub(1) > width {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) else { break };
        *widest -= 1;
    }
    let mut lines = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<Vec<String>> = widths.iter().zip(row).map(|(width, cell)| wrap(cell, *width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            let pieces = widths.iter().enumerate().map(|(column, width)| {
                let piece = cells.get(column).and_then(|cell| cell.get(line)).map_or("", String::as_str);
                format!("{piece}{}", " ".repeat(width.saturating_sub(piece.width())))
            });
            lines.push(pieces.collect::<Vec<_>>().join(" │ ").trim_end().to_owned());
        }
        if number == 0 {
            lines.push(widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("─┼─"));
        }
    }
    lines
}

/// A cell in lines of at most `width` columns, broken at spaces where there are any.
fn wrap(cell: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in cell.split_inclusive(' ') {
        let used = lines.last().map_or(0, |line| line.width());
        if used > 0 && used + word.trim_end().width() > width {
            lines.push(String::new());
        }
        for character in word.chars() {
            let line = lines.last().map_or(0, |line| line.width());
            if line > 0 && line + character.width().unwrap_or(0) > width && character != ' ' {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(character);
            }
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_widest_is_wrapped() {
        let rows =
            [["service", "who may call it"], ["webapp", "the ingress gateway, client"], ["決済", "api。ただし GET /charge のみ"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        insta::assert_snapshot!(lay_out(&rows, 30).join("\n"), @r"
        service │ who may call it
        ────────┼─────────────────────
        webapp  │ the ingress gateway,
                │ client
        決済    │ api。ただし GET
                │ /charge のみ
        ");
    }
}

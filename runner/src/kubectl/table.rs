//! Columns as kubectl sets them.

/// At least as wide as this, spaces included.
const MINIMUM: usize = 6;
/// Between two columns.
const PADDING: usize = 3;

/// Lines of cells; the last cell of a line is not filled up.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        (widest + PADDING).max(MINIMUM)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:<width$}", width = widths[column]));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_three_apart() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        insta::assert_snapshot!(super::columns(&[row(["NAME", "A", "AGE"]), row(["a-long-name", "1", "5m"])]), @"
        NAME          A     AGE
        a-long-name   1     5m
        ");
    }
}

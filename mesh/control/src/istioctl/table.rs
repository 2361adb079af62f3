//! Columns as Go's tabwriter sets them for istioctl: as wide as the widest cell and five spaces more.

const PADDING: usize = 5;

pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = [header.map(str::to_owned)].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + PADDING;
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| if at + 1 == N { cell.clone() } else { format!("{cell:width$}") });
        cells.collect::<String>() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `-` for what is not there.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
